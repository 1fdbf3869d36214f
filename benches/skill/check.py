"""The scores once more, from the stores alone, by numpy and pysteps: they must be `evaluate`'s.

Says by how much, as a share, any squared error, relative L2, CSI or FSS differs; too much ends the comparison.
"""

import contextlib
import math
import sys
from pathlib import Path

import numpy as np
import xarray

with contextlib.redirect_stdout(sys.stderr):
    from pysteps.verification import spatialscores

# Six digits.
TOLERANCE = 5e-7


def stores_of(template, observations, samples):
    stem = Path(observations).stem
    names = [stem] if samples == 1 else [f"{stem}_{index:04}" for index in range(samples)]
    return [xarray.open_zarr(template.replace("{sensor}", name), decode_timedelta=True) for name in names]


def scored(times, first, stride):
    """Whether a reference time is scored: every how manieth from the first one on."""
    cadence = np.median(np.diff(times).astype("timedelta64[ns]").astype("i8"))
    steps = lambda moment: round(int((moment - first).astype("timedelta64[ns]").astype("i8")) / cadence)
    return lambda moment: moment >= first and steps(moment) % stride == 0


def pairs(forecasts, observed, variable, lead, counts):
    """What was said for a lead and what came, frame by frame, where both are and the reference time counts."""
    for sample, store in enumerate(forecasts):
        fields, truth = store[variable], observed[sample]
        times = {moment: index for index, moment in enumerate(truth["time"].values)}
        step = store["prediction_timedelta"].values[lead]
        for index, moment in enumerate(store["time"].values):
            if counts(moment) and moment + step in times:
                said = fields.values[index, lead].astype("f8")
                came = truth.values[times[moment + step]].astype("f8")
                both = np.isfinite(said) & np.isfinite(came)
                if both.any():
                    yield said, came, both


def row(frames, asked):
    """The scores of `asked` (`mse`, `rel_l2`, `csi_THRESHOLD`, `fss_THRESHOLD_PIXELS`) of one lead."""
    thresholds = [float(key[4:]) for key in asked if key.startswith("csi_")]
    windows = {key: key.split("_")[1:] for key in asked if key.startswith("fss_")}
    fractions = {key: spatialscores.fss_init(float(t), int(n)) for key, (t, n) in windows.items()}
    squares = count = 0
    relative = []
    hits, either = np.zeros((2, len(thresholds)))
    for said, came, both in frames:
        off = (said[both] - came[both]) ** 2
        squares, count = squares + off.sum(), count + both.sum()
        if (norm := (came[both] ** 2).sum()) > 0:
            relative.append(np.sqrt(off.sum() / norm))
        for at, threshold in enumerate(thresholds):
            yes, true = said[both] > threshold, came[both] > threshold
            hits[at], either[at] = hits[at] + (yes & true).sum(), either[at] + (yes | true).sum()
        for fraction in fractions.values():
            spatialscores.fss_accum(fraction, np.where(both, said, 0.0), np.where(both, came, 0.0))
    told = {"mse": squares / count, "rel_l2": np.mean(relative)}
    told |= {f"csi_{t:g}": hits[at] / either[at] for at, t in enumerate(thresholds) if either[at]}
    told |= {key: spatialscores.fss_compute(fraction) for key, fraction in fractions.items()}
    # Where nobody says rain and none came there is nothing to divide by, and `evaluate` says nothing.
    return {key: value for key, value in told.items() if np.isfinite(value)}


def checked(score):
    return score in ("mse", "rel_l2") or score.startswith(("csi_", "fss_"))


def check(said, observations, stores, first, stride):
    """The largest difference, as a share, of `said` (the variables of `evaluate --json`)."""
    data, largest = xarray.open_zarr(observations), 0.0
    counts = scored(data["time"].values, np.datetime64(first), stride)
    for variable in said:
        observed = data[variable["name"]]
        observed = list(observed) if "sample" in observed.dims else [observed]
        observed = [field.load() for field in observed]
        for name, template in stores.items():
            forecasts = [store.load() for store in stores_of(template, observations, len(observed))]
            for lead, theirs in enumerate(variable["products"][name]["leads"]):
                frames = pairs(forecasts, observed, variable["name"], lead, counts)
                ours = row(frames, theirs)
                for score in filter(checked, theirs):
                    if theirs[score] is None and score not in ours:
                        continue
                    value, said_so = ours.get(score, math.nan), theirs[score]
                    off = math.inf if said_so is None else abs(said_so - value) / max(abs(value), 1e-3)
                    if not off <= TOLERANCE:
                        two = f"{said_so} by evaluate, {value} by numpy and pysteps"
                        raise SystemExit(f"{name}, lead {lead + 1}: {score} is {two}")
                    largest = max(largest, float(off))
    return largest
