"""Topics as a sink beside others, after a job was killed: see tests/kafka.rs."""

import random
import sys
import time

import numpy as np
import xarray as xr
from confluent_kafka import KafkaException
from streaming_data_types import deserialise_da00

from kafka_house import (
    ADMIN,
    BROKERS,
    Job,
    Told,
    field,
    frame,
    frames,
    kafka_sink,
    kafka_source,
    main,
    send,
    topic,
)

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


def idle(folder):
    """An instance with nothing to say ends for a newer one, and lets go of its stores."""
    for delivery in ("exactly_once", "at_least_once"):
        name, out = topic("frames", 2), topic("forecasts")
        store = f"{{type: zarr, path: '{folder}/{delivery}/{{sensor}}.zarr', fsync: false}}"
        sinks = [kafka_sink(out, more=f"delivery: {delivery}"), store]
        first = Job(folder, [kafka_source(name)], sinks).start()
        send(name, frames(NAMES, range(4)))
        told = Told(out)
        told.until(2 * len(NAMES), first)
        beside = folder / f"{delivery}-second"
        beside.mkdir()
        second = Job(beside, [kafka_source(name)], sinks, name=first.name).start()
        said = first.ends(1, seconds=30)
        assert "another instance of this job has taken over" in said, said
        send(name, frames(NAMES, range(4, 6)))
        told.until(4 * len(NAMES), second)
        second.stop()
        assert len(told.all()) == 4 * len(NAMES), second.said()


def large(folder):
    """What is too large for a topic is told; all else of its epochs goes out, and is whole."""
    for delivery in ("exactly_once", "at_least_once"):
        too_large(folder, delivery)


def too_large(folder, delivery):
    steps, limit, wide = 6, 16384, 64
    small, big = topic("small", 2), topic("big")
    # A batch of small forecasts is larger than the topic takes, each of them is not.
    out = topic("forecasts", **{"max.message.bytes": str(limit)})
    names = [f"s{k}" for k in range(12)]
    sources = [kafka_source(small, more=f"sensors: [{', '.join(names)}],")]
    sources.append(kafka_source(big, side=wide, more="sensors: [wide],"))
    job = Job(
        folder,
        sources,
        [kafka_sink(out, more=f"delivery: {delivery}")],
        more="workers: 2\nin_flight: 32",
    )
    dead = topic("dead", name=f"physicnet.{job.name}.dead-letters", **{"max.message.bytes": str(limit)})
    poison = {"fits": b"x" * (limit - 4096), "too large": b"y" * (limit + 4096)}
    for step in range(steps):
        send(small, frames(names, [step]))
        data = field("wide", step, wide)
        send(big, [{"key": "wide", "value": frame("wide", step, data)}])
        send(small, [{"key": key, "value": value} for key, value in poison.items()])
    job.start().says("takes 16384: raise")
    expected, letters = {(name, step) for name in names for step in range(2, steps)}, []
    told, lost = Told(out), Told(dead)
    begun = time.monotonic()

    def known():
        told.poll(0.05)
        lost.poll(0.05)
        letters[:] = [(m.key(), m.value(), dict(m.headers())) for m in lost.messages]
        reasons = [headers["reason"] for _, _, headers in letters]
        return reasons.count(b"too_large") >= steps - 2 and reasons.count(b"undecodable") >= 2 * steps

    def made():
        forecasts = [deserialise_da00(message.value()) for message in told.messages]
        return {(f.source_name, f.timestamp_ns // 60_000_000_000) for f in forecasts}

    while not known() or made() != expected:
        assert job.runs() and time.monotonic() < begun + 90, job.said()
    job.stop()
    known()
    assert made() == expected
    if delivery == "exactly_once":
        assert len(told.messages) == len(expected), len(told.messages)
        assert len(letters) == steps - 2 + 2 * steps, len(letters)
    times = set()
    for key, value, headers in letters:
        if headers["reason"] == b"too_large":
            assert (key, value, headers["sensor"]) == (b"wide", None, b"wide"), headers
            assert headers["topic"].decode() == out and int(headers["limit"]) == limit, headers
            assert int(headers["bytes"]) > 2 * 4 * wide * wide, headers
            assert headers["bytes"] in headers["detail"] and headers["limit"] in headers["detail"], headers
            times.add(headers["reference_time"].decode())
        elif key == b"fits":
            assert value == poison["fits"] and "left_out" not in headers, headers
        else:
            assert value is None and headers["left_out"].startswith(b"20480 bytes"), headers
    assert times == {f"1970-01-01T00:0{step}:00Z" for step in range(2, steps)}, times
    said = job.log.read_text()
    assert "a forecast is lost, wide from 1970-01-01T00:02:00Z: " in said, job.said()


def vanished(folder):
    """A topic that is deleted under a job that writes to it ends the job, which names it."""
    # How long clients take an unknown topic for one that is just being made, or try.
    soon = 'topic.metadata.propagation.max.ms: "2000", transaction.timeout.ms: "10000"'
    soon = f'{{brokers: "{BROKERS}", properties: {{{soon}}}}}'
    poison = {"key": "s0", "value": b"neither here nor there"}
    jobs = {}
    for which in ("forecasts", "dead-letters", "progress"):
        for delivery in ("exactly_once", "at_least_once"):
            name, out = topic("frames"), topic("forecasts")
            sink = kafka_sink(out, cluster=soon, more=f"delivery: {delivery}")
            job = Job(folder, [kafka_source(name)], [sink]).start()
            send(name, frames(["s0"], range(4)))
            Told(out).until(2, job)
            gone = out if which == "forecasts" else f"physicnet.{job.name}.{which}"
            jobs[gone] = job, name, out, delivery
    for done in ADMIN.delete_topics(list(jobs)).values():
        done.result(30)
    for job, name, *_ in jobs.values():
        send(name, [*frames(["s0"], range(4, 6)), poison])
    for gone, (job, _, out, delivery) in jobs.items():
        said = job.ends(1)
        assert f"topic {gone}: has gone from {BROKERS}" in said, said
        if "progress" not in gone:
            # It goes on where it was: what comes after is said once, in a topic made anew.
            job.start().says(f"topic {gone} made")
            expected = 2 if gone == out else 4
            Told(out).until(expected, job)
            job.dead().until(1, job)
            job.stop()
            # Where nothing binds them, those may be there twice that were sent before it ended.
            forecasts = [deserialise_da00(message.value()).timestamp_ns for message in Told(out).all()]
            assert len(set(forecasts)) == expected, job.said()
            assert len(forecasts) == expected or delivery == "at_least_once", job.said()


    anew(folder, soon)


def anew(folder, cluster):
    """Where the progress is deleted and made anew at once, a job goes on or says why it ends."""
    name, out = topic("frames"), topic("forecasts")
    job = Job(folder, [kafka_source(name)], [kafka_sink(out, cluster=cluster)]).start()
    send(name, frames(["s0"], range(4)))
    told, progress = Told(out), f"physicnet.{job.name}.progress"
    told.until(2, job)
    for done in ADMIN.delete_topics([progress]).values():
        done.result(30)
    end = time.monotonic() + 90
    while True:
        try:
            topic("progress", name=progress, **{"cleanup.policy": "compact"})
            break
        except KafkaException:
            # It takes a moment until a name is free.
            assert time.monotonic() < end
            time.sleep(0.1)
    send(name, frames(["s0"], range(4, 6)))
    while job.runs() and len(told.messages) < 4:
        told.poll(0.1)
        assert time.monotonic() < end, f"it neither goes on nor ends: {job.said()}"
    if not job.runs():
        assert f"topic {progress}: has " in job.ends(1), job.said()


if __name__ == "__main__":
    promises = [both, stores, least, idle, large, vanished]
    sys.exit(main({promise.__name__: promise for promise in promises}))
