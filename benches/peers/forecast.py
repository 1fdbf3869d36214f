"""The peer of a PhysicNet job in Python: frames from Kafka, advection, forecasts to Kafka, exactly once.

  python forecast.py BROKERS NAME FROM TO LEADS

The best that its libraries offer without a framework: batches of whatever waits, one transaction a
batch with the offsets in it, OpenCV's DIS flow, one remap a lead on all cores. It keeps no windows
over a restart, judges no frames, and knows no dead letters: all of that would cost it more.
"""

import sys

import cv2
import numpy as np
from confluent_kafka import Consumer, Producer, TopicPartition
from streaming_data_types.dataarray_da00 import Variable, deserialise_da00, serialise_da00

BATCH = 64
SECOND = 1_000_000_000


class Advection:
    """The newest frame, carried along the flow from the one before it."""

    def __init__(self, leads):
        self.leads = leads
        self.previous = {}
        # The middle preset: patches of 8 pixels, as the other side has them.
        self.dis = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
        self.grid = None

    def forecast(self, sensor, newest):
        previous, self.previous[sensor] = self.previous.get(sensor), newest
        if previous is None:
            return None
        if self.grid is None:
            y, x = np.indices(newest.shape, "f4")
            self.grid = np.dstack([x, y])
        low = min(newest.min(), previous.min())
        scale = 255 / max(max(newest.max(), previous.max()) - low, 1e-12)
        pair = [((frame - low) * scale).astype("u1") for frame in (newest, previous)]
        flow = self.dis.calc(*pair, None)
        leads = np.empty((self.leads, *newest.shape), "f4")
        # The path by the implicit midpoint rule, one correction a step.
        at, stride = self.grid.copy(), flow
        for lead in range(self.leads):
            half = cv2.scaleAdd(stride, 0.5, at)
            stride = cv2.remap(flow, half, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
            cv2.add(at, stride, at)
            cv2.remap(newest, at, None, cv2.INTER_LINEAR, leads[lead], cv2.BORDER_REPLICATE)
        return leads


def message(sensor, frame, forecast, coordinates, cadence):
    """What the other side says: the leads as an axis, and what tells one forecast from another."""
    leads = np.arange(1, len(forecast) + 1) * cadence // SECOND
    variables = [
        Variable(name="signal", unit="m s-1", label="u", axes=["lead_time", "y", "x"], data=forecast),
        Variable(name="lead_time", unit="s", axes=["lead_time"], data=leads),
        Variable(name="forecast_reference_time", unit="datetime64[s]", axes=[],
                 data=np.array(frame.timestamp_ns // SECOND)),
        Variable(name="model", axes=[], data="advection"),
        Variable(name="revision", axes=[], data=np.array(1, "i4")),
        Variable(name="missing", axes=[], data=np.array(0, "f4")),
        *coordinates,
    ]
    return serialise_da00(source_name=sensor, timestamp_ns=frame.timestamp_ns, data=variables)


def main():
    brokers, name, from_, to, leads = sys.argv[1:]
    consumer = Consumer({
        "bootstrap.servers": brokers,
        "group.id": name,
        "enable.auto.commit": False,
        "auto.offset.reset": "earliest",
        "isolation.level": "read_committed",
        "fetch.queue.backoff.ms": 5,
        "fetch.message.max.bytes": 8 << 20,
    })
    producer = Producer({
        "bootstrap.servers": brokers,
        "transactional.id": name,
        "message.max.bytes": 64 << 20,
        "queue.buffering.max.kbytes": 1 << 18,
        "linger.ms": 0,
    })
    producer.init_transactions(30)
    partitions = consumer.list_topics(from_, 10).topics[from_].partitions
    wanted = [TopicPartition(from_, partition) for partition in partitions]
    # All partitions are its own, as they are the other side's: no group to wait for.
    for partition in wanted:
        committed = consumer.committed([partition], 10)[0].offset
        partition.offset = committed if committed >= 0 else 0
    consumer.assign(wanted)
    advection = Advection(int(leads))
    while True:
        first = consumer.poll(1)
        if first is None:
            continue
        batch = [first, *consumer.consume(BATCH - 1, timeout=0)]
        producer.begin_transaction()
        offsets = {}
        for received in batch:
            if received.error():
                raise SystemExit(received.error())
            offsets[received.partition()] = received.offset() + 1
            frame = deserialise_da00(received.value())
            arrays = {variable.name: variable for variable in frame.data}
            forecast = advection.forecast(frame.source_name, np.array(arrays["signal"].data))
            if forecast is None:
                continue
            coordinates = [arrays[axis] for axis in ("y", "x")]
            value = message(frame.source_name, frame, forecast, coordinates, 60 * SECOND)
            while True:
                try:
                    producer.produce(to, value, frame.source_name)
                    break
                except BufferError:
                    producer.poll(0.01)
            producer.poll(0)
        positions = [TopicPartition(from_, at, offset) for at, offset in offsets.items()]
        producer.send_offsets_to_transaction(positions, consumer.consumer_group_metadata())
        producer.commit_transaction()


if __name__ == "__main__":
    main()
