"""pysteps' extrapolation: dense Lucas-Kanade on decibels of rain, semi-Lagrangian, as its guide has it.

    python lucas_kanade.py --store radar.zarr --like 'out/ours/{sensor}.zarr' --forecasts 'out/lk/{sensor}.zarr'

What would come from outside the frame, or from where nothing was measured, counts as persistence: it is
scored on the pixels of all others.
"""

import argparse
import contextlib
import sys

import numpy as np
import xarray
from stores import sensors, write
from windows import Store

# It says where its settings are.
with contextlib.redirect_stdout(sys.stderr):
    from pysteps.extrapolation.semilagrangian import extrapolate
    from pysteps.motion.lucaskanade import dense_lucaskanade
    from pysteps.utils.transformation import dB_transform

# The frames that the motion is taken from.
FRAMES = 3
# Those that gaps are filled from, as the training files of rain have it.
HISTORY = 4


def forecast(frames, leads):
    """(lead, y, x) in mm/h from (frame, y, x)."""
    newest = frames[-1].copy()
    for older in frames[-2::-1]:
        newest = np.where(np.isfinite(newest), newest, older)
    dry = np.nan_to_num(frames[-FRAMES:], nan=0.0)
    decibels, _ = dB_transform(dry, threshold=0.1, zerovalue=-15.0)
    motion = dense_lucaskanade(decibels)
    told = extrapolate(newest, motion, leads, allow_nonfinite_values=True)
    return np.where(np.isfinite(told), told, newest)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--store", required=True, help="observations of one rain rate")
    parser.add_argument("--like", required=True, help="stores whose reference times to forecast")
    parser.add_argument("--forecasts", required=True, help="the stores to write")
    args = parser.parse_args()
    test = Store(args.store)
    at = {moment: index for index, moment in enumerate(test.times)}
    for sample, sensor in enumerate(sensors(args.store, len(test.frames))):
        theirs = xarray.open_zarr(args.like.replace("{sensor}", sensor), decode_timedelta=True)
        leads, fields = theirs.sizes["prediction_timedelta"], []
        for moment in theirs["time"].values:
            newest = at[moment]
            frames = test.frames[sample, max(0, newest + 1 - HISTORY) : newest + 1, 0]
            fields.append(forecast(frames.astype("f8"), leads)[:, None])
        write(theirs, test.names, np.stack(fields), args.forecasts.replace("{sensor}", sensor))


if __name__ == "__main__":
    main()
