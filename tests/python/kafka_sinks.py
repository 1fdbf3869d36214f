"""Topics as a sink beside others, after a job was killed: see tests/kafka.rs."""

import random
import sys
import time

import numpy as np
import xarray as xr
from streaming_data_types import deserialise_da00

from kafka_house import Job, Told, field, frames, kafka_sink, kafka_source, main, send, topic

NAMES = [f"s{k}" for k in range(4)]
KILLS = 3


def hurt(job, told, expected, kills):
    """Kills a job when it has written a part, again and again, and lets it end."""
    chance = random.Random(0)
    for kill in range(kills):
        job.start()
        begun = time.monotonic()
        aim = expected * (kill + 1) // (kills + 1)
        while len(told.messages) < aim:
            told.poll(0.02)
            assert job.runs() and time.monotonic() < begun + 90, job.said()
        time.sleep(chance.uniform(0, 0.2))
        job.kill()
    job.start()
    told.until(expected, job)
    job.stop()


def pair(folder, sources, expected, sinks=lambda kills: []):
    """What is committed by a job that is never killed, and by one that is."""
    told = []
    for kills in (0, KILLS):
        out = topic("forecasts", 2)
        job = Job(folder, sources, [kafka_sink(out), *sinks(kills)], more="workers: 2\nin_flight: 2")
        hurt(job, Told(out), expected, kills)
        told.append(Told(out).by_key())
    return told


def files(folder):
    return {p.relative_to(folder): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def both(folder):
    """Stores and topics together are what they are when nothing dies."""
    name, steps = topic("frames", 4), 30
    send(name, frames(NAMES, range(steps)))

    def store(kills):
        return [f"{{type: zarr, path: '{folder}/{kills}/{{sensor}}.zarr', fsync: false}}"]

    source = kafka_source(name)
    whole, killed = pair(folder, [source], (steps - 2) * len(NAMES), store)
    assert whole == killed, "the forecasts differ"
    ours, theirs = files(folder / "0"), files(folder / str(KILLS))
    assert len(ours) > (steps - 2) * len(NAMES)
    different = [name for name in {**ours, **theirs} if ours.get(name) != theirs.get(name)]
    assert not different, f"the stores differ: {different[:9]}"


def stores(folder):
    """From stores and simulations to a topic: every forecast once."""
    steps, sources = 30, []
    for name in NAMES[:2]:
        coords = {"time": np.arange(steps) * np.timedelta64(60, "s") + np.datetime64("2020-01-01", "ns")}
        coords |= {axis: np.arange(16.0) for axis in ("y", "x")}
        values = np.stack([field(name, k) for k in range(steps)])
        data = xr.DataArray(values, coords, ("time", "y", "x"), name="u", attrs={"units": "m s-1"})
        data.to_dataset().to_zarr(folder / f"{name}.zarr", consolidated=False)
        sources.append(f"{{type: zarr, path: '{folder}/{name}.zarr', rate: 15}}")
    whole, killed = pair(folder, sources, 2 * (steps - 2))
    assert whole == killed, "the forecasts differ"


def least(folder):
    """At least once: a kill may say a forecast again, and loses none."""
    name, steps = topic("frames", 4), 40
    send(name, frames(NAMES, range(steps)))
    out = topic("forecasts", 2)
    source, sink = kafka_source(name), kafka_sink(out, more="delivery: at_least_once")
    job = Job(folder, [source], [sink], more="workers: 2\nin_flight: 2")
    wanted = {(key, step) for key in NAMES for step in range(2, steps)}
    told = Told(out)

    def got():
        told.poll(0.05)
        forecasts = [deserialise_da00(message.value()) for message in told.messages]
        return {(f.source_name, f.timestamp_ns // 60_000_000_000) for f in forecasts}

    for aim in (30, 90, len(wanted)):
        job.start()
        begun = time.monotonic()
        while len(got()) < aim:
            assert job.runs() and time.monotonic() < begun + 90, job.said()
        job.kill() if aim < len(wanted) else job.stop()
    assert got() == wanted
    values = {}
    for message in told.all():
        forecast = deserialise_da00(message.value())
        place = (forecast.source_name, forecast.timestamp_ns)
        assert values.setdefault(place, message.value()) == message.value(), f"{place} has changed"


if __name__ == "__main__":
    promises = [both, stores, least]
    sys.exit(main({promise.__name__: promise for promise in promises}))
