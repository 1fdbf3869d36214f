"""How long forecasts take while a job's model is swapped: on trial, and as it takes over.

  benches/kafka/swap [--rate FRAMES_A_SECOND] [--seconds EACH_PART]

Eight sensors of 64 x 64 under the demo's model, changed for one of the same weights and another id.
Latency is from the broker's timestamp of a frame to a `read_committed` consumer that has its
forecast, as for `benches/kafka/run forecast`.
"""

import argparse
import json
import os
import struct
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/python"))
from confluent_kafka import Producer  # noqa: E402
from kafka_house import MINUTE, PLAIN, Job, Told, clear, kafka_sink, topic  # noqa: E402
from streaming_data_types.dataarray_da00 import (  # noqa: E402
    Variable,
    deserialise_da00,
    serialise_da00,
)

CHECKPOINT = ROOT / "configs/demo/checkpoint.safetensors"
SENSORS = [f"flow/{n}" for n in range(8)]
SIDE = 64
CADENCE = 5 * MINUTE


def renamed(path):
    """The same weights under another id, which is a hash of what is written beside them too."""
    whole = CHECKPOINT.read_bytes()
    (length,) = struct.unpack("<Q", whole[:8])
    header = json.loads(whole[8 : 8 + length])
    own = json.loads(header["__metadata__"]["physicnet"])
    own["provenance"]["seed"] += 1
    header["__metadata__"]["physicnet"] = json.dumps(own)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + whole[8 + length :])


def frame(name, step, waves):
    data = np.roll(waves, (step, 2 * step), (0, 1))
    signal = Variable(name="signal", unit="1", axes=["y", "x"], data=data)
    return {"key": name, "value": serialise_da00(name, step * CADENCE, [signal])}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=float, default=40.0, help="frames a second, of all sensors")
    parser.add_argument("--seconds", type=float, default=20.0, help="of each part")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="physicnet-swap-") as folder:
        measure(args, Path(folder))


def measure(args, folder):
    source, out = topic("frames", 4), topic("forecasts", 2)
    grid = f"{{variables: [{{name: vorticity, units: '1'}}], y: {{count: {SIDE}}}, x: {{count: {SIDE}}}}}"
    sources = [f"{{type: kafka, cluster: {clear()}, topics: [{source}], cadence: 300s, grid: {grid}}}"]
    job = Job(folder, sources, [kafka_sink(out)], more="workers: 2")
    text = job.file.read_text().split("model:")[0]
    sinks = f"sinks:\n  - {kafka_sink(out)}\nworkers: 2\n"
    model = f"model: {{checkpoint: '{CHECKPOINT}', control: '{folder}/control'}}\n"
    job.file.write_text(text + model + sinks)
    other = folder / "other.safetensors"
    renamed(other)
    waves = np.sin(np.indices((SIDE, SIDE)).sum(0) * 2 * np.pi / SIDE).astype("f4")
    job.start()
    job.begun()
    sent, stop = {}, threading.Event()

    def feed():
        producer = Producer(PLAIN)
        step, begun = 0, time.monotonic()
        while not stop.is_set():
            time.sleep(max(0, begun + step * len(SENSORS) / args.rate - time.monotonic()))
            sent[step] = time.time()
            for name in SENSORS:
                producer.produce(source, **frame(name, step, waves))
            producer.flush()
            step += 1

    feeder = threading.Thread(target=feed, daemon=True)
    feeder.start()
    told, taken = Told(out), []

    def collect(until):
        while not until():
            told.messages.clear()
            told.poll(0.005)
            now = time.time()
            for message in told.messages:
                forecast = deserialise_da00(message.value())
                step = forecast.timestamp_ns // CADENCE
                taken.append((sent[step], 1e3 * (now - sent[step])))

    def seconds(length):
        end = time.monotonic() + length
        return lambda: time.monotonic() > end

    collect(lambda: len(taken) > 100)
    marks = [time.time()]
    collect(seconds(args.seconds))
    marks.append(time.time())
    frames = str(int(args.rate * args.seconds))
    command = [os.environ["PHYSICNET"], "swap", str(job.file), str(other), "--shadow-for", frames]
    swap = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    collect(lambda: swap.poll() is not None)
    assert swap.returncode == 0, job.said()
    collect(seconds(1))
    marks.append(time.time())
    collect(seconds(args.seconds))
    marks.append(time.time())
    stop.set()
    feeder.join()
    job.stop()
    print(swap.stdout.read().strip())
    print("| | forecasts | p50, ms | p99, ms | longest, ms |\n| --- | --- | --- | --- | --- |")
    for name, begin, end in zip(["before", "trial and takeover", "after"], marks, marks[1:]):
        times = np.array([took for at, took in taken if begin <= at < end])
        p50, p99 = np.percentile(times, [50, 99])
        print(f"| {name} | {len(times)} | {p50:.0f} | {p99:.0f} | {times.max():.0f} |")


main()
