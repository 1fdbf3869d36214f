"""Forecasts in the layout that `physicnet evaluate --against` reads, and where those of a sensor lie."""

from pathlib import Path

import xarray


def sensors(store, samples):
    """What a store's sensors are called in file names."""
    stem = Path(store).stem
    return [stem] if samples == 1 else [f"{stem}_{index:04}" for index in range(samples)]


def write(theirs, names, fields, path):
    """`fields` (time, lead, variable, y, x) as a store like theirs."""
    dims = theirs[names[0]].dims
    units = lambda name: {"units": theirs[name].attrs.get("units", "")}
    told = {name: (dims, fields[:, :, c].astype("f4"), units(name)) for c, name in enumerate(names)}
    xarray.Dataset(told, {dim: theirs[dim] for dim in dims}).to_zarr(path, mode="w")
