"""What a dashboard with people before it costs a job: watch.py PHYSICNET [--pairs 5] ...

One job over the same frames, as fast as it goes, without `dashboard` and with it, by turns. Six
viewers ask for what the page asks for, each another sensor, every second; a seventh scrapes
`/metrics` as often. They run in this process: their processor time is not the job's.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import tempfile
import threading
import time
import urllib.parse
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CHECKPOINT = ROOT / "configs/demo/checkpoint.safetensors"
TOKEN = "a-token-of-the-bench"
VIEWERS = 6


def simulate(physicnet, folder, frames):
    source, store = folder / "flows.yaml", folder / "flows.zarr"
    source.write_text(f"{{field: {{kind: navier_stokes}}, sensors: 8, frames: {frames}, seed: 3}}\n")
    subprocess.run([physicnet, "simulate", source, store], check=True, stderr=subprocess.DEVNULL)
    return store


class Viewers:
    """People before a dashboard; how often they were answered."""

    def __init__(self, host):
        self.host, self.stop, self.answers = host, threading.Event(), 0
        look = [threading.Thread(target=self.look, args=[k]) for k in range(VIEWERS)]
        self.threads = [*look, threading.Thread(target=self.scrape)]
        for thread in self.threads:
            thread.start()

    def ask(self, path):
        request = urllib.request.Request(
            f"http://{self.host}{path}", headers={"Authorization": f"Bearer {TOKEN}"}
        )
        try:
            with urllib.request.urlopen(request, timeout=5) as answer:
                self.answers += 1
                return answer.read()
        except OSError:
            # The job has ended, or a sensor waits for its place.
            return b"{}"

    def look(self, place):
        while not self.stop.wait(1.0):
            sensors = json.loads(self.ask("/api/state")).get("sensors", [])
            if sensors:
                name = urllib.parse.quote(sensors[place]["id"])
                self.ask(f"/api/sensor?sensor={name}&forecast=newest")

    def scrape(self):
        while not self.stop.wait(1.0):
            self.ask("/metrics")

    def end(self):
        self.stop.set()
        for thread in self.threads:
            thread.join()
        return self.answers


def run(physicnet, folder, store, watched):
    """Wall and processor seconds of a run, and how often it was looked at."""
    text = f"""
sources: [{{type: zarr, path: '{store}'}}]
model: {{checkpoint: '{CHECKPOINT}'}}
scoring: {{}}
workers: 2
"""
    if watched:
        token = folder / "token"
        token.write_text(TOKEN)
        text += f"dashboard: {{listen: '127.0.0.1:0', token_file: '{token}'}}\n"
    job = folder / "job.yaml"
    job.write_text(text)
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    command = [physicnet, "run", job]
    environment = {**os.environ, "RUST_LOG": "info"}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    viewers, said = None, []
    for line in process.stderr:
        said.append(line)
        if "the dashboard is at http://" in line:
            viewers = Viewers(line.rsplit("http://", 1)[1].strip())
    assert process.wait() == 0, "".join(said)
    seconds = time.monotonic() - begun
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    assert watched == (viewers is not None), "".join(said)
    return seconds, cpu, viewers.end() if viewers else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("physicnet")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--frames", type=int, default=1500, help="of each of eight sensors")
    args = parser.parse_args()
    walls, cpus = [], []
    with tempfile.TemporaryDirectory(prefix="physicnet-watch-") as folder:
        folder = Path(folder)
        store = simulate(args.physicnet, folder, args.frames)
        print("| pair | alone, s | watched, s | alone, CPU s | watched, CPU s | answers |")
        print("| --- | --- | --- | --- | --- | --- |")
        for pair in range(args.pairs):
            # Whoever is first has the colder caches: by turns.
            order = [False, True] if pair % 2 == 0 else [True, False]
            told = {watched: run(args.physicnet, folder, store, watched) for watched in order}
            (alone, alone_cpu, _), (seen, seen_cpu, answers) = told[False], told[True]
            assert answers >= 5 * VIEWERS, f"looked at {answers} times only; take more --frames"
            walls.append(seen / alone)
            cpus.append(seen_cpu / alone_cpu)
            row = f"{alone:.1f} | {seen:.1f} | {alone_cpu:.1f} | {seen_cpu:.1f} | {answers}"
            print(f"| {pair + 1} | {row} |", flush=True)
    for name, ratios in [("time", walls), ("processor time", cpus)]:
        spread = f"{min(ratios):.3f} to {max(ratios):.3f}"
        print(f"watched over alone, {name}: {spread}, median {statistics.median(ratios):.3f}")


main()
