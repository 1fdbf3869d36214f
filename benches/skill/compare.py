"""PhysicNet beside its peers at equal training time: benches/skill/run --help.

    archive ─► train, one after another on the same cores ─► forecasts of the same reference times ─► one scorer
"""

import argparse
import json
import math
import os
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

import moving_mnist
import yaml
from check import check
from table import table

ROOT = Path(__file__).resolve().parents[2]
PEERS = ROOT / "benches/peers"
PHYSICNET = os.environ["PHYSICNET"]
OURS = "physicnet"
# No steps end a run that the clock is to end.
ENDLESS = 1_000_000_000


class Runner:
    """Runs commands on so many cores, and tells what they took."""

    def __init__(self, threads):
        self.threads = threads
        self.cores = sorted(os.sched_getaffinity(0))[-threads:]
        if len(self.cores) < threads:
            raise SystemExit(f"--threads {threads}: this machine has {len(self.cores)} cores")
        self.environment = os.environ | {"RAYON_NUM_THREADS": str(threads), "OMP_NUM_THREADS": str(threads)}

    def __call__(self, *command, log=None):
        """Seconds of the wall's clock and of the processor."""
        before, begun = processor(), time.perf_counter()
        with open(log or os.devnull, "w") as out:
            ended = subprocess.run(
                [str(word) for word in command], stdout=out, stderr=subprocess.STDOUT if log else None,
                cwd=ROOT, env=self.environment, preexec_fn=lambda: os.sched_setaffinity(0, self.cores),
            )
        if ended.returncode:
            said = f"; it said:\n{Path(log).read_text()[-2000:]}" if log else ""
            raise SystemExit(f"{' '.join(map(str, command))} failed{said}")
        return {"wall": time.perf_counter() - begun, "cpu": processor() - before}

    def peer(self, script, *arguments, log=None):
        return self(sys.executable, "-W", "ignore", PEERS / script, *arguments, log=log)


def processor():
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def archive(told, folder, name, runner):
    """The path of an archive, made where that is what it is."""
    if isinstance(told, str):
        path = Path(os.environ.get("DATA", ROOT / "shared/data")) / told
        if not path.exists():
            raise SystemExit(f"{path} is not there; DATA names the folder of the archives")
        return path
    path = folder / f"{name}.zarr"
    if not path.exists():
        if "moving_mnist" in told:
            moving_mnist.make(path, **told["moving_mnist"])
            return path
        config = yaml.safe_load((ROOT / told["simulate"]).read_text()) | told.get("set", {})
        file = write(folder / f"{name}.yaml", config)
        runner(PHYSICNET, "simulate", file, path)
    return path


def write(path, config):
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    return path


class Protocol:
    """One archive, its split, and who is compared on it."""

    def __init__(self, name, told, args):
        self.name, self.told, self.args = name, told, args
        self.runner, self.folder = Runner(args.threads), Path(args.out).resolve() / name
        self.minutes, self.stride = args.minutes or told["minutes"], told.get("stride", 1)
        self.peers = args.peers.split(",") if args.peers else list(told["peers"])
        strange = set(self.peers) - set(told["peers"])
        if strange:
            raise SystemExit(f"--peers: {name} has {', '.join(told['peers'])}, not {', '.join(strange)}")
        self.folder.mkdir(parents=True, exist_ok=True)
        self.data = archive(told["data"], self.folder, "data", self.runner)
        self.test = archive(told["test"], self.folder, "test", self.runner) if "test" in told else self.data

    def config(self, seed, out):
        config = yaml.safe_load((ROOT / self.told["train"]).read_text()) | self.told.get("set", {})
        config |= {"data": [{"path": str(self.data)}], "out": str(out), "seed": seed}
        return config | {"threads": self.args.threads}

    def run(self, seeds):
        runs = [self.seed(seed) for seed in seeds]
        told = {"protocol": self.name, "title": self.told["title"], "minutes": self.minutes}
        told |= {"threads": self.args.threads, "clock": self.args.clock, "machine": machine(), "runs": runs}
        path = self.folder.with_suffix(".json")
        path.write_text(json.dumps(told, indent=1))
        text = table(told)
        self.folder.with_suffix(".md").write_text(text)
        print(text)

    def seed(self, seed):
        folder = self.folder / f"seed{seed}"
        folder.mkdir(exist_ok=True)
        file, config = folder / "train.yaml", self.config(seed, folder / OURS / "training")
        members = {OURS: self.member(folder, OURS, seed, {}, self.ours(file, config))}
        like = folder / OURS / "{sensor}.zarr"
        for peer in self.peers:
            settings = self.told["peers"][peer]
            cpu = members[OURS]["cpu"] if self.args.clock == "cpu" else None
            make = self.peer(file, peer, seed, settings, cpu, like)
            make = self.still(like) if peer == "lucas_kanade" else make
            members[peer] = self.member(folder, peer, seed, settings, make)
        told = {"seed": seed, "members": members, **self.score(folder, {name: folder / name for name in members})}
        if "rollout" in self.told:
            told["rollout"] = self.rolled(file, folder, members)
        return told

    def member(self, folder, name, seed, settings, make):
        """What `make` tells, which need not run again for the same budget and settings."""
        asked = {"minutes": self.minutes, "clock": self.args.clock}
        asked |= {"threads": self.args.threads, "settings": settings}
        place, kept = folder / name, folder / name / "run.json"
        if kept.exists() and (known := json.loads(kept.read_text()))["asked"] == asked:
            return known["told"]
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        print(f"{self.name}, seed {seed}: {name}", file=sys.stderr, flush=True)
        told = make(place)
        kept.write_text(json.dumps({"asked": asked, "told": told}, indent=1))
        return told

    def budget(self, config, place):
        """What ends our training: its clock, or as many steps as take that much processor time."""
        if self.args.clock == "wall":
            return {"minutes": self.minutes, "steps": ENDLESS}
        few, more = 4, 16

        def cpu(steps):
            out = {"out": str(place / f"try{steps}"), "steps": steps}
            file = write(place / f"try{steps}.yaml", config | out)
            return self.runner(PHYSICNET, "train", file, log=place / "try.log")["cpu"]

        each = (cpu(more) - cpu(few)) / (more - few)
        return {"steps": max(1, round(60 * self.minutes / each))}

    def ours(self, file, config):
        def make(place):
            write(file, config | self.budget(config, place))
            took = self.runner(PHYSICNET, "train", file, log=place / "train.log")
            training = place / "training"
            best = training / "best.safetensors"
            weights = best if best.exists() else training / "last.safetensors"
            shutil.copy(weights, place / "weights.safetensors")
            forecast = self.evaluate(place / "weights.safetensors", "--forecasts", place / "{sensor}.zarr")
            steps = (training / "metrics.csv").read_text().splitlines()[-1].split(",")[0]
            told = {"steps": int(steps), "parameters": parameters(place / "weights.safetensors")}
            return took | told | {"forecast": forecast["cpu"]}

        return make

    def peer(self, file, kind, seed, settings, cpu, like):
        def make(place):
            minutes, clock = (cpu / 60, "cpu") if cpu else (self.minutes, "wall")
            budget = ["--minutes", minutes, "--clock", clock, "--seed", seed]
            same = self.same(file, kind, settings, place)
            took = self.runner.peer("train.py", *same, *budget, log=place / "train.log")
            forecast = self.foretell(same, like, place)
            return json.loads((place / "told.json").read_text()) | took | {"forecast": forecast["cpu"]}

        return make

    def same(self, file, kind, settings, place):
        settings = ["--settings", json.dumps(settings), "--threads", self.args.threads]
        return [file, kind, "--out", place, *settings]

    def foretell(self, same, like, to, *more):
        """A trained peer's forecasts of the reference times and leads of the stores at `like`."""
        stores = ["--store", self.test, "--like", like, "--forecasts", to / "{sensor}.zarr"]
        return self.runner.peer("train.py", *same, *stores, *more, log=to / "forecast.log")

    def rolled(self, file, folder, members):
        """The scores of the first reference time's forecasts, by everyone's own leads far beyond the horizon."""
        leads, folds = self.told["rollout"], {name: folder / name / "rollout" for name in members}
        for name, place in folds.items():
            shutil.rmtree(place, ignore_errors=True)
            place.mkdir()
        alone = ["--horizon", leads, "--stride", ENDLESS]
        like = folds[OURS] / "{sensor}.zarr"
        self.evaluate(folder / OURS / "weights.safetensors", *alone, "--forecasts", like)
        for name in list(members)[1:]:
            if name == "lucas_kanade":
                self.still(like)(folds[name])
            else:
                same = self.same(file, name, self.told["peers"][name], folder / name)
                self.foretell(same, like, folds[name], "--at-most", 1)
        return self.score(folder, folds, alone)

    def still(self, like):
        def make(place):
            to = ["--store", self.test, "--like", like, "--forecasts", place / "{sensor}.zarr"]
            return {"forecast": self.runner.peer("lucas_kanade.py", *to, log=place / "forecast.log")["cpu"]}

        return make

    def evaluate(self, weights, *more):
        command = [PHYSICNET, "evaluate", "--zarr", self.test, "--checkpoint", weights, "--no-ssim"]
        command += ["--from", self.told["from"]]
        command += [] if "--stride" in more else ["--stride", self.stride]
        thresholds = ",".join(map(str, self.told.get("thresholds", [])))
        command += ["--thresholds", thresholds] if thresholds else []
        return self.runner(*command, "--workers", self.args.threads, *more)

    def score(self, folder, folds, asked=()):
        """Everybody's scores by lead, after the other scorer has said the same."""
        stores = {name: str(place / "{sensor}.zarr") for name, place in folds.items()}
        against = [f"--against={name}={store}" for name, store in stores.items() if name != OURS]
        path = folds[OURS] / "scores.json"
        self.evaluate(folder / OURS / "weights.safetensors", *asked, *against, "--json", path)
        said, stride = json.loads(path.read_text())["variables"], ENDLESS if asked else self.stride
        largest = check(said, str(self.test), stores, self.told["from"], stride)
        leads = lambda products: {name: product["leads"] for name, product in products.items()}
        scores = {variable["name"]: leads(variable["products"]) for variable in said}
        return {"scores": scores, "differs": largest}


def parameters(checkpoint):
    """How many numbers a checkpoint holds, by the shapes in its header."""
    with open(checkpoint, "rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    return sum(math.prod(tensor["shape"]) for name, tensor in header.items() if name != "__metadata__")


def machine():
    model = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return model[0].split(":", 1)[1].strip() if model else "unknown"


def main():
    told = yaml.safe_load((Path(__file__).parent / "protocols.yaml").read_text())
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("protocols", nargs="+", choices=told["protocols"], metavar="PROTOCOL")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--minutes", type=float)
    parser.add_argument("--seeds")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--peers")
    parser.add_argument("--out", default=ROOT / "out/skill")
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall")
    args = parser.parse_args()
    seeds = [int(seed) for seed in args.seeds.split(",")] if args.seeds else told["seeds"]
    if args.quick:
        args.minutes, seeds = args.minutes or 3, seeds[:1]
    for name in args.protocols:
        Protocol(name, told["protocols"][name], args).run(seeds)


if __name__ == "__main__":
    main()
