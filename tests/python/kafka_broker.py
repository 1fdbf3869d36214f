#!/usr/bin/env python3
"""Is the broker of scripts/kafka what the tests take it for? Asked with Python's confluent-kafka.

    kafka_broker.py            the brokers in KAFKA_BOOTSTRAP; with TLS and SASL where they are exported
    kafka_broker.py faults     three brokers of its own, killed and stopped (a minute)
"""

import logging
import os
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

KAFKA = Path(__file__).parents[2] / "scripts" / "kafka"
logging.disable()
QUIET = {"logger": logging.getLogger()}  # what a client says of its fencing is no news here
LARGE = {"message.max.bytes": 16 << 20, "linger.ms": 0}


def topic(client):
    """A new topic of one partition."""
    name = f"smoke-{uuid.uuid4().hex[:8]}"
    admin = AdminClient(client)
    for done in admin.create_topics([NewTopic(name, 1)]).values():
        done.result(30)
    return name


def send(client, name, *values, **options):
    """Sends, and returns once all of them are acknowledged."""
    producer = Producer({**client, **LARGE, "enable.idempotence": True, **options})
    failed = []
    for value in values:
        producer.produce(name, value, on_delivery=lambda error, _: error and failed.append(error))
    assert producer.flush(60) == 0 and not failed, failed


def read(client, name, count, seconds=60):
    """The first `count` committed values."""
    consumer = Consumer({
        **client,
        "group.id": uuid.uuid4().hex,
        "isolation.level": "read_committed",
        "enable.auto.commit": False,
        "fetch.message.max.bytes": 16 << 20,
    })
    consumer.assign([TopicPartition(name, 0, 0)])
    values, end = [], time.monotonic() + seconds
    while len(values) < count and time.monotonic() < end:
        for message in consumer.consume(count - len(values), timeout=1):
            assert not message.error(), message.error()
            values.append(message.value())
    consumer.close()
    assert len(values) == count, f"{len(values)} of {count} values after {seconds} s"
    return values


def transactional(client, job):
    producer = Producer({**client, **LARGE, "transactional.id": job, "transaction.timeout.ms": 30000})
    producer.init_transactions(30)
    return producer


def transact(producer, name, *values, commit=True):
    producer.begin_transaction()
    for value in values:
        producer.produce(name, value)
    assert producer.flush(30) == 0
    (producer.commit_transaction if commit else producer.abort_transaction)(30)


def transactions(client):
    """An aborted transaction is not seen, and a second producer of the same id fences the first."""
    name, job = topic(client), uuid.uuid4().hex
    first = transactional(client, job)
    transact(first, name, b"a", b"b")
    transact(first, name, b"not this", commit=False)
    second = transactional(client, job)
    try:
        transact(first, name, b"nor this")
        raise AssertionError("the first producer was not fenced")
    except KafkaException as error:
        assert error.args[0].fatal() and "fence" in str(error).lower(), error
    transact(second, name, b"c")
    assert read(client, name, 3) == [b"a", b"b", b"c"]


def codecs(client):
    """Frames of 8 MiB, half of it noise, by every codec; and times long past and far ahead."""
    name = topic(client)
    frame = os.urandom(4 << 20) + bytes(4 << 20)
    kinds = ["none", "gzip", "snappy", "lz4", "zstd"]
    for kind in kinds:
        send(client, name, frame, **{"compression.type": kind})
    assert read(client, name, len(kinds)) == [frame] * len(kinds)
    producer = Producer(client)
    failed = []
    for at in (1, 4_000_000_000_000):
        producer.produce(name, b"", timestamp=at, on_delivery=lambda e, _: e and failed.append(e))
    assert producer.flush(30) == 0 and not failed, failed


def secured():
    """Clients by name, and the error of those that should not be let in."""
    tls = {**QUIET, "bootstrap.servers": os.environ["KAFKA_SSL_BOOTSTRAP"], "security.protocol": "ssl"}
    tls["ssl.ca.location"] = os.environ["KAFKA_CA"]
    folder = Path(os.environ["KAFKA_CA"]).parent
    pair = {"ssl.certificate.location": folder / "client.pem", "ssl.key.location": folder / "client.key"}
    yield "TLS", tls, None
    yield "TLS with a certificate", {**tls, **{key: str(path) for key, path in pair.items()}}, None
    yield "TLS without our authority", {**tls, "ssl.ca.location": "probe"}, KafkaError._SSL
    sasl = {**tls, "bootstrap.servers": os.environ["KAFKA_SASL_BOOTSTRAP"], "security.protocol": "sasl_ssl"}
    sasl["sasl.username"] = "physicnet"
    password = Path(os.environ["KAFKA_PASSWORD_FILE"]).read_text().strip()
    for kind in ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"):
        yield kind, {**sasl, "sasl.mechanisms": kind, "sasl.password": password}, None
        wrong = {**sasl, "sasl.mechanisms": kind, "sasl.password": "wrong"}
        yield f"{kind}, wrong password", wrong, KafkaError._AUTHENTICATION


def security():
    for kind, client, refusal in secured():
        if refusal is None:
            name = topic(client)
            send(client, name, b"x")
            assert read(client, name, 1) == [b"x"], kind
            continue
        errors, end = [], time.monotonic() + 10
        producer = Producer({**client, "error_cb": lambda error: errors.append(error.code())})
        while refusal not in errors and time.monotonic() < end:
            producer.poll(0.1)
        assert refusal in errors, f"{kind}: {errors}"


def kafka(*words):
    return subprocess.run([KAFKA, *words], check=True, text=True, stdout=subprocess.PIPE).stdout


def leader(client, name, but=None):
    """The broker that leads, once it is another than `but` and all three are in sync where it is not."""
    admin, end = AdminClient(client), time.monotonic() + 60
    while time.monotonic() < end:
        partition = admin.list_topics(name, timeout=30).topics[name].partitions[0]
        if partition.leader not in (but, -1) and (but or len(partition.isrs) == 3):
            return partition.leader
        time.sleep(0.2)
    raise AssertionError("no leader")


def faults():
    """Nothing acknowledged is lost, whatever happens to the leader; nothing is sent twice."""
    with tempfile.TemporaryDirectory() as folder:
        where = ("--dir", f"{folder}/kafka")
        try:
            exports = kafka("start", "--brokers", "3", *where)
            client = {**QUIET, "bootstrap.servers": exports.strip().split("=")[1]}
            name, sent = topic(client), []

            def more():
                sent.extend(b"%d" % (len(sent) + k) for k in range(100))
                send(client, name, *sent[-100:])
                assert read(client, name, len(sent)) == sent

            more()
            for fault, cure in (("kill", "restart"), ("stop-process", "cont")):
                old = leader(client, name)
                kafka(fault, str(old), *where)
                start = time.monotonic()
                more()
                print(f"{fault}: {time.monotonic() - start:.1f} s until written and read again")
                assert leader(client, name, but=old) != old
                time.sleep(10 if fault == "stop-process" else 0)
                kafka(cure, str(old), *where)
                leader(client, name)
                more()
            kafka("kill", "1", "2", "3", *where)
            kafka("restart", "1", "2", "3", *where)
            more()
            transact(transactional(client, "job"), name, b"last")
            assert read(client, name, len(sent) + 1)[-1] == b"last"
        finally:
            kafka("stop", *where)


def main():
    if sys.argv[1:] == ["faults"]:
        checks = [(faults,)]
    else:
        client = {**QUIET, "bootstrap.servers": os.environ["KAFKA_BOOTSTRAP"]}
        checks = [(transactions, client), (codecs, client)]
        checks += [(security,)] if "KAFKA_CA" in os.environ else []
    for check, *arguments in checks:
        start = time.monotonic()
        check(*arguments)
        print(f"{check.__name__}: as it should be, {time.monotonic() - start:.1f} s")


main()
