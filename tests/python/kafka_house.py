"""What the tests of Kafka share: topics, frames, jobs that run, and what they have committed."""

import os
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path

import numpy as np
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic
from streaming_data_types.dataarray_da00 import Variable, serialise_da00

BROKERS = os.environ["KAFKA_BOOTSTRAP"]
PLAIN = {"bootstrap.servers": BROKERS}
ADMIN = AdminClient(PLAIN)
MINUTE = 60_000_000_000
SIDE = 16
# A test that waits longer than this for anything has failed.
PATIENCE = 90


def topic(kind, partitions=1, name=None, **settings):
    """A new topic."""
    name = name or f"{kind}-{uuid.uuid4().hex[:8]}"
    for made in ADMIN.create_topics([NewTopic(name, partitions, config=settings)]).values():
        made.result(60)
    return name


def field(sensor, step, side=SIDE):
    """A pattern that drifts, different for every sensor."""
    noise = np.random.default_rng(list(sensor.encode()))
    return np.roll(noise.random((side, side), "f4"), step, axis=1)


def frame(name, step, data=None, unit="m s-1", axes=("y", "x")):
    """A frame of the minute `step`."""
    data = field(name, step) if data is None else data
    signal_ = Variable(name="signal", unit=unit, axes=list(axes), data=data)
    return serialise_da00(source_name=name, timestamp_ns=step * MINUTE, data=[signal_])


def send(to, messages, client=PLAIN, **options):
    """Sends what `Producer.produce` takes, and returns once the brokers have it."""
    usual = {"enable.idempotence": True, "message.max.bytes": 16 << 20, "linger.ms": 5}
    producer, failed = Producer({**client, **usual, **options}), []
    for message in messages:
        while True:
            try:
                producer.produce(to, on_delivery=lambda e, _: e and failed.append(e), **message)
                break
            except BufferError:
                producer.poll(0.1)
        producer.poll(0)
    assert producer.flush(PATIENCE) == 0 and not failed, failed


def frames(names, steps, **more):
    """Messages of these sensors at these minutes, the oldest first."""
    return [{"key": name, "value": frame(name, k), **more} for k in steps for name in names]


class Told:
    """What is committed in a topic, read as it comes."""

    def __init__(self, name, client=PLAIN):
        self.name, self.messages, self.ended = name, [], set()
        self.consumer = Consumer(
            {
                **client,
                "group.id": uuid.uuid4().hex,
                "isolation.level": "read_committed",
                "enable.partition.eof": True,
                "enable.auto.commit": False,
                "fetch.message.max.bytes": 16 << 20,
                "fetch.wait.max.ms": 50,
            }
        )
        self.partitions, end = set(), time.monotonic() + PATIENCE
        # Of a topic that has just been made anew, a broker may know nothing yet.
        while not self.partitions:
            assert time.monotonic() < end, f"{name} has no partitions"
            self.partitions = set(self.consumer.list_topics(name, timeout=30).topics[name].partitions)
        self.consumer.assign([TopicPartition(name, p, 0) for p in self.partitions])

    def poll(self, seconds):
        for message in self.consumer.consume(1000, seconds):
            if message.error():
                self.ended.add(message.partition())
            else:
                self.ended.discard(message.partition())
                self.messages.append(message)

    def until(self, count, job, seconds=PATIENCE):
        """Waits for `count` messages, and says how long it took."""
        begun = time.monotonic()
        while len(self.messages) < count:
            runs = job.runs()
            # What an ended job has left is there to be read.
            self.poll(0.02 if runs else 5)
            end = not runs or time.monotonic() > begun + seconds
            have = len(self.messages)
            assert have >= count or not end, f"{self.name}: {have} of {count}\n{job.said()}"
        return time.monotonic() - begun

    def all(self):
        """Everything that is there by now."""
        self.ended = set()
        self.consumer.assign([TopicPartition(self.name, p, 0) for p in self.partitions])
        self.messages, end = [], time.monotonic() + PATIENCE
        while self.ended != self.partitions:
            assert time.monotonic() < end, f"{self.name} cannot be read to its end"
            self.poll(0.2)
        return self.messages

    def by_key(self):
        """Values and headers of every key, in their order."""
        told = {}
        for message in self.all():
            told.setdefault(message.key(), []).append((message.value(), message.headers()))
        return told


def clear(brokers=BROKERS):
    return f'{{brokers: "{brokers}"}}'


def kafka_source(topics, side=SIDE, cluster=None, more=""):
    names = topics if isinstance(topics, str) else ", ".join(topics)
    return (
        f"{{type: kafka, cluster: {cluster or clear()}, topics: [{names}], cadence: 60s, {more}\n"
        f"     grid: {{variables: [{{name: u, units: m s-1}}], y: {{count: {side}}}, x: {{count: {side}}}}}}}"
    )


def kafka_sink(name, cluster=None, more=""):
    return f"{{type: kafka, cluster: {cluster or clear()}, topic: {name}, {more}}}"


STARTED = []
MODEL = "{history: 3, horizon: 2, quantization: none}"


class Job:
    """A job file, and the process that runs it."""

    def __init__(self, folder, sources, sinks, model=MODEL, more="workers: 2", name=None):
        self.name = name or f"job-{uuid.uuid4().hex[:8]}"
        lines = [f"name: {self.name}", "sources:", *(f"  - {s}" for s in sources)]
        lines += [f"model: {{untrained: {model}}}", "sinks:", *(f"  - {s}" for s in sinks), more]
        self.file, self.log = Path(folder) / f"{self.name}.yaml", Path(folder) / f"{self.name}.log"
        self.file.write_text("\n".join(lines) + "\n")
        self.process = None

    def start(self, *flags, log="info", **environment):
        command = [os.environ["PHYSICNET"], "run", str(self.file), *flags]
        environment = {**os.environ, "RUST_LOG": log, "RAYON_NUM_THREADS": "1", **environment}
        with self.log.open("ab") as out:
            self.before = out.tell()
            self.process = subprocess.Popen(command, stdout=out, stderr=out, env=environment)
        STARTED.append(self.process)
        return self

    def runs(self):
        return self.process.poll() is None

    def said(self):
        return self.log.read_text(errors="replace")[-6000:]

    def ends(self, code=0, seconds=PATIENCE):
        """Waits until it ends by itself, and says what it said."""
        got = self.process.wait(seconds)
        assert got == code, f"{self.name} ended with {got}: {self.said()}"
        return self.log.read_text(errors="replace")

    def stop(self):
        # Before it runs, an interrupt may come to a process that does not listen yet.
        self.says(f"{self.name} runs", since=self.before)
        self.process.send_signal(signal.SIGINT)
        return self.ends()

    def kill(self):
        self.process.kill()
        self.process.wait()

    def says(self, words, seconds=PATIENCE, since=0):
        end = time.monotonic() + seconds
        while words.encode() not in self.log.read_bytes()[since:]:
            assert self.runs() and time.monotonic() < end, f"never said {words}: {self.said()}"
            time.sleep(0.05)

    def begun(self):
        """Waits until it has written down where it begins."""
        # The topic is made by the job.
        self.says(f"topic physicnet.{self.name}.progress made")
        Told(f"physicnet.{self.name}.progress").until(1, self)

    def dead(self):
        return Told(f"physicnet.{self.name}.dead-letters")


def main(promises):
    """Runs the promises that are named, or all of them; what fails leaves no job behind."""
    for name in sys.argv[1:] or promises:
        begun = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="physicnet-kafka-") as folder:
            try:
                promises[name](Path(folder))
            finally:
                for process in STARTED:
                    process.kill()
                    process.wait()
        print(f"{name}: kept, {time.monotonic() - begun:.1f} s", flush=True)
