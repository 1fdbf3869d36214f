"""Scores a forecast store by `scores`, by `xskillscore` and, where it is installed, by WeatherBench-X.

    verify_stores.py OBSERVATIONS FORECASTS VARIABLE THRESHOLD > rows.json

{"scores": [...], "xskillscore": [...], "weatherbenchX": [...]}, one row for each lead. Nothing is renamed in
the forecasts, and WeatherBench-X is given the two paths alone. A pixel that either lacks is left out.
"""

import importlib.util
import json
import sys

import numpy as np
import xarray as xr

LEAD = "prediction_timedelta"


def paired(observations, forecasts, variable):
    """The forecasts, and beside each the observation of its valid time; missing where there is none."""
    forecast = xr.open_zarr(forecasts)[variable].astype("f8").load()
    observed = xr.open_zarr(observations)[variable].astype("f8").load()
    # What is short in the data is written out in the forecasts, as WeatherBench has it.
    names = {"time": "valid_time", "lat": "latitude", "lon": "longitude"}
    observed = observed.rename({old: new for old, new in names.items() if old in observed.dims})
    valid = forecast["time"] + forecast[LEAD]
    observed = observed.reindex(valid_time=np.unique(valid)).sel(valid_time=valid)
    return forecast, observed.drop_vars("valid_time")


def rows(forecast, **by_lead):
    """One row for each lead of scores over it."""
    table = {name: score.transpose(LEAD).values for name, score in by_lead.items()}
    return [
        {"lead": lead + 1} | {name: float(values[lead]) for name, values in table.items()}
        for lead in range(forecast.sizes[LEAD])
    ]


def by_scores(forecast, observed, threshold):
    from scores import categorical, continuous

    events = categorical.ThresholdEventOperator(default_event_threshold=threshold)
    table = events.make_contingency_manager(forecast, observed).transform(preserve_dims=[LEAD])
    kept = {"preserve_dims": [LEAD]}
    return rows(
        forecast,
        mse=continuous.mse(forecast, observed, **kept),
        rmse=continuous.rmse(forecast, observed, **kept),
        mae=continuous.mae(forecast, observed, **kept),
        bias=continuous.additive_bias(forecast, observed, **kept),
        corr=continuous.correlation.pearsonr(forecast, observed, **kept),
        csi=table.critical_success_index(),
        pod=table.probability_of_detection(),
        far=table.false_alarm_ratio(),
    )


def by_xskillscore(forecast, observed, threshold):
    import xskillscore

    over = {"dim": [dim for dim in forecast.dims if dim != LEAD], "skipna": True}
    known = forecast.notnull() & observed.notnull()
    forecast, observed = forecast.where(known), observed.where(known)
    edges = np.array([-np.inf, threshold, np.inf])
    table = xskillscore.Contingency(observed, forecast, edges, edges, over["dim"])
    return rows(
        forecast,
        mse=xskillscore.mse(forecast, observed, **over),
        rmse=xskillscore.rmse(forecast, observed, **over),
        mae=xskillscore.mae(forecast, observed, **over),
        bias=xskillscore.me(observed, forecast, **over) * -1,
        corr=xskillscore.pearson_r(forecast, observed, **over),
        csi=table.threat_score(),
        pod=table.hit_rate(),
        far=table.false_alarm_ratio(),
    )


def by_weatherbench_x(observations, forecasts, variable, pairs):
    """Its own loaders on the paths, its own metrics: leads one by one, as the last have no truth."""
    from weatherbenchX import aggregation
    from weatherbenchX.data_loaders import xarray_loaders
    from weatherbenchX.metrics import deterministic

    forecast, observed = pairs
    predictions = xarray_loaders.PredictionsFromXarray(path=forecasts, variables=[variable])
    targets = xarray_loaders.TargetsFromXarray(path=observations, variables=[variable])
    metrics = {
        "mse": deterministic.MSE(),
        "rmse": deterministic.RMSE(),
        "mae": deterministic.MAE(),
        "bias": deterministic.Bias(),
    }
    space = [dim for dim in forecast.dims if dim not in ("time", LEAD)]
    mean = aggregation.Aggregator(reduce_dims=["init_time", *space], skipna=True)
    table = []
    for lead in range(forecast.sizes[LEAD]):
        known = observed.isel({LEAD: lead}).notnull().any(space)
        begins = forecast["time"].values[known.values]
        step = forecast[LEAD].values[lead : lead + 1]
        chunks = (loader.load_chunk(begins, step) for loader in (predictions, targets))
        told = aggregation.compute_metric_values_for_single_chunk(metrics, mean, *chunks)
        row = {name: float(told[f"{name}.{variable}"].squeeze()) for name in metrics}
        table.append({"lead": lead + 1} | row)
    return table


def main(observations, forecasts, variable, threshold):
    pairs = paired(observations, forecasts, variable)
    told = {
        "scores": by_scores(*pairs, float(threshold)),
        "xskillscore": by_xskillscore(*pairs, float(threshold)),
    }
    if importlib.util.find_spec("weatherbenchX"):
        told["weatherbenchX"] = by_weatherbench_x(observations, forecasts, variable, pairs)
    print(json.dumps(told))


if __name__ == "__main__":
    main(*sys.argv[1:])
