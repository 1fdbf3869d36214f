#!/usr/bin/env python3
"""Appends frames to a Zarr store with xarray, as a measuring program would.

    growing.py STORE FRAMES CHUNK PAUSE    FRAMES frames, CHUNK to a chunk, PAUSE seconds apart

STORE is a path, or the URL of a store in a bucket. Run by tests/following.rs and connectors/zarr/tests.
"""

import sys
import time

import numpy as np
import xarray as xr


def frame(step):
    y, x = np.mgrid[0:12, 0:17].astype("f4")
    values = np.sin(0.6 * (x - step)) * np.cos(0.4 * y + 0.2 * step)
    stamp = np.datetime64("2020-01-01", "ns") + step * np.timedelta64(60, "s")
    axes = {"time": [stamp], "y": y[:, 0], "x": x[0]}
    array = xr.DataArray(values[None], axes, ("time", "y", "x"), "u", {"units": "m s-1"})
    return array.to_dataset()


def main(path, frames, chunk, pause):
    first = frame(0)
    times = {"units": "seconds since 2020-01-01", "dtype": "int64"}
    encoding = {"u": {"chunks": (chunk, 12, 17)}, "time": times | {"chunks": (64,)}}
    if "://" in path:
        import obstore.store
        import zarr.storage

        path = zarr.storage.ObjectStore(obstore.store.from_url(path))
    first.to_zarr(path, encoding=encoding, consolidated=True, zarr_format=3)
    print("begun", flush=True)
    for step in range(1, frames):
        time.sleep(pause)
        frame(step).to_zarr(path, append_dim="time", consolidated=True)
    print("done", flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]))
