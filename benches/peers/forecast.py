"""The peer of a PhysicNet job in Python: frames from Kafka, forecasts to Kafka, exactly once.

  python forecast.py BROKERS NAME FROM TO --leads 12                          the flow alone
  python forecast.py BROKERS NAME FROM TO --checkpoint FILE --onnx FILE       ONNX Runtime
  python forecast.py BROKERS NAME FROM TO --checkpoint FILE                   PyTorch

The best that its libraries offer without a framework: batches of whatever waits, one transaction a
batch with the offsets in it, OpenCV's DIS flow, and the network under the job's own weights on all
cores. The network sees whole windows: an export does not say what it knew of their older frames. It
keeps no windows over a restart, judges no frames, fills no gaps and knows no dead letters: all of
that would cost it more.
"""

import argparse
import json
import os
import threading
from collections import deque
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
from confluent_kafka import Consumer, Producer, TopicPartition
from streaming_data_types.dataarray_da00 import Variable, deserialise_da00, serialise_da00

BATCH = 64
SECOND = 1_000_000_000
CADENCE = 300 * SECOND
CORES = os.cpu_count()
# How far beyond a periodic border the flow sees, in pixels, as the other side's does.
WRAP = 32


class Flow(threading.local):
    """OpenCV's DIS, one a thread; the middle preset: patches of 8 pixels, as the other side has them."""

    def __init__(self):
        self.dis = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)

    def __call__(self, newest, previous, wrap=0):
        low = min(newest.min(), previous.min())
        scale = 255 / max(max(newest.max(), previous.max()) - low, 1e-12)
        pair = [((frame - low) * scale).astype("u1") for frame in (newest, previous)]
        if wrap:
            pair = [cv2.copyMakeBorder(frame, *[wrap] * 4, cv2.BORDER_WRAP) for frame in pair]
        flow = self.dis.calc(*pair, None)
        return flow[wrap:-wrap, wrap:-wrap] if wrap else flow


class Advection:
    """The newest frame, carried along the flow from the one before it."""

    def __init__(self, leads):
        self.leads = leads
        self.previous = {}
        self.flow = Flow()
        self.grid = None

    def forecasts(self, frames):
        for sensor, newest in frames:
            previous, self.previous[sensor] = self.previous.get(sensor), newest
            yield None if previous is None else self.carried(newest, previous)

    def carried(self, newest, previous):
        if self.grid is None:
            y, x = np.indices(newest.shape, "f4")
            self.grid = np.dstack([x, y])
        flow = self.flow(newest, previous)
        leads = np.empty((self.leads, *newest.shape), "f4")
        # The path by the implicit midpoint rule, one correction a step.
        at, stride = self.grid.copy(), flow
        for lead in range(self.leads):
            half = cv2.scaleAdd(stride, 0.5, at)
            stride = cv2.remap(flow, half, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
            cv2.add(at, stride, at)
            cv2.remap(newest, at, None, cv2.INTER_LINEAR, leads[lead], cv2.BORDER_REPLICATE)
        return leads


class Network:
    """The network of a checkpoint on the windows of each sensor."""

    def __init__(self, checkpoint):
        from safetensors import safe_open

        with safe_open(checkpoint, "np") as file:
            config = json.loads(file.metadata()["physicnet"])["config"]
        (variable,) = config["variables"]
        transform = variable["transform"]
        if transform["kind"] != "standardise" or variable.get("keep") or any(config["ramp"]):
            raise SystemExit(f"{checkpoint}: only a standardised variable, served as it is")
        self.mean, self.std = np.float32(transform["mean"]), np.float32(transform["std"])
        self.history = config["history"]
        self.wrap = WRAP if config["boundary"] == "periodic" else 0
        self.windows = {}
        self.flow = Flow()
        self.pool = ThreadPoolExecutor(CORES)
        cv2.setNumThreads(1)

    def forecasts(self, frames):
        windows = [self.window(*frame) for frame in frames]
        whole = self.run([window for window in windows if window is not None])
        for window in windows:
            yield None if window is None else next(whole) * self.std + self.mean

    def window(self, sensor, newest):
        """The frames of the sensor as (T, 1, H, W), once there are enough."""
        window = self.windows.setdefault(sensor, deque(maxlen=self.history))
        window.append((newest - self.mean) / self.std)
        return np.stack(window)[:, None] if len(window) == self.history else None

    def motion(self, window):
        """The flow as (2, H, W)."""
        flow = self.flow(window[-1, 0], window[-2, 0], self.wrap)
        return np.ascontiguousarray(flow.transpose(2, 0, 1))


class Onnx(Network):
    """By ONNX Runtime, a window on each core: faster than all cores on each window."""

    def __init__(self, checkpoint, path):
        super().__init__(checkpoint)
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(path, options, ["CPUExecutionProvider"])
        self.mask = None

    def run(self, windows):
        return self.pool.map(self.one, windows)

    def one(self, window):
        if self.mask is None:
            self.mask = np.ones_like(window[None])
        inputs = {"frames": window[None], "mask": self.mask, "flow": self.motion(window)[None]}
        return self.session.run(None, inputs)[0][0]


class Torch(Network):
    """By PyTorch, windows together: faster than one by one."""

    def __init__(self, checkpoint):
        super().__init__(checkpoint)
        import torch
        from twin import Twin

        torch.set_num_threads(CORES)
        self.torch, self.twin = torch, Twin.load(checkpoint)

    def run(self, windows):
        torch = self.torch
        for first in range(0, len(windows), 8):
            some = windows[first : first + 8]
            flow = np.stack(list(self.pool.map(self.motion, some)))
            frames = torch.from_numpy(np.stack(some))
            with torch.inference_mode():
                outputs = self.twin(frames, torch.ones_like(frames), torch.from_numpy(flow))
            yield from outputs[self.twin.config.serve].numpy()


def message(sensor, frame, forecast, signal, coordinates):
    """What the other side says: the leads as an axis, and what tells one forecast from another."""
    leads = np.arange(1, len(forecast) + 1) * CADENCE // SECOND
    variables = [
        Variable(name="signal", unit=signal.unit, label=signal.label, axes=["lead_time", "y", "x"],
                 data=forecast),
        Variable(name="lead_time", unit="s", axes=["lead_time"], data=leads),
        Variable(name="forecast_reference_time", unit="datetime64[s]", axes=[],
                 data=np.array(frame.timestamp_ns // SECOND)),
        Variable(name="model", axes=[], data="peer"),
        Variable(name="revision", axes=[], data=np.array(1, "i4")),
        Variable(name="missing", axes=[], data=np.array(0, "f4")),
        *coordinates,
    ]
    return serialise_da00(source_name=sensor, timestamp_ns=frame.timestamp_ns, data=variables)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for word in ("brokers", "name", "source", "sink"):
        parser.add_argument(word)
    parser.add_argument("--leads", type=int, default=12, help="of the flow alone")
    parser.add_argument("--checkpoint", help="of the network")
    parser.add_argument("--onnx", help="the network for ONNX Runtime")
    args = parser.parse_args()
    if args.checkpoint is None:
        expert = Advection(args.leads)
    else:
        expert = Onnx(args.checkpoint, args.onnx) if args.onnx else Torch(args.checkpoint)

    consumer = Consumer({
        "bootstrap.servers": args.brokers,
        "group.id": args.name,
        "enable.auto.commit": False,
        "auto.offset.reset": "earliest",
        "isolation.level": "read_committed",
        "fetch.queue.backoff.ms": 5,
        "fetch.message.max.bytes": 8 << 20,
    })
    producer = Producer({
        "bootstrap.servers": args.brokers,
        "transactional.id": args.name,
        "message.max.bytes": 64 << 20,
        "queue.buffering.max.kbytes": 1 << 18,
        "linger.ms": 0,
    })
    producer.init_transactions(30)
    partitions = consumer.list_topics(args.source, 10).topics[args.source].partitions
    wanted = [TopicPartition(args.source, partition) for partition in partitions]
    # All partitions are its own, as they are the other side's: no group to wait for.
    for partition in wanted:
        committed = consumer.committed([partition], 10)[0].offset
        partition.offset = committed if committed >= 0 else 0
    consumer.assign(wanted)
    while True:
        first = consumer.poll(1)
        if first is None:
            continue
        batch = [first, *consumer.consume(BATCH - 1, timeout=0)]
        producer.begin_transaction()
        offsets, frames, fields = {}, [], []
        for received in batch:
            if received.error():
                raise SystemExit(received.error())
            offsets[received.partition()] = received.offset() + 1
            frame = deserialise_da00(received.value())
            arrays = {variable.name: variable for variable in frame.data}
            frames.append((frame, arrays))
            fields.append((frame.source_name, np.array(arrays["signal"].data)))
        for (frame, arrays), forecast in zip(frames, expert.forecasts(fields), strict=True):
            if forecast is None:
                continue
            coordinates = [arrays[axis] for axis in ("y", "x")]
            value = message(frame.source_name, frame, forecast, arrays["signal"], coordinates)
            while True:
                try:
                    producer.produce(args.sink, value, frame.source_name)
                    break
                except BufferError:
                    producer.poll(0.01)
            producer.poll(0)
        positions = [TopicPartition(args.source, at, offset) for at, offset in offsets.items()]
        producer.send_offsets_to_transaction(positions, consumer.consumer_group_metadata())
        producer.commit_transaction()


if __name__ == "__main__":
    main()
