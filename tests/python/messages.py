#!/usr/bin/env python3
"""The client of `da00` and `ad00` on the other side of our messages.

    messages.py write DIR    write frames of every type and form, and what is in them
    messages.py check DIR    read the frames and forecasts that we wrote, and check them

Run by the tests of connectors/kafka/format.
"""

import json
import sys
from pathlib import Path

import numpy as np
from streaming_data_types.area_detector_ad00 import Attribute, deserialise_ad00, serialise_ad00
from streaming_data_types.dataarray_da00 import Variable, deserialise_da00, serialise_da00

SENDER, TIME = "caméra", 1_767_225_600_000_000_000
DTYPES = [f"{sign}int{bits}" for bits in (8, 16, 32, 64) for sign in ("", "u")]
DTYPES += ["float32", "float64"]


def values(dtype, shape=(2, 3)):
    """The ends of the type, and what lies between."""
    count = int(np.prod(shape))
    if np.dtype(dtype).kind == "f":
        info = np.finfo(dtype)
        some = [info.min, info.max, np.nan, np.inf, -0.0, info.tiny]
    else:
        info = np.iinfo(dtype)
        some = [info.min, info.max, 0, 1, info.max // 3, info.max - 1]
    return np.resize(np.array(some, dtype), count).reshape(shape)


def grid():
    return [
        Variable("y", np.array([7.0, 8.0]), axes=["y"], unit="km"),
        Variable("x", np.array([0.0, 1.0, 2.0, 3.0], "f4"), axes=["x"], unit="km"),
    ]


def frames():
    """Name, format, time, channels, type, values, message."""
    for dtype in DTYPES:
        data = values(dtype)
        stamp = "timestamp"
        for axes, shape in ((["y", "x"], (2, 3)), (["time", "y", "x"], (1, 2, 3)), (None, (2, 3))):
            array = Variable("signal", data.reshape(shape), axes=axes, unit="mm/h", label="rain")
            name = f"{dtype}-{'-'.join(axes or ['bare'])}.da00"
            message = serialise_da00(SENDER, TIME, [array] + grid())
            yield name, "da00", stamp, 1, dtype, data, message
        array = Variable("rain", data, axes=["y", "x"], unit="mm/h")
        crs = Variable("crs", "EPSG:4326")
        errors = Variable("errors", data, axes=["y", "x"], unit="mm/h")
        message = serialise_da00(SENDER, TIME, [crs, array, errors])
        yield f"{dtype}-named.da00", "da00", stamp, 1, dtype, data, message
        stage = Attribute("x", "where the stage is", "motor", 3.5)
        attributes = [stage, Attribute("crs", "", "", "EPSG:4326")]
        message = serialise_ad00(SENDER, 4, TIME, data, attributes)
        yield f"{dtype}.ad00", "ad00", stamp, 1, dtype, data, message
        both = values(dtype, (2, 2, 3))
        array = Variable("signal", both, axes=["component", "y", "x"], unit="m/s")
        message = serialise_da00(SENDER, TIME, [array])
        yield f"{dtype}-two.da00", "da00", stamp, 2, dtype, both, message
        parts = [Variable(n, v, axes=["y", "x"], unit="m/s") for n, v in zip("uv", both)]
        message = serialise_da00(SENDER, TIME, parts[::-1])
        yield f"{dtype}-apart.da00", "da00", stamp, 2, dtype, both, message
    data = values("float32")
    array = Variable("signal", data, axes=["y", "x"])
    own = {"coordinate": "when"}
    for name, when, unit in (
        ("plain", TIME // 10**9, "datetime64[s]"),
        ("scalar", np.array(TIME // 10**6), "datetime64[ms]"),
        ("line", np.array([TIME // 10**3]), "datetime64[us]"),
        ("bare", np.array(TIME), None),
    ):
        axes = ["when"] if name == "line" else None
        when = Variable("when", when, unit=unit, axes=axes)
        message = serialise_da00(SENDER, 5, [when, array])
        yield f"time-{name}.da00", "da00", own, 1, "float32", data, message
    when = [Attribute("when", "datetime64[s]", "clock", TIME // 10**9)]
    yield "time.ad00", "ad00", own, 1, "float32", data, serialise_ad00(SENDER, 0, 5, data, when)


def write(folder):
    manifest = []
    for name, form, time, channels, dtype, data, message in frames():
        (folder / name).write_bytes(message)
        with np.errstate(over="ignore"):
            (folder / f"{name}.f32").write_bytes(data.astype("<f4").tobytes())
        case = {"name": name, "format": form, "time": time, "channels": channels}
        manifest.append(case | {"dtype": dtype, "valid_time": TIME})
    (folder / "manifest.json").write_text(json.dumps(manifest))


def counted(shape):
    data = np.arange(np.prod(shape), dtype="f4") / np.float32(8) - np.float32(3)
    data[1] = np.nan
    return data.reshape(shape)


def equal(a, b):
    assert a.dtype == b.dtype and np.array_equal(a, b, equal_nan=True), (a, b)


def check_coordinates(found):
    equal(found["y"].data, np.array([7.0, 8.0]))
    equal(found["x"].data, np.array([0.5, 1.5, 2.5]))
    # `degrees_north` is not a unit that readers of messages know.
    assert (found["y"].unit, found["x"].unit) == ("deg", None)
    assert (found["y"].axes, found["x"].axes) == (["y"], ["x"])


def check_da00(folder, channels):
    message = deserialise_da00((folder / f"frame.{channels}.da00").read_bytes())
    found = {v.name: v for v in message.data}
    assert message.source_name == "radar/north" and message.timestamp_ns == TIME + 1
    names, unit = (["signal"], "mm/h") if channels == 1 else (["u", "v"], "m/s")
    assert set(found) == {*names, "y", "x"}
    for name, data in zip(names, counted((channels, 2, 3))):
        assert (found[name].axes, found[name].unit) == (["y", "x"], unit)
        equal(found[name].data, data)
    check_coordinates(found)
    for kind, late, scale in (("seconds", 0, 10**9), ("nanoseconds", 5, 1)):
        message = deserialise_da00((folder / f"{kind}.{channels}.da00").read_bytes())
        assert message.source_name == "radar/north" and message.timestamp_ns == TIME + late
        found = {v.name: v for v in message.data}
        signal = found["signal"]
        extra, shape = ([], (3, 2, 3)) if channels == 1 else (["channel"], (3, 2, 2, 3))
        assert (signal.axes, signal.unit) == (["lead_time", *extra, "y", "x"], unit)
        assert signal.label == ("rain" if channels == 1 else "u,v")
        equal(signal.data, counted(shape))
        word = "s" if scale > 1 else "ns"
        leads, reference = found["lead_time"], found["forecast_reference_time"]
        assert (leads.unit, leads.axes) == (word, ["lead_time"])
        equal(leads.data, np.arange(1, 4) * (300 * 10**9 // scale))
        assert (reference.unit, reference.axes) == (f"datetime64[{word}]", [])
        assert reference.data == (TIME + late) // scale
        assert found["model"].data == "abc" and found["revision"].data == 2
        assert found["missing"].data == 0.25
        if channels == 2:
            assert (found["channel"].data, found["units"].data) == ("u,v", "m/s,m/s")
        check_coordinates(found)


def check_ad00(folder, channels):
    message = deserialise_ad00((folder / f"frame.{channels}.ad00").read_bytes())
    assert message.source_name == "radar/north" and message.timestamp_ns == TIME + 1
    equal(message.data, counted((2, 3) if channels == 1 else (2, 2, 3)))
    message = deserialise_ad00((folder / f"seconds.{channels}.ad00").read_bytes())
    equal(message.data, counted((3, 2, 3) if channels == 1 else (3, 2, 2, 3)))
    found = {a.name: a for a in message.attributes}
    equal(found["lead_time"].data, np.arange(1, 4) * 300)
    assert found["lead_time"].description == "s"
    assert found["forecast_reference_time"].data == TIME // 10**9
    assert found["model"].data == "abc" and found["revision"].data == 2


def check_json(folder, channels):
    def array(variable):
        return np.array(variable["data"], "f4")

    message = json.loads((folder / f"frame.{channels}.json").read_text())
    assert message["timestamp"] == "2026-01-01T00:00:00.000000001Z"
    names = ["signal"] if channels == 1 else ["u", "v"]
    for name, data in zip(names, counted((channels, 2, 3))):
        equal(array(message["variables"][name]), data)
    message = json.loads((folder / f"seconds.{channels}.json").read_text())
    assert message["source_name"] == "radar/north"
    shape = (3, 2, 3) if channels == 1 else (3, 2, 2, 3)
    equal(array(message["variables"]["signal"]), counted(shape))
    leads = {"units": "s", "axes": ["lead_time"], "data": [300, 600, 900]}
    assert message["variables"]["lead_time"] == leads
    assert message["variables"]["model"]["data"] == "abc"


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["write", folder]:
            write(Path(folder))
        case ["check", folder]:
            for channels in (1, 2):
                for check in (check_da00, check_ad00, check_json):
                    check(Path(folder), channels)
        case _:
            sys.exit(__doc__)
