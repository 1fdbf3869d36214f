"""A peer in PyTorch: trained by a training file of `physicnet train`, for so many minutes.

    python train.py train.yaml unet --minutes 5 --out out/unet
    python train.py train.yaml unet --out out/unet --store test.zarr --like 'out/ours/{sensor}.zarr' \\
        --forecasts 'out/unet/{sensor}.zarr'

Trained on the windows, crops and symmetries that the file gives to PhysicNet, with its error, its physical
part and its weights of leads, its clipping and averaged weights; a linear rise and a cosine along the clock.
With `--like` it forecasts the reference times of another's stores and writes stores of their layout; where
these have more leads than its horizon, it goes on from its own.
"""

import argparse
import copy
import json
import math
import time
from pathlib import Path

import numpy as np
import torch
import xarray
import yaml
from nets import NETS, Peer, Shape
from stores import sensors, write
from windows import Store, Windows, inputs


class Loss:
    """`mae` or `mse` of transformed values, and squared error in the units of the data."""

    def __init__(self, told, windows):
        self.squared = told.get("error", "mae") == "mse"
        self.physical = told.get("physical", 0.0)
        self.windows = windows
        self.leads, self.variance = torch.ones(windows.horizon), 1.0
        if told.get("weigh_leads") or self.physical:
            self.measure(told.get("weigh_leads"))

    def measure(self, weigh):
        """What persistence leaves on some training windows, by lead, and in the units of the data."""
        windows, random = self.windows, np.random.default_rng(0)
        window = windows.draw(random, 24)
        history, target = window[:, : windows.history], window[:, windows.history :]
        newest = inputs(history, False)[1][:, None]
        known = torch.isfinite(target)
        off = torch.where(known, target - newest, 0.0) ** 2
        self.variance = self.units(newest, target, known).sum() / known.sum()
        if weigh:
            errors = off.sum((0, 2, 3, 4))
            raw = 1 / (errors / errors.mean() + 0.2)
            self.leads = raw * errors.sum() / (errors * raw).sum()

    def units(self, told, target, known):
        inverse, target = self.windows.inverse, torch.nan_to_num(target, nan=0.0)
        return torch.where(known, inverse(told) - inverse(target), 0.0) ** 2

    def __call__(self, told, target):
        known = torch.isfinite(target)
        weight, count = self.leads[:, None, None, None], known.sum().clamp_min(1)
        off = torch.where(known, told - torch.nan_to_num(target, nan=0.0), 0.0)
        off = (off**2 if self.squared else off.abs()) * weight
        loss = off.sum() / count
        if self.physical:
            units = self.units(told, target, known) * weight
            loss = loss + self.physical * units.sum() / (count * self.variance)
        return loss


class Clock:
    """How much of a budget is used: of the wall's clock, or of the processor's."""

    def __init__(self, kind, minutes):
        self.now = time.process_time if kind == "cpu" else time.perf_counter
        self.begun, self.seconds = self.now(), 60 * minutes

    def done(self):
        return (self.now() - self.begun) / self.seconds


def rate(done, peak, warm_up):
    if done < warm_up:
        return peak * done / warm_up
    return peak * 0.5 * (1 + math.cos(math.pi * (done - warm_up) / (1 - warm_up)))


class Training:
    def __init__(self, config, kind, settings, seed):
        torch.manual_seed(seed)
        self.config, self.random = config, np.random.default_rng(seed)
        self.settings = dict(settings)
        self.crop, self.batch = settings.get("crop"), settings.get("batch", config.get("batch", 4))
        self.peak = settings.get("learning_rate", config.get("learning_rate", 1.5e-3))
        told = config.get("loss", {}) | settings.get("loss", {})
        self.windows = windows = Windows(config)
        self.position = config["model"].get("position", False)
        self.net = Peer(kind, shape(config, len(windows.store.names)), **settings.get("sizes", {}))
        self.average = copy.deepcopy(self.net).requires_grad_(False)
        decay = config.get("weight_decay", 1e-4)
        self.optimiser = torch.optim.AdamW(self.net.parameters(), self.peak, (0.9, 0.98), weight_decay=decay)
        self.loss = Loss(told, windows)

    def run(self, clock, path):
        best, steps, began = (math.inf, None), 0, time.perf_counter()
        every, ema = self.config.get("validate_every", 200), self.config.get("ema", 0.995)
        while (done := clock.done()) < 1:
            self.step(rate(done, self.peak, self.config.get("warm_up", 0.05)))
            steps += 1
            kept = min(ema, (1 + steps) / (10 + steps))
            with torch.no_grad():
                for mean, now in zip(self.average.parameters(), self.net.parameters()):
                    mean.lerp_(now, 1 - kept)
            if steps % every == 0:
                best = self.validate(best, path, steps)
        best = self.validate(best, path, steps)
        if not self.windows.validation:
            torch.save(self.average.state_dict(), path)
        told = {"steps": steps, "wall": time.perf_counter() - began, "batch": self.batch}
        told |= {"parameters": sum(p.numel() for p in self.net.parameters()), "settings": self.settings}
        return told | ({"validation": best[0], "best": best[1]} if best[1] else {})

    def predict(self, net, window):
        seen, newest, _ = inputs(window[:, : self.windows.history], self.position)
        return net(seen, newest), window[:, self.windows.history :]

    def step(self, rate):
        window = self.windows.draw(self.random, self.batch, self.crop)
        loss = self.loss(*self.predict(self.net, window))
        self.optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.net.parameters(), self.config.get("clip", 1.0))
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self.optimiser.step()

    def validate(self, best, path, steps):
        """Keeps the averaged weights if they have the least absolute error so far."""
        places = self.windows.validation
        if not places:
            return best
        off, squares, count = 0.0, 0.0, 0
        for place in places[:: math.ceil(len(places) / self.config.get("validate_windows", 32))]:
            with torch.inference_mode():
                window = torch.from_numpy(self.windows.window(place)[None])
                told, target = self.predict(self.average, window)
                known = torch.isfinite(target)
                off += (told - target)[known].abs().sum().item()
                squares += self.loss.units(told, target, known).sum().item()
                count += known.sum().item()
        told = f"mae {off / count:.5f}, mse in units {squares / count:.5f}"
        print(f"step {steps}: validation {told}", flush=True)
        if off / count < best[0]:
            torch.save(self.average.state_dict(), path)
            return off / count, steps
        return best


def shape(config, channels):
    model = config["model"]
    extra, periodic = 4 * model.get("position", False), model.get("boundary") == "periodic"
    return Shape(model["history"], model["horizon"], channels, extra, periodic)


def forecast(config, net, transforms, store, like, at_most, out):
    """Forecasts of the reference times of the stores at `like`, `at_most` of each, into stores of their layout."""
    test = Store(store, [name for name, _ in transforms])
    history, position = config["model"]["history"], config["model"].get("position", False)
    horizon = config["model"]["horizon"]
    at = {moment: index for index, moment in enumerate(test.times)}
    for sample, sensor in enumerate(sensors(store, len(test.frames))):
        theirs = xarray.open_zarr(like.replace("{sensor}", sensor), decode_timedelta=True)
        theirs = theirs.isel(time=slice(at_most))
        leads = theirs.sizes["prediction_timedelta"]
        fields = []
        for moment in theirs["time"].values:
            newest = at[moment]
            frames = test.frames[sample, newest + 1 - history : newest + 1]
            frames = np.stack([t.forward(frames[:, c]) for c, (_, t) in enumerate(transforms)], axis=1)
            window, told = torch.from_numpy(frames)[None].float(), []
            ever = inputs(window, position)[2]
            for _ in range(math.ceil(leads / horizon)):
                with torch.inference_mode():
                    told.append(net(*inputs(window, position)[:2]))
                window = torch.cat([window, told[-1]], 1)[:, -history:]
            told = torch.cat(told, 1)[0, :leads]
            told = torch.stack([t.inverse(told[:, c]) for c, (_, t) in enumerate(transforms)], 1)
            fields.append(torch.where(ever, told, torch.nan).numpy())
        write(theirs, test.names, np.stack(fields), out.replace("{sensor}", sensor))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", help="of `physicnet train`")
    parser.add_argument("kind", choices=NETS)
    parser.add_argument("--out", required=True, help="the folder for the weights and what is told of them")
    parser.add_argument("--minutes", type=float, help="trains for so long; without it, only forecasts")
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--settings", default="{}", help="crop, batch, learning_rate, loss, sizes, as YAML")
    parser.add_argument("--store", help="what to forecast")
    parser.add_argument("--like", help="stores whose reference times to forecast")
    parser.add_argument("--at-most", type=int, help="so many of these times, the first; by default all")
    parser.add_argument("--forecasts", help="the stores to write")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    config = yaml.safe_load(Path(args.file).read_text())
    settings, out = yaml.safe_load(args.settings), Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    if args.minutes:
        training = Training(config, args.kind, settings, args.seed)
        told = training.run(Clock(args.clock, args.minutes), out / "weights.pt")
        (out / "told.json").write_text(json.dumps(told, indent=1))
    if args.like:
        windows = Windows(config)
        transforms = list(zip(windows.store.names, windows.transforms))
        net = Peer(args.kind, shape(config, len(transforms)), **settings.get("sizes", {}))
        net.load_state_dict(torch.load(out / "weights.pt", weights_only=True))
        forecast(config, net.eval(), transforms, args.store, args.like, args.at_most, args.forecasts)


if __name__ == "__main__":
    main()
