"""How long forecasts take while a job's model is swapped: on trial, and as it takes over.

  benches/kafka/swap [--rate FRAMES_A_SECOND] [--seconds EACH_PART]

Eight sensors of 64 x 64 under the demo's model, changed for one of the same weights and another id.
Latency is from the broker's timestamp of a frame to a `read_committed` consumer that has its
forecast, as for `benches/kafka/run forecast`.

Fails where a frame led to no forecast or to two, where two forecasts from the same window differ,
whichever model made them, or where the p99 during the swap is twice the usual or more.
"""

import argparse
import hashlib
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
from confluent_kafka import TIMESTAMP_LOG_APPEND_TIME, Producer  # noqa: E402
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


def checkpoint():
    """The header of the demo's model, what is ours in it, and the weights."""
    whole = CHECKPOINT.read_bytes()
    (length,) = struct.unpack("<Q", whole[:8])
    header = json.loads(whole[8 : 8 + length])
    return header, json.loads(header["__metadata__"]["physicnet"]), whole[8 + length :]


def renamed(path):
    """The same weights under another id, which is a hash of what is written beside them too."""
    header, own, weights = checkpoint()
    own["provenance"]["seed"] += 1
    header["__metadata__"]["physicnet"] = json.dumps(own)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + weights)


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
    stamped = {"message.timestamp.type": "LogAppendTime"}
    source, out = topic("frames", 4, **stamped), topic("forecasts", 2)
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
    # The broker's time of each frame, by sensor and step, in ms.
    sent, stop = {}, threading.Event()

    def feed():
        producer = Producer(PLAIN)
        step, begun = 0, time.monotonic()

        def delivered(name, step):
            def told(error, message):
                assert error is None, error
                kind, stamp = message.timestamp()
                assert kind == TIMESTAMP_LOG_APPEND_TIME
                sent[name, step] = stamp

            return told

        while not stop.is_set():
            time.sleep(max(0, begun + step * len(SENSORS) / args.rate - time.monotonic()))
            for name in SENSORS:
                message = frame(name, step, waves)
                producer.produce(source, **message, on_delivery=delivered(name, step))
            producer.flush()
            step += 1

    feeder = threading.Thread(target=feed, daemon=True)
    feeder.start()
    # When each forecast came, by sensor and step; and what was said from each window, by its phase.
    told, taken, said = Told(out), {}, {}

    def collect(until):
        while not until():
            told.messages.clear()
            told.poll(0.005)
            now = time.time()
            for message in told.messages:
                forecast = deserialise_da00(message.value())
                name, step = message.key().decode(), forecast.timestamp_ns // CADENCE
                assert (name, step) not in taken, f"{name}, step {step}: two forecasts"
                taken[name, step] = now
                # The waves are back where they were after `SIDE` steps, and both models have the
                # same weights: what is forecast from the same fields is the same, bit for bit.
                field = forecast_field(forecast)
                mark = hashlib.sha256(np.ascontiguousarray(field)).hexdigest()
                assert said.setdefault(step % SIDE, mark) == mark, f"{name}, step {step}: another"

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
    # What is under way still comes.
    begun = time.monotonic()
    _, own, _ = checkpoint()
    first = own["config"]["history"] - 1
    wanted = {(name, step) for name, step in sent if step >= first}
    collect(lambda: wanted <= taken.keys() or time.monotonic() > begun + 30)
    job.stop()
    collect(seconds(1))
    lost, strange = wanted - taken.keys(), taken.keys() - wanted
    assert not lost and not strange, f"lost {sorted(lost)[:5]}, of nothing {sorted(strange)[:5]}"
    print(swap.stdout.read().strip())
    print("| | forecasts | p50, ms | p99, ms | longest, ms |\n| --- | --- | --- | --- | --- |")
    usual = []
    for name, begin, end in zip(["before", "trial and takeover", "after"], marks, marks[1:]):
        took = [1e3 * at - sent[key] for key, at in taken.items() if begin <= sent[key] / 1e3 < end]
        p50, p99 = np.percentile(took, [50, 99])
        print(f"| {name} | {len(took)} | {p50:.0f} | {p99:.0f} | {max(took):.0f} |")
        usual.append(p99)
    before, during, _ = usual
    assert during < 2 * before, f"the p99 during the swap is {during / before:.1f} times the usual"
    print(f"{len(taken)} forecasts, each once; p99 {during / before:.2f} times the usual")


def forecast_field(forecast):
    """The served forecast of a message: the variable that is no scalar."""
    fields = [variable.data for variable in forecast.data if variable.name == "signal"]
    return fields[0]


main()
