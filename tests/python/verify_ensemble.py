"""Scores a store of ensemble forecasts by xskillscore, scores, properscoring and pysteps.

    verify_ensemble.py OBSERVATIONS ENSEMBLE VARIABLE THRESHOLD > rows.json

One row for each lead. The members lie along `number`; a pixel that the observation or any member lacks is left out.
"""

import json
import sys

import numpy as np
import properscoring
import xarray as xr
import xskillscore
from pysteps.verification.ensscores import rankhist
from scores import probability

from verify_stores import LEAD, paired

MEMBER = "number"


def main(observations, ensemble, variable, threshold):
    forecast, observed = paired(observations, ensemble, variable)
    observed = observed.transpose(*(dim for dim in forecast.dims if dim != MEMBER))
    known = observed.notnull() & forecast.notnull().all(MEMBER)
    forecast, observed = forecast.where(known), observed.where(known)
    over = [dim for dim in observed.dims if dim != LEAD]
    crps = {
        "xskillscore": xskillscore.crps_ensemble(observed, forecast, member_dim=MEMBER, dim=[]).mean(over),
        "scores": probability.crps_for_ensemble(
            forecast, observed, ensemble_member_dim=MEMBER, method="ecdf", preserve_dims=[LEAD]
        ),
    }
    apart = forecast.mean(MEMBER) - observed
    shares = (forecast > threshold).mean(MEMBER)
    brier = ((shares - (observed > threshold)) ** 2).where(known).mean(over)
    members = forecast.sizes[MEMBER]
    rows = []
    for lead in range(forecast.sizes[LEAD]):
        at = {LEAD: lead}
        x = forecast.isel(at).transpose(MEMBER, *over).values.reshape(members, -1)
        o = observed.isel(at).values.reshape(-1)
        x, o = x[:, np.isfinite(o)], o[np.isfinite(o)]
        variance = x.var(axis=0, ddof=1).mean()
        rows.append({
            "lead": lead + 1,
            "crps_properscoring": float(properscoring.crps_ensemble(o, x.T).mean()),
            "rmse": float(np.sqrt((apart.isel(at) ** 2).mean())),
            "spread": float(np.sqrt(variance * (members + 1) / members)),
            "brier": float(brier.isel(at)),
            # pysteps gives shares.
            "ranks": (rankhist(x, o, normalize=False)).tolist(),
        } | {f"crps_{name}": float(score.isel(at)) for name, score in crps.items()})
    json.dump(rows, sys.stdout)


main(*sys.argv[1:4], float(sys.argv[4]))
