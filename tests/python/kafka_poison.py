"""Ten thousand messages that are no frames among good ones: see tests/kafka.rs."""

import random
import re
import struct
import sys
from pathlib import Path

import numpy as np
from confluent_kafka import Producer
from streaming_data_types import deserialise_da00
from streaming_data_types.fbschemas.dataarray_da00.da00_DataArray import da00_DataArray

from kafka_house import MINUTE, PLAIN, Job, Told, clear, kafka_sink, main, topic
from kafka_house import frame as plain_frame

GOLDEN = Path(__file__).parents[2] / "connectors" / "kafka" / "format" / "golden"
ROWS, COLUMNS, STEPS, BAD = 4, 5, 60, 10_000
AXES = ("lat", "lon")
SENSORS = [f"good/{k}" for k in range(8)]
GRID = "{variables: [{name: t, units: K}], y: {name: lat, count: 4, first: 10}, x: {name: lon, count: 5, first: 20}}"


def frame(name, step, data=None, unit="K", axes=AXES):
    data = np.full((ROWS, COLUMNS), step, "f4") if data is None else data
    return plain_frame(name, step, data, unit, axes)


def flipped(chance, message):
    message = bytearray(message)
    for _ in range(chance.randint(1, 8)):
        message[chance.randrange(len(message))] ^= 1 << chance.randrange(8)
    return bytes(message)


def replaced(message, old, new):
    assert message.count(old) >= 1
    return message.replace(old, new)


def poison(chance):
    """Kind, key and value of every message that is no frame, without end."""
    goldens = [path.read_bytes() for path in sorted(GOLDEN.glob("*.bin"))]
    # Those that fit the job: only what is done to them is wrong.
    fitting = [(GOLDEN / f"frame_f32_1x4x5{kind}.bin").read_bytes() for kind in ("", "_min", "_nan")]
    whole = frame("good/0", 0)
    dims, size = struct.pack("<qq", ROWS, COLUMNS), struct.pack("<I", 4 * ROWS * COLUMNS)
    for number in range(sys.maxsize):
        key = chance.choice(SENSORS)
        golden = chance.choice(goldens)
        # What cuts less may cut padding alone.
        yield "truncated", key, golden[: chance.randrange(len(golden) - 8)]
        # A flipped bit may leave a frame: it must not be a good sensor's.
        yield "flipped", f"flip/{number}", flipped(chance, chance.choice(fitting))
        wrong = chance.choice([(5, 4), (3, 5), (4, 6), (2, 4, 5), (20,), (1, 1)])
        axes = {1: ("lat",), 2: AXES, 3: ("time", *AXES)}[len(wrong)]
        yield "shape", key, frame(key, number, np.zeros(wrong, "f4"), axes=axes)
        huge = chance.choice([2**31 - 1, 2**32 - 1, 2**31, 4 * ROWS * COLUMNS + 4096])
        yield "huge", key, replaced(whole, size, struct.pack("<I", huge))
        over = chance.choice([(2**62 + 20, 1), (2**40, 2**40), (-4, -5), (2**63 - 1, 2), (0, 5)])
        yield "overflow", key, replaced(whole, dims, struct.pack("<qq", *over))
        yield "random", key, chance.randbytes(chance.randint(1, 600))
        yield "empty", key, b""
        yield "tombstone", key, None
        yield "no key", None, frame("good/0", number)
        yield "empty key", b"", frame("good/0", number)
        yield "key", b"\xff\xfe" + chance.randbytes(3), frame("good/0", number)
        yield "unit", key, frame(key, number, unit="mm")
        yield "axes", key, frame(key, number, axes=("lon", "lat"))
        yield "text", key, frame(key, number, "twenty numbers", axes=())
        yield "schema", key, whole[:4] + b"ad00" + whole[8:]
        yield "json", key, b'{"source_name": "good/0", "timestamp": 0, "signal": [[1]]}'
        if number % 200 == 0:
            yield "large", key, frame(key, number, np.zeros((600, 500), "f4"))


def sent(name):
    """What lies where: place, kind, key, value."""
    chance = random.Random(0)
    bad, places, failed = poison(chance), {}, []
    producer = Producer({**PLAIN, "enable.idempotence": True, "message.max.bytes": 16 << 20})

    def send(kind, key, value):
        key = key.encode() if isinstance(key, str) else key

        def delivered(error, message):
            failed.append(error) if error else None
            places[(message.partition(), message.offset())] = (kind, key, value)

        producer.produce(name, value, key, on_delivery=delivered)
        producer.poll(0)

    each = BAD // STEPS + 1
    for step in range(STEPS):
        for sensor in SENSORS:
            send("good", sensor, frame(sensor, step))
        for _ in range(min(each, BAD - each * step)):
            send(*next(bad))
    assert producer.flush(60) == 0 and not any(failed), failed
    return places


def is_frame(value):
    """Whether the classes that flatc made read a frame of the job. What PhysicNet has no use for
    (`source`) may be broken; the Python client would not read it then."""
    try:
        message = da00_DataArray.GetRootAs(value, 0)
        variables = [message.Data(k) for k in range(message.DataLength())]
        signal = next(variable for variable in variables if variable.Name() == b"signal")
        squeezed = tuple(int(n) for n in signal.ShapeAsNumpy() if n != 1)
        fits = squeezed == (ROWS, COLUMNS) and signal.DataLength() == 4 * ROWS * COLUMNS
        return fits and signal.Unit() in (None, b"", b"K") and bool(message.SourceName())
    except Exception:  # noqa: BLE001: whatever it is, it is no frame
        return False


def poisoned(folder):
    name, out = topic("frames", 4), topic("forecasts")
    places = sent(name)
    kinds = [kind for kind, _, _ in places.values()]
    assert len(kinds) == BAD + STEPS * len(SENSORS), len(kinds)
    source = (
        f"{{type: kafka, cluster: {clear()}, topics: [{name}], cadence: 60s, follow: false, "
        f"largest_message_mib: 1, grid: {GRID}}}"
    )
    model = "{history: 3, horizon: 2, quantization: none, expert: persistence}"
    job = Job(folder, [source], [kafka_sink(out)], model, more="workers: 2\nin_flight: 256")
    said = job.start(log="physicnet=info,error").ends(seconds=140)

    letters = {}
    for message in job.dead().all():
        headers = {key: value.decode() for key, value in message.headers()}
        place = (int(headers["partition"]), int(headers["offset"]))
        assert headers["topic"] == name and place not in letters, headers
        assert headers["reason"] and headers["detail"], headers
        kind, key, value = places[place]
        assert (message.key(), message.value()) == (key, value), f"{kind}: {headers}"
        letters[place] = headers
        misfits = {"shape", "unit", "axes", "text"}
        reasons = ["undecodable", "misshapen"] if kind == "flipped" else ["undecodable"]
        reasons = ["misshapen"] if kind in misfits else reasons
        assert headers["reason"] in reasons, f"{kind}: {headers}"
        nobody = kind in {"no key", "empty key", "key"}
        assert headers.get("sensor") == (None if nobody else key.decode()), f"{kind}: {headers}"
    flips = 0
    for place, (kind, _, value) in places.items():
        if kind == "good":
            assert place not in letters, letters[place]
        elif kind == "flipped":
            flips += place not in letters
            assert place in letters or is_frame(value), f"a broken frame was used: {value.hex()}"
        else:
            assert place in letters, f"{kind} was used"
    # What flipped bits left a frame is used; nothing is both, and nothing is neither.
    frames = int(re.search(r"frames=(\d+)", said)[1])
    refused = sum(int(count) for count in re.findall(r'"(?:undecodable|misshapen)": (\d+)', said))
    assert (frames, refused) == (len(places), len(letters)), said[-600:]
    assert len(letters) + flips == BAD

    made = sorted((m.key().decode(), deserialise_da00(m.value()).timestamp_ns // MINUTE) for m in Told(out).all())
    assert made == [(sensor, step) for sensor in SENSORS for step in range(2, STEPS)]
    print(f"{len(letters)} dead letters, {flips} flipped messages that still are frames", flush=True)


if __name__ == "__main__":
    sys.exit(main({"poisoned": poisoned}))
