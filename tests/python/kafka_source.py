"""Topics as a source, against a real broker: see tests/kafka.rs for what is promised."""

import os
import re
import socket
import sys
import time
import urllib.request

import numpy as np
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import NewPartitions
from streaming_data_types import deserialise_da00

from kafka_house import ADMIN, BROKERS, MINUTE, PATIENCE, PLAIN, Job, Told, clear, field, frame, frames
from kafka_house import kafka_sink, kafka_source, main, send, topic

STAYS = "{history: 2, horizon: 1, quantization: none, expert: persistence, residual: false}"


def minutes(messages):
    """The reference minutes of forecasts."""
    return sorted(deserialise_da00(message.value()).timestamp_ns // MINUTE for message in messages)


def idle(folder):
    """A single frame becomes a forecast at once while all other partitions are silent."""
    for workers in (1, 2, 4):
        ours, theirs, out = topic("frames", 2), topic("frames", 2), topic("forecasts")
        job = Job(folder, [kafka_source([ours, theirs])], [kafka_sink(out)], more=f"workers: {workers}")
        job.start().begun()
        told, took = Told(out), []
        for step in range(6):
            send(theirs, frames(["a"], [step], partition=1))
            if step >= 2:
                took.append(told.until(step - 1, job))
        print(f"{workers} workers: {', '.join(f'{t:.2f}' for t in took)} s", flush=True)
        assert min(took) < 2 and max(took) < 10, took
        job.stop()


def begin(folder):
    """A job begins where `from` says, and what is not followed ends."""
    name, now = topic("frames"), time.time_ns() // 1_000_000
    for step in range(6):
        send(name, frames(["a"], [step], timestamp=now - (10 - step) * 60_000))
    third = np.datetime64(now - 8 * 60_000 - 1000, "ms")
    jobs = []
    for begin, expected in [
        ("earliest", [2, 3, 4, 5]),
        ("1960-01-01T00:00", [2, 3, 4, 5]),
        (third, [4, 5]),
        ("latest", []),
    ]:
        source, out = kafka_source(name, more=f"from: '{begin}', follow: false,"), topic("forecasts")
        jobs.append((Job(folder, [source], [kafka_sink(out)]).start(), out, expected))
    for job, out, expected in jobs:
        job.ends()
        assert minutes(Told(out).all()) == expected, job.said()
    out = topic("forecasts")
    job = Job(folder, [kafka_source(name, more="from: latest,")], [kafka_sink(out)]).start()
    job.begun()
    send(name, frames(["a"], range(6, 10)))
    told = Told(out)
    told.until(2, job)
    # `latest` was once: what comes while it is away is not passed over.
    job.kill()
    send(name, frames(["a"], [10]))
    job.start()
    told.until(3, job)
    job.stop()
    assert minutes(told.all()) == [8, 9, 10]


def codecs(folder):
    """Frames of 1 KiB and of 8 MiB, compressed in every way."""
    every = ["none", "gzip", "snappy", "lz4", "zstd"]
    # The largest takes its time: two are enough.
    for side, kinds in [(16, every), (256, every), (1024, ["none", "zstd"])]:
        name, out = topic("frames", 2), topic("forecasts")
        for kind in kinds:
            data = [field(kind, k, side).astype("f4" if side < 1024 else "f8") for k in range(2)]
            made = [{"key": kind, "value": frame(kind, k, data[k])} for k in range(2)]
            send(name, made, **{"compression.type": kind})
        source = kafka_source(name, side, more="follow: false,")
        Job(folder, [source], [kafka_sink(out)], STAYS).start().ends()
        told = {m.key().decode(): deserialise_da00(m.value()) for m in Told(out).all()}
        assert sorted(told) == sorted(kinds), sorted(told)
        for kind, forecast in told.items():
            served = next(v for v in forecast.data if v.name == "signal").data
            assert np.array_equal(np.squeeze(served), field(kind, 1, side)), kind


def hosts(folder):
    """Two processes say what one says, and the brokers are shown how far they are."""
    name, names = topic("frames", 5), [f"s{k}" for k in range(8)]
    # The last partition has nothing, and is shown all the same.
    for place, ours in enumerate([names[k::4] for k in range(4)]):
        send(name, frames(ours, range(12), partition=place))
    told = []
    for processes in (1, 2):
        out = topic("forecasts", 3)
        job = Job(folder, [kafka_source(name, more="follow: false,")], [kafka_sink(out)])
        if processes == 1:
            job.start().ends()
        else:
            # Free just now: between this and their use another program may take them.
            sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
            places = ",".join(f"127.0.0.1:{s.getsockname()[1]}" for s in sockets)
            [s.close() for s in sockets]
            both = [job.start("--hosts", places, "--process", p).process for p in ("0", "1")]
            codes = [process.wait(90) for process in both]
            assert codes == [0, 0], job.said()
        told.append(Told(out).by_key())
        assert sum(map(len, told[-1].values())) == 8 * 10, job.said()
        shown = Consumer({**PLAIN, "group.id": f"physicnet.{job.name}"})
        partitions = [TopicPartition(name, p) for p in range(5)]
        ends = {p.partition: shown.get_watermark_offsets(p, 30)[1] for p in partitions}
        known = {p.partition: p.offset for p in shown.committed(partitions, 30)}
        assert ends[4] == 0 and known == ends, f"the brokers are shown {known} of {ends}"
    assert told[0] == told[1]


def lag(folder):
    """A dashboard tells how many messages of each partition are not read yet."""
    name, out, count, side = topic("frames", 2), topic("forecasts"), 60, 192
    made = [{"key": "a", "value": frame("a", k, field("a", k, side)), "partition": 1} for k in range(count)]
    send(name, made)
    more = "workers: 1\nin_flight: 2\ndashboard: {listen: '127.0.0.1:0'}"
    job = Job(folder, [kafka_source(name, side)], [kafka_sink(out)], more=more).start()
    job.says("the dashboard is at ")
    url = re.search(r"the dashboard is at (http://[^\s]+)", job.said())[1]

    def look():
        """Messages that are not read, by partition, and frames that are."""
        with urllib.request.urlopen(f"{url}/metrics", timeout=30) as answer:
            text = answer.read().decode()
        lags = re.findall(rf'^physicnet_consumer_lag_messages{{topic="{name}",partition="(\d)"}} (\d+)$', text, re.M)
        (read,) = re.findall(r"^physicnet_frames_consumed_total (\d+)$", text, re.M)
        return {int(partition): int(messages) for partition, messages in lags}, int(read)

    seen, end = [], time.monotonic() + PATIENCE
    while not seen or seen[-1][0] != {0: 0, 1: 0}:
        assert job.runs() and time.monotonic() < end, f"{seen}: {job.said()}"
        lags, read = look()
        if lags:
            seen.append((lags, read))
        time.sleep(0.05)
    # It reads no faster than it forecasts, and tells how far it is.
    assert len({lags[1] for lags, _ in seen}) > 10, seen
    assert all(lags[0] == 0 and abs(lags[1] + read - count) <= 3 for lags, read in seen), seen
    assert seen[-1][1] == count, seen
    print(f"{seen[0][0][1]} messages behind at first", flush=True)
    job.stop()


def quiet(folder):
    """A job that waits for frames leaves the processor alone."""
    name, out = topic("frames", 4), topic("forecasts")
    job = Job(folder, [kafka_source(name)], [kafka_sink(out)]).start()
    send(name, frames(["a"], range(3)))
    Told(out).until(1, job)
    ticks = os.sysconf("SC_CLK_TCK")

    def used():
        with open(f"/proc/{job.process.pid}/stat") as stat:
            fields = stat.read().rsplit(")", 1)[1].split()
        return sum(map(int, fields[11:13])) / ticks

    time.sleep(0.5)
    before, begun = used(), time.monotonic()
    time.sleep(5)
    share = (used() - before) / (time.monotonic() - begun)
    print(f"idle: {100 * share:.1f} % of a core", flush=True)
    assert share < 0.05, f"{share:.3f} of a core while nothing comes"
    job.stop()


def partitions(folder):
    """Partitions that are added while a job runs are told, and read after a restart."""
    name, out = topic("frames"), topic("forecasts")
    cluster = f'{{brokers: "{BROKERS}", properties: {{topic.metadata.refresh.interval.ms: "1000"}}}}'
    job = Job(folder, [kafka_source(name, cluster=cluster)], [kafka_sink(out)]).start()
    job.begun()
    for made in ADMIN.create_partitions([NewPartitions(name, 3)]).values():
        made.result(30)
    job.says(f"topic {name} has 3 partitions by now, and 1 of them are read")
    send(name, frames(["a"], range(3), partition=2))
    job.stop()
    job.start()
    Told(out).until(1, job)
    job.stop()


def gone(folder):
    """Topics and brokers that are not there are named."""
    name, out = topic("frames"), topic("forecasts")
    # Nothing listens there once it is closed.
    with socket.create_server(("127.0.0.1", 0)) as server:
        nowhere = f"127.0.0.1:{server.getsockname()[1]}"
    away = Job(folder, [kafka_source(name, cluster=clear(nowhere))], [kafka_sink(out)]).start()
    missing = Job(folder, [kafka_source("never-made")], [kafka_sink(out)]).start()
    # How long clients take an unknown topic for one that is just being made.
    soon = f'{{brokers: "{BROKERS}", properties: {{topic.metadata.propagation.max.ms: "2000"}}}}'
    deleted = Job(folder, [kafka_source(name, cluster=soon)], [kafka_sink(out)]).start()
    said = missing.ends(1)
    assert "topic never-made" in said and BROKERS in said, said
    deleted.begun()
    for done in ADMIN.delete_topics([name]).values():
        done.result(30)
    said = deleted.ends(1)
    assert f"topic {name}" in said, said
    said = away.ends(1)
    assert f"{nowhere}: no broker answers" in said and "panicked" not in said, said
    print(f"away: {said}", flush=True)


def names(folder):
    """The sensor may be named in the message: there is no key then."""
    name, out = topic("frames"), topic("forecasts")
    send(name, [{"value": frame("radar/east", k)} for k in range(4)])
    # What is not used is told under the name in it, if that can be read, whatever the key is.
    send(name, [{"key": "router", "value": v} for v in (frame("radar/east", 4, unit="K"), b"nothing")])
    source = kafka_source(name, more="sensor: source_name, follow: false,")
    job = Job(folder, [source], [kafka_sink(out)])
    job.start().ends()
    dead = [dict(m.headers()) for m in job.dead().all()]
    assert sorted(h["reason"] for h in dead) == [b"misshapen", b"undecodable"], dead
    assert {h["reason"]: h.get("sensor") for h in dead}[b"misshapen"] == b"radar/east", dead
    assert not any("sensor" in h for h in dead if h["reason"] == b"undecodable"), dead
    told = Told(out).all()
    assert {m.key() for m in told} == {b"radar/east"} and minutes(told) == [2, 3]


if __name__ == "__main__":
    promises = [idle, begin, codecs, hosts, lag, quiet, partitions, gone, names]
    sys.exit(main({promise.__name__: promise for promise in promises}))
