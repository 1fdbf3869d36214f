"""pysteps' STEPS: an ensemble along dense Lucas-Kanade, with noise and motion perturbed, as its guide has it.

    python steps.py --store radar.zarr --like out/ours.zarr --forecasts out/steps.zarr --members 20 --every 8

One radar of rain rates in mm/h on a grid in kilometres. The forecasts are scored by `physicnet evaluate --against`.
"""

import argparse
import contextlib
import sys

import numpy as np
import xarray
from lucas_kanade import HISTORY
from windows import Store

# It says where its settings are.
with contextlib.redirect_stdout(sys.stderr):
    from pysteps.motion.lucaskanade import dense_lucaskanade
    from pysteps.nowcasts import steps
    from pysteps.utils.transformation import dB_transform

# The frames that the motion and the autoregression are taken from.
FRAMES = 3


def forecast(frames, leads, members, kilometres, minutes, seed):
    """(member, lead, y, x) in mm/h from (frame, y, x)."""
    dry = np.nan_to_num(frames[-FRAMES:], nan=0.0)
    decibels, _ = dB_transform(dry, threshold=0.1, zerovalue=-15.0)
    motion = dense_lucaskanade(decibels)
    with contextlib.redirect_stdout(sys.stderr):
        told = steps.forecast(
            decibels, motion, leads, n_ens_members=members, n_cascade_levels=6, precip_thr=-10.0,
            kmperpixel=kilometres, timestep=minutes, noise_method="nonparametric", vel_pert_method="bps",
            mask_method="incremental", seed=seed, num_workers=1,
        )
    rain, _ = dB_transform(told, threshold=-10.0, inverse=True)
    # What would come from outside counts as persistence, in every member.
    newest = frames[-1].copy()
    for older in frames[-2::-1]:
        newest = np.where(np.isfinite(newest), newest, older)
    return np.where(np.isfinite(rain), rain, newest)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--store", required=True, help="observations of one rain rate")
    parser.add_argument("--like", required=True, help="a store whose reference times to forecast")
    parser.add_argument("--forecasts", required=True, help="the store to write")
    parser.add_argument("--members", type=int, default=20)
    parser.add_argument("--every", type=int, default=1, help="forecast every how manieth reference time")
    args = parser.parse_args()
    test = Store(args.store)
    at = {moment: index for index, moment in enumerate(test.times)}
    theirs = xarray.open_zarr(args.like, decode_timedelta=True)
    [name] = test.names
    x = xarray.open_zarr(args.store)["x"]
    kilometres = float(np.abs(np.diff(x)).mean()) * (1e-3 if x.attrs.get("units") == "m" else 1.0)
    minutes = float(theirs["prediction_timedelta"].diff("prediction_timedelta")[0] / np.timedelta64(1, "m"))
    leads, times = theirs.sizes["prediction_timedelta"], theirs["time"].values[:: args.every]
    fields = []
    for seed, moment in enumerate(times):
        newest = at[moment]
        frames = test.frames[0, max(0, newest + 1 - HISTORY) : newest + 1, 0].astype("f8")
        fields.append(forecast(frames, leads, args.members, kilometres, minutes, seed))
        print(f"{moment}: {seed + 1} of {len(times)}", file=sys.stderr, flush=True)
    _, lead, y, x = theirs[name].dims
    told = xarray.DataArray(np.stack(fields).astype("f4"), dims=["time", "number", lead, y, x])
    told = told.assign_coords({dim: theirs[dim] for dim in (lead, y, x)} | {"time": times})
    told.attrs["units"] = theirs[name].attrs.get("units", "")
    chunks = {name: {"chunks": (1, *told.shape[1:])}}
    told.to_dataset(name=name).to_zarr(args.forecasts, mode="w", encoding=chunks)


if __name__ == "__main__":
    main()
