#!/usr/bin/env python3
"""Real xarray and zarr-python on the other side of our Zarr stores.

    zarr_stores.py write DIR          write every kind of store that we read, and what is in it
    zarr_stores.py check DIR          open the forecasts that we wrote, and check them
    zarr_stores.py loop STORE COUNT   open a growing store over and over, until it has COUNT

Run by the tests of connectors/zarr.
"""

import json
import shutil
import sys
import warnings
from pathlib import Path

import numcodecs
import numpy as np
import xarray as xr
import zarr.codecs

warnings.filterwarnings("ignore")

START, STEP, FRAMES, ROWS, COLUMNS = "2019-03-01T00:30:00", 300, 19, 6, 9


def times(step=STEP, start=START):
    return np.datetime64(start, "ns") + np.arange(FRAMES) * np.timedelta64(step, "s")


def rain(seed=0, shape=(FRAMES, ROWS, COLUMNS)):
    """Half of it dry, one frame dry, one missing, and missing pixels."""
    values = np.random.default_rng(seed).gamma(0.5, 4.0, shape).astype("f4")
    values[values < 1] = 0
    values[..., 2, :, :] = 0
    values[..., 3, :, :] = np.nan
    values[..., 1, 4] = np.nan
    return values


def dataset(values=None, dims=("time", "y", "x"), time=None, name="rain", **coords):
    values = rain() if values is None else values
    sizes = dict(zip(dims, values.shape))
    axes = {d: np.arange(sizes[d]) * 2.0 - 7 for d in dims if d in ("y", "x")}
    axes |= {"time": times() if time is None else time} | coords
    array = xr.DataArray(values, dims=dims, coords=axes, name=name, attrs={"units": "mm h-1"})
    return array.to_dataset()


def integers(dtype):
    info = np.iinfo(dtype)
    return np.random.default_rng(1).integers(
        max(info.min, -2**40), min(info.max, 2**40), (FRAMES, ROWS, COLUMNS), dtype
    )


def cases():
    """Name, data set, options of to_zarr, encoding of the data, options of ours."""
    chunk = {"chunks": (4, 3, 9)}
    codecs2 = {
        "default": {},
        "none": {"compressors": None},
        "zstd": {"compressors": numcodecs.Zstd(3)},
        "gzip": {"compressors": numcodecs.GZip(5)},
        "zlib": {"compressors": numcodecs.Zlib(5)},
        "bz2": {"compressors": numcodecs.BZ2(5)},
        "blosc-lz4": {"compressors": numcodecs.Blosc("lz4")},
        "blosc-zstd-bit": {"compressors": numcodecs.Blosc("zstd", shuffle=2)},
    }
    codecs3 = {
        "default": {},
        "none": {"compressors": ()},
        "zstd": {"compressors": (zarr.codecs.ZstdCodec(level=3, checksum=True),)},
        "gzip": {"compressors": (zarr.codecs.GzipCodec(level=5),)},
        "blosc-lz4": {"compressors": (zarr.codecs.BloscCodec(cname="lz4"),)},
        "blosc-zstd-bit": {
            "compressors": (zarr.codecs.BloscCodec(cname="zstd", shuffle="bitshuffle"),)
        },
        "sharded": {"chunks": (2, 3, 9), "shards": (8, 6, 9)},
        "sharded-blosc": {
            "chunks": (1, 6, 9),
            "shards": (16, 6, 9),
            "compressors": (zarr.codecs.BloscCodec(cname="zstd"),),
        },
        "big-endian": {"serializer": zarr.codecs.BytesCodec(endian="big")},
    }
    for version, codecs in ((2, codecs2), (3, codecs3)):
        form = {"zarr_format": version}
        for name, codec in codecs.items():
            yield f"v{version}-{name}", dataset(), form, {"rain": chunk | codec}, {}

        for dtype in ("f2", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8"):
            values = rain().astype(dtype) if dtype[0] == "f" else integers(dtype)
            yield f"v{version}-{dtype}", dataset(values), form, {"rain": chunk}, {}
        values = rain().astype(">f4")
        yield f"v{version}-big", dataset(values), form, {"rain": chunk}, {}

        for name, units, kind in (
            ("noon", "days since 2000-01-01 12:00", "f8"),
            ("hours", "hours since 1900-01-01", "f8"),
            ("minutes", "minutes since 2019-03-01T00:00:00Z", "i4"),
            ("seconds", "seconds since 1970-01-01", "i8"),
            ("milliseconds", "milliseconds since 2019-01-01 06:00:00", "i8"),
            ("microseconds", "microseconds since 2019-03-01 00:00:00", "i8"),
            ("nanoseconds", "nanoseconds since 1970-01-01", "i8"),
        ):
            for calendar in ("standard", "proleptic_gregorian"):
                time = {"units": units, "calendar": calendar, "dtype": kind}
                yield f"v{version}-{name}-{calendar}", dataset(), form, {"time": time}, {}
        old = dataset(time=times(3600, "1850-01-01"))
        yield f"v{version}-1850", old, form, {}, {}
        jitter = times()
        jitter[5] += np.timedelta64(1500, "ms")
        jitter[9] = jitter[8]
        yield f"v{version}-jitter", dataset(time=jitter), form, {}, {}

        for dims in (("x", "y", "time"), ("time", "x", "y"), ("y", "time", "x")):
            turned = dataset().transpose(*dims)
            yield f"v{version}-{'-'.join(dims)}", turned, form, {"rain": {"chunks": (5, 4, 3)}}, {}
        world = dataset(dims=("time", "lat", "lon"), lat=np.linspace(60, 50, ROWS).astype("f4"),
                        lon=np.linspace(-10, 5, COLUMNS))
        yield f"v{version}-falling", world, form, {}, {}
        long = {"lat": "latitude", "lon": "longitude"}
        yield f"v{version}-long-names", world.rename(long), form, {}, {}
        bare = dataset().drop_vars(["y", "x"])
        yield f"v{version}-bare", bare, form, {}, {}
        names = dataset(dims=("time", "j", "i"))
        yield f"v{version}-names", names, form, {}, {}

        two = xr.merge([dataset(), dataset(rain(1), name="snow")])
        yield f"v{version}-two", two, form, {}, {"variables": ["snow", "rain"]}
        yield f"v{version}-all", two, form, {}, {}
        samples = dataset(rain(2, (3, FRAMES, ROWS, COLUMNS)), ("sample", "time", "y", "x"))
        yield f"v{version}-samples", samples, form, {"rain": {"chunks": (2, 8, 6, 9)}}, {}
        channels = dataset(rain(2, (3, FRAMES, ROWS, COLUMNS)), ("channel", "time", "y", "x"))
        yield f"v{version}-channels", channels.transpose("time", "y", "x", "channel"), form, {}, {}
        level = dataset(rain(2, (1, FRAMES, ROWS, COLUMNS)), ("level", "time", "y", "x"))
        yield f"v{version}-level", level, form, {}, {}

        for name, pack in (
            ("packed", {"dtype": "i2", "scale_factor": 0.01, "add_offset": 280.0, "_FillValue": -32768}),
            ("dry", {"dtype": "i2", "scale_factor": 0.01, "add_offset": 0.0, "_FillValue": -32768}),
            ("packed-u1", {"dtype": "u1", "scale_factor": 0.5, "_FillValue": 255}),
            ("mark", {"_FillValue": np.float32(-9999.9)}),
            ("mark8", {"dtype": "f8", "_FillValue": -9999.9}),
        ):
            values = rain() + (np.linspace(280, 281, COLUMNS, dtype="f4") if name == "packed" else 0)
            options = {"rain": pack | {"chunks": (1, ROWS, COLUMNS)}}
            yield f"v{version}-{name}", dataset(values), form, options, {}
            if version == 3:
                options = {"rain": pack | {"chunks": (1, 3, COLUMNS), "shards": (4, ROWS, COLUMNS)}}
                yield f"v3-{name}-sharded", dataset(values), form, options, {}
        plain = form | {"consolidated": False}
        yield f"v{version}-plain", dataset(), plain, {}, {}


def expected(data, options):
    """(sensor, time, channel, y, x) as xarray reads it."""
    names = options.get("variables") or sorted(v for v in data.data_vars if data[v].ndim > 2)
    y, x = next(p for p in (("y", "x"), ("lat", "lon"), ("latitude", "longitude"), ("j", "i")) if p[0] in data.dims)
    array = xr.concat([data[name] for name in names], "which")
    for dim in ("sample", "channel"):
        if dim not in array.dims:
            array = array.expand_dims(dim)
    if "level" in array.dims:
        array = array.squeeze("level")
    array = array.transpose("sample", "time", "which", "channel", y, x)
    values = array.values.astype("f4")
    s, t, v, c, rows, columns = values.shape
    axes = [
        data[d].values.astype("f8").tolist() if d in data.coords else list(map(float, range(data.sizes[d])))
        for d in (y, x)
    ]
    return values.reshape(s, t, v * c, rows, columns), axes


def write(folder):
    folder.mkdir(parents=True)
    listed = []
    for name, data, form, encoding, options in cases():
        path = folder / f"{name}.zarr"
        data.to_zarr(path, encoding=encoding, **form)
        listed.append((name, path, options))
    # A store that grew by appending, its last chunk filled up.
    path = folder / "appended.zarr"
    for first, last in ((0, 6), (6, 7), (7, FRAMES)):
        part = dataset().isel(time=slice(first, last))
        if first:
            part.to_zarr(path, append_dim="time")
        else:
            part.to_zarr(path, encoding={"rain": {"chunks": (4, ROWS, COLUMNS)}})
    listed.append(("appended", path, {}))
    # Chunks that were never written: what xarray takes for the offset is not measured.
    for name in ("v2-packed", "v3-packed"):
        path = folder / f"{name}-hole.zarr"
        shutil.copytree(folder / f"{name}.zarr", path)
        (path / ("rain/5.0.0" if name[1] == "2" else "rain/c/5/0/0")).unlink()
        listed.append((f"{name}-hole", path, {}))

    manifest = []
    for name, path, options in listed:
        data = xr.open_zarr(path, consolidated=False if "plain" in name else None)
        values, axes = expected(data, options)
        if "hole" in name:
            values[:, 5] = np.nan
        stamps = data.time.values.astype("datetime64[ns]").astype("i8")
        values.astype("<f4").tofile(folder / f"{name}.values")
        steps = np.diff(stamps)
        manifest.append({
            "name": name, "shape": values.shape, "times": stamps.tolist(), "y": axes[0], "x": axes[1],
            "cadence": int(np.sort(steps[steps > 0])[(steps > 0).sum() // 2]), "options": options,
        })
    (folder / "manifest.json").write_text(json.dumps(manifest))
    print(f"wrote {len(manifest)} stores")


def value(at, shape, sign):
    """What the test writes as forecast `at`, in f32 as there."""
    steps = np.arange(np.prod(shape), dtype="f4") / np.float32(1024)
    return (np.float32(sign) * (np.float32(at) + steps)).reshape(shape)


def check(folder):
    for name in ("seconds", "nanoseconds"):
        data = xr.open_zarr(folder / f"{name}.zarr")
        start = np.datetime64("2020-01-01", "ns")
        at = np.arange(7)
        step = np.timedelta64(300_000 if name == "seconds" else 1_500, "ms")
        assert (data.time.values == start + at * step).all(), data.time.values
        leads = data.prediction_timedelta.values
        assert leads.dtype.kind == "m", leads.dtype
        assert (leads == np.arange(1, 4) * step).all(), leads
        for channel, variable in enumerate(("rain", "t2m")):
            for suffix, sign in (("", 1), ("_persistence", -1)):
                array = data[variable + suffix]
                assert array.dims == ("time", "prediction_timedelta", "latitude", "x"), array.dims
                for i in at:
                    whole = value(i, (3, 2, 2, 3), sign)
                    assert (array[i].values == whole[:, channel]).all(), (variable, i)
        assert data.rain.attrs["units"] == "mm h-1" and data.t2m.attrs["units"] == "K"
        assert data.latitude.values.tolist() == [60.0, 59.0]
        assert (data.missing.values == np.float32(0.25)).all()
        assert (data.revision.values == 0).all()
        served = data.serving.attrs["flag_meanings"].split()
        served = [served[flag] for flag in data.serving.values]
        assert served == (["physicnet", "blend", "persistence"] * 3)[:7], served
        assert set(data.data_vars) == {"rain", "t2m", "rain_persistence", "t2m_persistence"}
        assert data.attrs["model"] == "abc" and data.attrs["product"] == "mean"
        assert data.attrs["physicnet"]["progress"] == {
            "next": 7,
            "time": (1_577_836_800 + 300 * 6) * 10**9,
            "replay_from": 3,
        }
        assert data.time.attrs["standard_name"] == "forecast_reference_time"
        same = xr.open_zarr(folder / f"{name}.zarr", consolidated=False, decode_timedelta=True)
        assert same.identical(data)
    archive = xr.open_zarr(folder / "archive.zarr")
    assert archive.rain.dims == ("sample", "time", "latitude", "x")
    assert archive.time.values[3] == np.datetime64("2020-01-01T00:15:00")
    frame = value(3, (2, 2, 3), 1)
    frame.reshape(-1)[3] = np.nan
    assert np.array_equal(archive.rain[1, 3], frame[0], equal_nan=True)
    assert np.array_equal(archive.t2m[1, 3], frame[1], equal_nan=True)
    print("all as written")


def loop(path, count):
    print("ready", flush=True)
    reads, seen = 0, set()
    while max(seen, default=0) < count:
        data = xr.open_zarr(path)
        length = data.sizes["time"]
        at = np.arange(length)
        stamps = np.datetime64("2020-01-01", "ns") + at * np.timedelta64(300, "s")
        assert (data.time.values == stamps).all(), (length, data.time.values)
        for variable, channel in (("rain", 0), ("t2m", 1)):
            whole = np.stack([value(i, (3, 2, 2, 3), 1)[:, channel] for i in at])
            assert (data[variable].values == whole).all(), (variable, length)
        assert (data.missing.values == np.float32(0.25)).all(), length
        assert (data.revision.values == 0).all() and data.serving.shape == (length,), length
        reads += 1
        seen.add(length)
    print(f"{reads} reads of {len(seen)} lengths, none torn", flush=True)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["write", folder]:
            write(Path(folder))
        case ["check", folder]:
            check(Path(folder))
        case ["loop", path, count]:
            loop(path, int(count))
        case _:
            sys.exit(__doc__)
