"""Every format through a whole job, and every reason of a dead letter: see tests/kafka.rs."""

import json
import sys

import numpy as np
from streaming_data_types import deserialise_da00
from streaming_data_types.area_detector_ad00 import deserialise_ad00, serialise_ad00
from streaming_data_types.dataarray_da00 import Variable, serialise_da00

from kafka_house import MINUTE, Job, Told, field, frame, kafka_sink, kafka_source, main, send, topic

# What it forecasts is the newest frame, bit for bit.
STAYS = "{history: 2, horizon: 1, quantization: none, expert: persistence, residual: false}"
NAMES, STEPS = ["a", "b/c"], 4


def through(folder, write, read, form, source=""):
    """What `write` makes of frames goes in, and the forecasts are what `read` finds in them."""
    name, out = topic("frames"), topic("forecasts")
    made = [{"key": key, "value": write(key, step)} for step in range(STEPS) for key in NAMES]
    send(name, made)
    source = kafka_source(name, more=f"format: {form}, follow: false, {source}")
    job = Job(folder, [source], [kafka_sink(out, more=f"format: {form}")], STAYS)
    job.start().ends()
    dead = [message.headers() for message in job.dead().all()]
    assert not dead, dead
    found = {}
    for message in Told(out).all():
        sensor, time, data = read(message.value())
        assert message.key().decode() == sensor
        found[sensor, time // MINUTE] = np.squeeze(data)
    expected = {(key, step): field(key, step) for key in NAMES for step in range(1, STEPS)}
    assert found.keys() == expected.keys(), found.keys()
    for place, data in found.items():
        assert data.dtype == np.float32 and np.array_equal(data, expected[place]), place


def ad00(folder):
    """Frames of cameras come in, and forecasts go out, as `ad00`."""

    def write(key, step):
        return serialise_ad00(key, 0, step * MINUTE, field(key, step), [])

    def read(value):
        message = deserialise_ad00(value)
        return message.source_name, message.timestamp_ns, message.data

    through(folder, write, read, "ad00")


def as_json(folder):
    """Frames come in as a person writes them, and forecasts go out so."""

    def write(key, step):
        signal = {"units": "m s-1", "axes": ["y", "x"], "data": field(key, step).tolist()}
        time = f"1970-01-01T00:0{step}:00Z"
        body = {"source_name": key, "timestamp": time, "variables": {"signal": signal}}
        return json.dumps(body).encode()

    def read(value):
        message = json.loads(value)
        time = np.datetime64(message["timestamp"].removesuffix("Z"), "ns").astype(int)
        return message["source_name"], time, np.array(message["variables"]["signal"]["data"], "f4")

    through(folder, write, read, "json")


def coordinate(folder):
    """The valid time is a variable of its own, whatever the timestamp says."""

    def write(key, step):
        signal = Variable("signal", field(key, step), axes=["y", "x"], unit="m s-1")
        when = Variable("when", np.array(60 * step), unit="datetime64[s]")
        return serialise_da00(key, 5, [when, signal])

    def read(value):
        message = deserialise_da00(value)
        signal = next(variable for variable in message.data if variable.name == "signal")
        return message.source_name, message.timestamp_ns, signal.data

    through(folder, write, read, "da00", "time: {coordinate: when},")


def reasons(folder):
    """What is not used is told with its own key and bytes, why, and where it was."""
    name, out = topic("frames"), topic("forecasts")
    newest = "the newest frame, 1970-01-01T00:05:00Z"
    sent = [
        *(("a", frame("a", step), None) for step in (0, 1, 2, 3, 5)),
        ("a", frame("a", 4), ("late", f"not newer than {newest}, to the nearest cadence")),
        (
            "a",
            frame("a", 5, field("other", 5)),
            ("corrected", "its time was used already, with other values"),
        ),
        # An exact repeat is dropped and counted, no more.
        ("a", frame("a", 5), None),
        ("a", frame("a", 5000), ("absurd_time", f"too far from {newest}")),
        ("b", frame("b", 6), ("unknown_sensor", "no sensor of the job has this name")),
        ("a", b"nothing", ("undecodable", "7 bytes, too few for a message")),
        (
            "a",
            b'{"source_name": "a", "timestamp": 0}',
            ("undecodable", "no da00 message: it looks like JSON; is the format json?"),
        ),
        (
            "a",
            frame("a", 6, unit="K"),
            ("misshapen", 'variable "signal": unit "K" where the job says "m s-1" for "u"'),
        ),
        # Nobody knows whose it is.
        (None, frame("a", 6), ("undecodable", "the message has no key to name its sensor")),
        ("a", frame("a", 6), None),
    ]
    send(name, [{"key": key, "value": value} for key, value, _ in sent])
    source = kafka_source(name, more="sensors: [a], follow: false,")
    job = Job(folder, [source], [kafka_sink(out)])
    job.start().ends()
    letters = job.dead().all()
    found = {int(dict(m.headers())["offset"]): (m.key(), m.value(), m.headers()) for m in letters}
    expected = {}
    for offset, (key, value, refused) in enumerate(sent):
        if refused:
            names = ["reason", "detail", "sensor", "topic", "partition", "offset"]
            said = [*refused, key, name, "0", str(offset)]
            headers = [(header, text.encode()) for header, text in zip(names, said) if text]
            expected[offset] = (key and key.encode(), value, headers)
    assert len(letters) == len(found) and found == expected, (found, expected)
    times = [deserialise_da00(m.value()).timestamp_ns // MINUTE for m in Told(out).all()]
    assert times == [2, 3, 5, 6], times


if __name__ == "__main__":
    promises = [ad00, as_json, coordinate, reasons]
    sys.exit(main({promise.__name__: promise for promise in promises}))
