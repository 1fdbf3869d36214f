"""Scores a forecast store by the means of others: xarray opens it, pysteps and scikit-image score it.

    verify_arrays.py OBSERVATIONS FORECASTS VARIABLE THRESHOLD... > rows.json

One row for each lead: sums over all pixels and reference times; `ssim` and `rel_l2` are means over
forecasts. A pixel without an observation is not scored, one without a forecast lowers `coverage`.
"""

import contextlib
import json
import sys

import numpy as np
import xarray as xr
from skimage.metrics import structural_similarity

# It says where its settings are, on the stream that is meant for the scores.
with contextlib.redirect_stdout(sys.stderr):
    from pysteps.verification import detcatscores, detcontscores


def similarity(forecast, observed, both, least, span):
    """The mean SSIM over the scored pixels; the others count as 0 in both."""
    scaled = [np.where(both, (field - least) / span, 0.0) for field in (forecast, observed)]
    _, whole = structural_similarity(
        *scaled,
        data_range=1.0,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        full=True,
    )
    return whole[both].mean()


def row(lead, pairs, thresholds, least, span):
    continuous = detcontscores.det_cont_fct_init(axis=None)
    categories = [detcatscores.det_cat_fct_init(threshold) for threshold in thresholds]
    seen = given = 0
    relative, similar = [], []
    for forecast, observed in pairs:
        known = np.isfinite(observed)
        both = known & np.isfinite(forecast)
        seen, given = seen + known.sum(), given + both.sum()
        p, o = forecast[both], observed[both]
        detcontscores.det_cont_fct_accum(continuous, p.copy(), o.copy())
        for category in categories:
            detcatscores.det_cat_fct_accum(category, p, o)
        relative.append(np.sqrt(((p - o) ** 2).sum() / (o**2).sum()))
        similar.append(similarity(forecast, observed, both, least, span))
    said = detcontscores.det_cont_fct_compute(continuous, ["MSE", "RMSE", "MAE", "ME", "corr_p"])
    scores = {
        "lead": lead,
        "pairs": len(pairs),
        "coverage": given / seen,
        "mse": said["MSE"],
        "rmse": said["RMSE"],
        "mae": said["MAE"],
        "bias": said["ME"],
        "corr": said["corr_p"],
        "rel_l2": np.mean(relative),
        "ssim": np.mean(similar),
    }
    for threshold, category in zip(thresholds, categories):
        said = detcatscores.det_cat_fct_compute(category, ["CSI", "POD", "FAR", "BIAS"])
        for name, score in zip(("csi", "pod", "far", "fbias"), said.values()):
            scores[f"{name}_{threshold:g}"] = score
    return {name: float(score) for name, score in scores.items()}


def main(observations, forecasts, variable, *thresholds):
    observed = xr.open_zarr(observations)[variable].astype("f8")
    forecast = xr.open_zarr(forecasts, decode_timedelta=True)[variable].astype("f8")
    dims = ["time", "prediction_timedelta", *observed.dims[1:]]
    forecast = forecast.transpose(*dims)
    values = observed.values
    least, span = np.nanmin(values), np.nanmax(values) - np.nanmin(values)
    at = {time: index for index, time in enumerate(observed.time.values)}
    rows = []
    for lead, step in enumerate(forecast.prediction_timedelta.values):
        valid = [at.get(time + step) for time in forecast.time.values]
        pairs = [
            (forecast.values[index, lead], values[place])
            for index, place in enumerate(valid)
            if place is not None
        ]
        rows.append(row(lead + 1, pairs, [float(x) for x in thresholds], least, span))
    print(json.dumps(rows))


if __name__ == "__main__":
    main(*sys.argv[1:])
