"""Drift of simulated flows from the training data, and what it says of skill: drift.py PHYSICNET."""

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

CHECKPOINT = Path(__file__).resolve().parents[1] / "configs/demo/checkpoint.safetensors"
PHYSICNET = sys.argv[1]
# What is simulated, and how many flows of it. Training saw seed 1; the others are unseen.
SHOWN = {
    "as in training": ({}, "", 200),
    "interval: 1.5": ({"interval": 1.5}, "", 8),
    "viscosity: 1e-3": ({"viscosity": 1e-3}, "", 8),
    "viscosity: 1e-5": ({"viscosity": 1e-5}, "", 8),
    "forcing: 0.3": ({"forcing": 0.3}, "", 8),
    "forcing: 0": ({"forcing": 0.0}, "", 8),
    "noise of 2": ({}, "{noise: {vorticity: 2.0}}", 8),
}


def source(field, faults, sensors, frames):
    faults = f", faults: {faults}" if faults else ""
    field = json.dumps({"kind": "navier_stokes", **field})
    return f"field: {field}, sensors: {sensors}, seed: 7, frames: {frames}{faults}"


def run(folder, source, drift):
    """What a job over this source says on stderr."""
    job = folder / "job.yaml"
    model = f"model: {{checkpoint: '{CHECKPOINT}'}}"
    job.write_text(f"sources: [{{type: synthetic, {source}}}]\n{model}\ndrift: {drift}\n")
    done = subprocess.run([PHYSICNET, "run", job], check=True, capture_output=True, text=True,
                          env={**os.environ, "RUST_LOG": "info"})
    return done.stderr


def later(folder):
    """Flows that run on: when they alarm, and their squared error beside persistence's."""
    flows = source({}, "", 4, 160)
    for line in run(folder, flows, "{}").splitlines():
        if "has drifted" in line or "everything durable" in line:
            print(line[28:])
    (folder / "flows.yaml").write_text("{" + flows + "}")
    store = folder / "flows.zarr"
    subprocess.run([PHYSICNET, "simulate", folder / "flows.yaml", store], check=True)
    for begin, end in [(10, 50), (50, 80), (80, 120), (120, 159)]:
        times = [f"2000-01-01T{at * 5 // 60:02}:{at * 5 % 60:02}" for at in (begin, end)]
        told = folder / "scores.json"
        subprocess.run([PHYSICNET, "evaluate", "--zarr", store, "--checkpoint", CHECKPOINT, "--from",
                        times[0], "--to", times[1], "--json", told], check=True, capture_output=True)
        products = json.loads(told.read_text())["variables"][0]["products"]
        ours, theirs = [products[p]["leads"][0]["mse"] for p in ("physicnet", "persistence")]
        print(f"frames {begin} to {end}: squared error one frame ahead {ours / theirs:.2f} of persistence's")


def main():
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        told = subprocess.run([PHYSICNET, "inspect", CHECKPOINT], check=True, capture_output=True, text=True)
        limit = float(re.search(r"the alarm is above (0\.\d+)", told.stdout)[1])
        for name, (field, faults, sensors) in SHOWN.items():
            # Every sensor has an alarm then, and the last line says how far it was.
            said = run(folder, source(field, faults, sensors, 45), "{alarm: 0.001}")
            far = [float(d) for d in re.findall(r'\d (0\.\d{3})"', said)]
            assert len(far) == sensors, said
            above = sum(d > limit for d in far)
            print(f"{name}: {sensors} flows, {min(far):.3f} to {max(far):.3f}, {above} above {limit}", flush=True)
        later(folder)


main()
