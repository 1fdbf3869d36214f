"""TLS and passwords, against a real broker: see tests/kafka.rs."""

import os
import sys
from pathlib import Path

from kafka_house import Job, Told, frames, kafka_sink, kafka_source, main, send, topic

PASSWORD = Path(os.environ["KAFKA_PASSWORD_FILE"]).read_text().strip()
TLS = f"tls: {{ca: '{os.environ['KAFKA_CA']}'}}"


def cluster(mechanism=None, password=""):
    if mechanism is None:
        return f'{{brokers: "{os.environ["KAFKA_SSL_BOOTSTRAP"]}", {TLS}}}'
    sasl = f"sasl: {{mechanism: {mechanism}, username: physicnet, {password}}}"
    return f'{{brokers: "{os.environ["KAFKA_SASL_BOOTSTRAP"]}", {TLS}, {sasl}}}'


def job(folder, name, out, where, **environment):
    source = kafka_source(name, cluster=where, more="follow: false,")
    job = Job(folder, [source], [kafka_sink(out, cluster=where)], more="workers: 1")
    return job.start(log="debug", **environment)


def welcome(folder):
    """Every lock opens, with the password from a file and from the environment."""
    name = topic("frames")
    send(name, frames(["a"], range(4)))
    file = f"password_file: '{os.environ['KAFKA_PASSWORD_FILE']}'"
    word = "password: '${KAFKA_TEST_PASSWORD}'"
    for where in [
        cluster(),
        cluster("plain", file),
        cluster("scram_sha_256", word),
        cluster("scram_sha_512", file),
        cluster("plain", word),
    ]:
        out = topic("forecasts")
        said = job(folder, name, out, where, KAFKA_TEST_PASSWORD=PASSWORD).ends()
        assert len(Told(out).all()) == 2, said
        assert PASSWORD not in said, "the password is in the log"


def refused(folder):
    """A wrong password is told as such, and told to nobody."""
    name, out = topic("frames"), topic("forecasts")
    word = "password: '${KAFKA_TEST_PASSWORD}'"
    kinds = ["plain", "scram_sha_256", "scram_sha_512"]
    jobs = [job(folder, name, out, cluster(kind, word), KAFKA_TEST_PASSWORD="letmein-x9") for kind in kinds]
    strange = job(folder, name, out, f'{{brokers: "{os.environ["KAFKA_SSL_BOOTSTRAP"]}", tls: {{}}}}')
    for kind, running in zip(kinds, jobs):
        said = running.ends(1)
        assert "letmein-x9" not in said, said
        last = said.strip().splitlines()[-1]
        print(f"{kind}: {last}", flush=True)
        assert "uthentication" in last or "password" in last, said
    said = strange.ends(1)
    print(f"no authority: {said.strip().splitlines()[-1]}", flush=True)
    assert "certificate" in said.strip().splitlines()[-1], said


if __name__ == "__main__":
    promises = [welcome, refused]
    sys.exit(main({promise.__name__: promise for promise in promises}))
