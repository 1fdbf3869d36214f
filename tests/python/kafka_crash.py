"""Kills a job again and again while frames stream through Kafka, and compares what comes out.

A job that is never killed and one that is killed at random moments read the same frames. Every
sensor's forecasts must then be the same messages in the same order: none lost, none twice.

  python kafka_crash.py PHYSICNET [--brokers HOST:PORT] [--kills 200] [--frames 20000] ...

With --revise frames also come out of order and again with other values, the job revises what it
forecast, and keeps its scores in a file: they too must be those of the job that is never killed.

--fault says what dies: the job (SIGKILL, SIGINT in between), or the older of two instances that
fight. Faults of brokers, which are killed and started again or paused, need a cluster of its own:
without --brokers it starts one by scripts/kafka, of --cluster brokers, and ends it.
"""

import argparse
import json
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic
from streaming_data_types.dataarray_da00 import Variable, deserialise_da00, serialise_da00

SIDE = 16
MINUTE = 60_000_000_000
JOB = """
name: {name}
sources:
  - type: kafka
    cluster: {{brokers: "{brokers}"}}
    topics: [{topic}]
    cadence: 60s
    grid: {{variables: [{{name: u, units: m s-1}}], y: {{count: {side}}}, x: {{count: {side}}}}}
model: {{untrained: {{history: 3, horizon: 2, quantization: none}}}}
sinks:
  - {{type: kafka, cluster: {{brokers: "{brokers}"}}, topic: {name}-forecasts}}
workers: {workers}
in_flight: 4
"""
REVISE = """
admission: {{revise_within: 3}}
scoring: {{store: "{scores}"}}
"""


def message(sensor, step, revise=False):
    """A frame, now and then a late one or nothing a decoder knows."""
    if step % 97 == 96:
        return b"\x18\x00\x00\x00da00 and no more %d" % step
    late = step % 53 == 52
    # Two that change places, and a correction instead of a frame.
    moved = {5: step + 1, 6: step - 1, 8: step - 1}.get(step % 11, step) if revise else step
    field = np.roll(np.random.default_rng(sensor).random((SIDE, SIDE), "f4"), step, axis=1)
    signal_ = Variable(name="signal", unit="m s-1", axes=["y", "x"], data=field)
    time_ns = (step - 7 if late else moved) * MINUTE
    return serialise_da00(source_name=f"s{sensor}", timestamp_ns=time_ns, data=[signal_])


def publish(args, topic, seconds, stop):
    producer = Producer({"bootstrap.servers": args.brokers, "enable.idempotence": True})
    steps, begun = args.frames // args.sensors, time.monotonic()
    for step in range(steps):
        due = begun + seconds * step / steps
        while time.monotonic() < due and not stop.is_set():
            time.sleep(0.01)
        for sensor in range(args.sensors):
            while True:
                try:
                    producer.produce(topic, key=f"s{sensor}", value=message(sensor, step, args.revise))
                    break
                except BufferError:
                    producer.poll(0.1)
        producer.poll(0)
    assert producer.flush(180) == 0, "frames were not delivered"


def committed(args, topic, partitions):
    """Every committed message by key: values and headers in their order."""
    consumer = Consumer(
        {
            "bootstrap.servers": args.brokers,
            "group.id": "crash",
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
        }
    )
    consumer.assign([TopicPartition(topic, p, 0) for p in range(partitions)])
    told, ended = {}, set()
    quiet = time.monotonic()
    while len(ended) < partitions and time.monotonic() < quiet + 60:
        got = consumer.poll(1.0)
        if got is None:
            continue
        quiet = time.monotonic()
        if got.error():
            ended.add(got.partition())
            continue
        told.setdefault(got.key(), []).append((got.value(), got.headers()))
    consumer.close()
    assert len(ended) == partitions, "the brokers do not answer"
    return told


def partitions_of(args, topic):
    admin = AdminClient({"bootstrap.servers": args.brokers})
    return len(admin.list_topics(topic, timeout=30).topics[topic].partitions)


def count(args, topic):
    try:
        told = committed(args, topic, partitions_of(args, topic))
    except (KeyError, AssertionError):
        return 0
    return sum(len(messages) for messages in told.values())


class Job:
    def __init__(self, args, folder, name, topic, workers):
        text = JOB.format(
            name=name, brokers=args.brokers, topic=topic, side=SIDE, workers=workers
        )
        folder.mkdir(exist_ok=True)
        self.topic, self.workers = topic, workers
        self.file, self.log = folder / f"{name}.yaml", folder / f"{name}.log"
        self.scores = folder / f"{name}.scores.jsonl"
        if args.revise:
            text += REVISE.format(scores=self.scores)
        self.file.write_text(text)
        self.args, self.name, self.process = args, name, None

    def start(self):
        log = self.log.open("ab")
        self.before = log.tell()
        command = [self.args.physicnet, "run", str(self.file)]
        self.process = subprocess.Popen(command, stdout=log, stderr=log)
        return self.process

    def end(self, how):
        self.process.send_signal(how)
        return self.process.wait(120)

    def runs(self):
        """Waits until it does."""
        begun = time.monotonic()
        while f"{self.name} runs".encode() not in self.log.read_bytes()[self.before :]:
            self.lives()
            assert time.monotonic() < begun + 120, f"it never ran: {self.said()}"
            time.sleep(0.05)

    def lives(self):
        code = self.process.poll()
        assert code is None, f"the job ended by itself with {code}: {self.said()}"

    def finish(self):
        """Interrupts it once it runs: before that it may not listen yet."""
        self.runs()
        return self.end(signal.SIGINT)

    def said(self):
        return self.log.read_text(errors="replace")[-4000:]


def wait_for_quiet(args, topic, job, seconds=300):
    """Until nothing more comes: how much that is depends on what is revised."""
    begun, counts = time.monotonic(), []
    while len(counts) < 5 or counts[-5] == 0 or len(set(counts[-5:])) > 1:
        job.lives()
        assert time.monotonic() < begun + seconds, f"{topic}: {counts[-5:]}\n{job.said()}"
        counts.append(count(args, topic))
        time.sleep(1)


def revised(by_key, until):
    """Holds that the forecasts of each sensor and reference time are its revisions 0, 1, ... n in
    their order, each other than the one before it, and that they reach to `until`; says how many were
    revised."""
    again = 0
    for key, messages in by_key.items():
        last = {}
        for value, _ in messages:
            forecast = deserialise_da00(value)
            said = {variable.name: variable.data for variable in forecast.data}
            at, revision = forecast.timestamp_ns, int(said["revision"])
            before, field = last.get(at, (-1, None))
            assert revision == before + 1, f"{key}, {at}: revision {revision} after {before}"
            assert field is None or not np.array_equal(field, said["signal"]), f"{key}, {at}: no news"
            again += revision == 1
            last[at] = revision, said["signal"]
        assert max(last) >= until, f"{key}: nothing after {max(last)}"
    return again


def verified(job):
    """All that was ever scored, by its key."""
    lines = [json.loads(line) for line in job.scores.read_text().splitlines()]
    return {json.dumps(line["key"]): line["series"]["all"] for line in lines if "series" in line}


def wait_for(args, topic, expected, job, seconds=300):
    begun = time.monotonic()
    while (have := count(args, topic)) < expected:
        job.lives()
        assert time.monotonic() < begun + seconds, f"{topic}: {have} of {expected}\n{job.said()}"
        time.sleep(1)
    return have


def kafka(folder, *words):
    """What scripts/kafka says of the cluster in this folder."""
    script = Path(__file__).resolve().parents[2] / "scripts" / "kafka"
    done = subprocess.run([script, *words, "--dir", folder], check=True, stdout=subprocess.PIPE, text=True)
    return done.stdout


def leader(args, topic):
    """Which broker leads the only partition of a topic."""
    admin, begun = AdminClient({"bootstrap.servers": args.brokers}), time.monotonic()
    while True:
        known = admin.list_topics(topic, timeout=30).topics[topic].partitions
        if 0 in known and known[0].leader > 0:
            return str(known[0].leader)
        assert time.monotonic() < begun + 60, f"{topic} has no leader"
        time.sleep(0.2)


def disturb(args, job, chance, number):
    """One fault, and the job that runs after it."""
    moment = chance.uniform(0.05, args.longest)
    if args.fault == "kill":
        if chance.random() < 0.1:
            time.sleep(chance.uniform(0.05, args.longest))
            job.lives()
            job.end(signal.SIGINT)
            job.start()
        time.sleep(moment)
        job.lives()
        job.end(signal.SIGKILL)
        job.start()
    elif args.fault == "fight":
        # Who starts before the other one runs might be the newer.
        job.runs()
        time.sleep(moment)
        second = Job(args, job.file.parent / f"fight-{number}", job.name, job.topic, job.workers)
        second.start()
        code = job.process.wait(120)
        assert code == 1, f"the older ended with {code}: {job.said()}"
        said = job.log.read_text(errors="replace")[-2000:]
        assert "another instance of this job has taken over" in said, said
        job = second
    elif args.fault == "broker":
        job.runs()
        time.sleep(moment)
        # Whoever has what a transaction ends with: the progress, or the coordinator's log.
        of = f"physicnet.{job.name}.progress" if number % 2 == 0 else "__transaction_state"
        broker = leader(args, of)
        kafka(args.dir, "kill", broker)
        time.sleep(chance.uniform(0, 5))
        kafka(args.dir, "restart", broker)
    elif args.fault == "pause":
        # A job that reaches no broker at its start ends.
        job.runs()
        time.sleep(moment)
        brokers = [str(n + 1) for n in range(args.cluster)]
        kafka(args.dir, "stop-process", *brokers)
        time.sleep(args.pause)
        kafka(args.dir, "cont", *brokers)
    job.lives()
    return job


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("physicnet")
    parser.add_argument("--brokers", help="of a cluster that is there; else one is started")
    parser.add_argument("--fault", choices=["kill", "fight", "broker", "pause"], default="kill")
    parser.add_argument("--dir", help="its folder, for faults of brokers")
    parser.add_argument("--cluster", type=int, default=1, help="how many brokers it has")
    parser.add_argument("--kills", type=int, default=200, help="how many faults")
    parser.add_argument("--frames", type=int, default=20_000)
    parser.add_argument("--sensors", type=int, default=32)
    parser.add_argument("--partitions", type=int, default=8)
    parser.add_argument("--longest", type=float, default=4.0, help="seconds between faults")
    parser.add_argument("--pause", type=float, default=60.0, help="seconds of a pause")
    parser.add_argument("--revise", action="store_true", help="frames out of order, and corrected")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    if args.brokers:
        assert args.dir or args.fault in ("kill", "fight"), "--dir says where these brokers are"
        return suffer(args)
    args.dir = tempfile.mkdtemp(prefix="physicnet-brokers-")
    try:
        exports = kafka(args.dir, "start", "--brokers", str(args.cluster))
        args.brokers = exports.split("KAFKA_BOOTSTRAP=")[1].split()[0]
        suffer(args)
    finally:
        kafka(args.dir, "stop")


def suffer(args):
    """The job that is hurt and the one that is not, and what they said."""
    chance, tag = random.Random(args.seed), f"crash{time.time_ns() % 10**9}"
    topic = f"{tag}-frames"
    admin = AdminClient({"bootstrap.servers": args.brokers})
    for made in admin.create_topics([NewTopic(topic, args.partitions, -1)]).values():
        made.result(60)

    folder = Path(tempfile.mkdtemp(prefix="physicnet-crash-"))
    stop, failed = threading.Event(), []
    # About what a fault takes, so that frames come all the while.
    each = args.longest / 2 + {"pause": args.pause, "fight": 5.0}.get(args.fault, 1.0)

    def feed():
        try:
            publish(args, topic, 0.9 * args.kills * each, stop)
        except BaseException as error:  # noqa: BLE001: told by the main thread
            failed.append(error)

    feeder = threading.Thread(target=feed)
    feeder.start()
    job = Job(args, folder, f"{tag}-hurt", topic, 2)
    job.start()
    try:
        for number in range(args.kills):
            job = disturb(args, job, chance, number)
            if number % 20 == 19:
                print(f"{number + 1} faults", flush=True)
    except BaseException:
        stop.set()
        job.process.kill()
        raise
    stop.set()
    feeder.join()
    assert not failed, failed

    whole = Job(args, folder, f"{tag}-whole", topic, 2)
    whole.start()
    names = [f"{tag}-whole", f"{tag}-hurt"]
    steps = range(args.frames // args.sensors)
    used = sum(1 for step in steps if step % 97 != 96 and step % 53 != 52)
    # Every used frame after the first two of its sensor ends a window, but those before a gap
    # that is filled: gaps of one frame are.
    expected = (used - 2) * args.sensors
    for name, running in zip(names, [whole, job]):
        if args.revise:
            wait_for_quiet(args, f"{name}-forecasts", running)
        else:
            wait_for(args, f"{name}-forecasts", expected, running)
    for running in [whole, job]:
        code = running.finish()
        assert code == 0, f"{running.name} ended with {code}: {running.said()}"
    for kind, told in [
        ("forecasts", [committed(args, f"{n}-forecasts", partitions_of(args, f"{n}-forecasts")) for n in names]),
        ("dead letters", [committed(args, f"physicnet.{n}.dead-letters", partitions_of(args, f"physicnet.{n}.dead-letters")) for n in names]),
    ]:
        counts = [sum(map(len, by_key.values())) for by_key in told]
        print(f"{kind}: {counts[0]} never killed, {counts[1]} after {args.kills} faults", flush=True)
        assert counts[0] == counts[1] > 0, f"{kind}: lost or twice"
        for key in sorted(set(told[0]) | set(told[1])):
            ours, theirs = told[0].get(key, []), told[1].get(key, [])
            first = next((i for i, (a, b) in enumerate(zip(ours, theirs)) if a != b), None)
            assert ours == theirs, f"{kind} of {key} differ from number {first} on: {folder}"
        if args.revise and kind == "forecasts":
            again = revised(told[0], (len(steps) - 5) * MINUTE)
            # Those that change places revise what was made for want of them, and so do corrections.
            assert again >= args.sensors * len(steps) // 11, f"only {again} were revised"
            print(f"{again} reference times were forecast again")
    if args.revise:
        ours, theirs = verified(whole), verified(job)
        assert len(ours) > args.sensors and ours == theirs, f"other scores: {folder}"
        print(f"{len(ours)} scores are the same")
        shutil.rmtree(folder)
        return
    bad = len(steps) - used
    assert counts[0] == bad * args.sensors, f"{counts[0]} dead letters, {bad * args.sensors} bad"
    print("every forecast and dead letter once, byte for byte")
    shutil.rmtree(folder)


if __name__ == "__main__":
    sys.exit(main())
