"""What each part of the network is worth, and how it bears faults: benches/skill/ablate --help.

Every variant is trained for the same steps on the same turbulence from the same seed, and forecasts the same
trajectories that nobody trained on: as they are, under noise in every pixel, with blocks or rows missing, and with
blocks stuck or rows too high in a fifth of the frames, which say so as if they had measured it. What is forecast
from faulty frames is scored against the true ones. Relative L2, mean of ten leads.
"""

import argparse
import json
import os
import subprocess
from pathlib import Path

BASE = {
    "model": {"history": 10, "horizon": 10, "boundary": "periodic", "position": True},
    "split": {"by": "sensor", "train": 1.0, "validation": 0.0},
    "augment": {"roll_diagonal": True},
    "loss": {"error": "mae", "weigh_leads": True},
}
# What a variant changes.
VARIANTS = {
    "as it is (codes describe, the forecast does not see them)": {},
    "no codes": {"model": {"quantization": "none"}},
    "the forecast sees the codes alone": {"model": {"quantization": "hard"}},
    "no learned flow": {"model": {"learned_flow": False}},
    "no gate": {"model": {"gate": False}},
    "no residual": {"model": {"residual": False}},
    "over persistence, no flow at all": {"model": {"expert": "persistence", "learned_flow": False}},
    "with the local level": {"model": {"local": True}},
    "tiny (configs/model/tiny.yaml)": {
        "model": {"hidden": 32, "latent": 8, "skip": 8, "decoder": 16, "rounds": 1, "codes": 64},
    },
    "squared error": {"loss": {"error": "mse"}},
    "leads not weighed": {"loss": {"weigh_leads": False}},
    "trained with noise and holes": {"augment": {"noise": 0.1, "dropout": 0.1}},
    "the same, codes alone": {
        "model": {"quantization": "hard"}, "augment": {"noise": 0.1, "dropout": 0.1},
    },
}
# For frames whose fine scales a coarse global level does not see.
FINE = {
    "the global level at half resolution": {"model": {"global_scale": 2}},
    "the same and the local level": {"model": {"global_scale": 2, "local": True}},
    "the global level at full resolution": {},
}
# Pixels; waves shorter than this are fine.
SHORT = 8
FAULTS = {
    "true frames": {},
    "noise": {"noise": {"vorticity": 0.3}},
    "blocks": {"dropouts": 0.5},
    "rows": {"stripes": 0.5},
    "stuck": {"stuck": 0.2},
    "streaks": {"streaks": 0.2},
}


def run(*words):
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{words}: {done.stderr}")
    return done.stdout


def simulated(physicnet, path, **settings):
    if not path.exists():
        config = path.with_suffix(".json")
        config.write_text(json.dumps({"field": {"kind": "navier_stokes"}} | settings))
        run(physicnet, "simulate", config, path)
    return path


def merged(base, changes):
    return base | {key: base.get(key, {}) | of for key, of in changes.items()}


def score(physicnet, model, out, store, true):
    """The relative L2 of what is forecast from `store`, beside the `true` frames."""
    period = ["--from", "2000-01-01T00:50", "--stride", "10", "--no-ssim"]
    told = out / "scores.json"
    if store == true:
        run(physicnet, "evaluate", "--zarr", store, "--checkpoint", model, "--json", told, *period)
        products = json.loads(told.read_text())["variables"][0]["products"]
        return products["physicnet"]["mean"]["rel_l2"], products
    # Sensors are called after their store, so each is forecast into a store of its number.
    forecasts = out / f"{store.stem}-forecasts"
    run(physicnet, "evaluate", "--zarr", store, "--checkpoint", model, "--forecasts",
        f"{forecasts}/{{sensor}}.zarr", *period)
    for made in forecasts.glob(f"{store.stem}_*.zarr"):
        made.rename(made.with_name(made.name.replace(store.stem, true.stem, 1)))
    run(physicnet, "evaluate", "--zarr", true, "--horizon", 10, "--against",
        f"told={forecasts}/{{sensor}}.zarr", "--json", told, *period)
    subprocess.run(["rm", "-r", forecasts], check=True)
    products = json.loads(told.read_text())["variables"][0]["products"]
    return products["told"]["mean"]["rel_l2"], products


def fine(args, physicnet):
    """Whether crops win on fine scales: frames of 128 x 128, each variant for the same minutes."""
    field = {"field": {"kind": "navier_stokes", "size": 128}}
    data = simulated(physicnet, args.out / "fine.zarr", sensors=40, seed=1, frames=45, **field)
    test = simulated(physicnet, args.out / "fine-test.zarr", sensors=6, seed=2, frames=41, **field)
    out, told = args.out / "run", args.out / "scores.json"
    for name, changes in FINE.items():
        subprocess.run(["rm", "-rf", str(out)], check=True)
        config = merged(BASE, changes) | {
            "data": [{"path": str(data)}], "out": str(out), "minutes": args.minutes, "threads": args.threads,
        }
        file = args.out / "train.json"
        file.write_text(json.dumps(config))
        run(physicnet, "train", file)
        run(physicnet, "evaluate", "--zarr", test, "--checkpoint", out / "last.safetensors", "--json", told,
            "--report", args.out / "fine.html", "--from", "2000-01-01T00:50", "--stride", 10, "--no-ssim")
        scores = json.loads(told.read_text())
        leads = scores["variables"][0]["products"]["physicnet"]["leads"]
        errors = [leads[at]["rel_l2"] for at in (0, 4, 9)]
        spectra = scores["spectra"][0]
        powers = []
        for lead in spectra["leads"]:
            of = [sum(power for power, wave in zip(lead_power, spectra["wavelengths"]) if wave < SHORT)
                  for lead_power in (lead["products"]["physicnet"], lead["truth"])]
            powers.append(f"{of[0] / of[1]:.2f} at lead {lead['lead']}")
        mean = scores["variables"][0]["products"]["physicnet"]["mean"]["rel_l2"]
        print(f"{name}: relative L2 {mean:.4f} ({', '.join(f'{e:.4f}' for e in errors)} at leads 1, 5, 10); "
              f"power of waves below {SHORT} pixels, to the truth's: {', '.join(powers)}", flush=True)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--only", nargs="+", help="variants that have one of these words")
    parser.add_argument("--fine", action="store_true", help="what the local level is worth on 128 x 128 pixels")
    parser.add_argument("--minutes", type=float, default=5, help="of training for each variant of --fine")
    parser.add_argument("--checkpoint", help="scores this network instead, and trains none")
    parser.add_argument("--out", type=Path, default=Path("out/ablation"))
    args = parser.parse_args()
    physicnet = os.environ.get("PHYSICNET", "target/release/physicnet")
    args.out.mkdir(parents=True, exist_ok=True)
    if args.fine:
        return fine(args, physicnet)
    tests = {
        name: simulated(
            physicnet, args.out / f"{name.split()[0]}.zarr", sensors=12, seed=2, frames=41, faults=faults
        )
        for name, faults in FAULTS.items()
    }
    true = tests["true frames"]
    if args.checkpoint:
        for at, store in tests.items():
            print(f"{at}: {score(physicnet, args.checkpoint, args.out, store, true)[0]:.4f}", flush=True)
        return
    data = simulated(physicnet, args.out / "train.zarr", sensors=120, seed=1, frames=45)
    kept = args.out / "ablation.json"
    found = json.loads(kept.read_text()) if kept.exists() else {}
    for name, changes in VARIANTS.items():
        if args.only and not any(word in name for word in args.only):
            continue
        for seed in args.seeds:
            key = f"{name}, {args.steps} steps, seed {seed}"
            if key in found:
                continue
            out = args.out / "run"
            subprocess.run(["rm", "-rf", str(out)], check=True)
            config = merged(BASE, changes) | {
                "data": [{"path": str(data)}], "out": str(out), "steps": args.steps, "seed": seed,
                "threads": args.threads,
            }
            file = args.out / "train.json"
            file.write_text(json.dumps(config))
            run(physicnet, "train", file)
            model = out / "last.safetensors"
            row = {at: score(physicnet, model, out, store, true)[0] for at, store in tests.items()}
            found[key] = {"name": name, "seed": seed, "steps": args.steps, "scores": row}
            kept.write_text(json.dumps(found, indent=1) + "\n")
            print(key, row, flush=True)
    print(f"| | {' | '.join(FAULTS)} |\n| --- |{' --- |' * len(FAULTS)}")
    for name in VARIANTS:
        rows = [f["scores"] for f in found.values() if f["name"] == name and f["steps"] == args.steps]
        if rows:
            means = [sum(row[at] for row in rows) / len(rows) for at in FAULTS]
            print(f"| {name} | {' | '.join(f'{mean:.4f}' for mean in means)} |")


if __name__ == "__main__":
    main()
