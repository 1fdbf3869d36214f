"""PhysicNet's network in PyTorch, under the weights of a checkpoint: what ours is checked and timed by.

    python3 -m venv out/peers && out/peers/bin/pip install -r benches/peers/requirements-network.txt
    out/peers/bin/python benches/peers/twin.py check CHECKPOINT CASE...   ours, PyTorch, ONNX Runtime
    out/peers/bin/python benches/peers/twin.py export CHECKPOINT FILE.onnx --size 64 64 --batch 8
    out/peers/bin/python benches/peers/twin.py train CHECKPOINT CASE FILE.safetensors --steps 100
    out/peers/bin/python benches/peers/twin.py golden tests/golden    writes them anew

Written from the network's description and not from its kernels: channels first, PyTorch's own layers,
a state_dict of the same names. The classical flow is an input, for it has no weights. A case is a
safetensors file of inputs and of our outputs, channels last, as `bench-network case` writes it; to
train on, it has the future as `target` (B, H, W, lead * C), transformed, NaN where nothing was measured.
"""

import argparse
import json
import math
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional as F

# The largest difference that counts as none, as a share of the field's range.
TOLERANCE = 1e-5
# Channels of a local latent and of the local trunk.
LOCAL, LOCAL_TRUNK = 8, 32
# What a config means where it says nothing.
DEFAULTS = {
    "boundary": "open", "history": 4, "horizon": 12, "cadence": None, "global_scale": 1, "skip": 16,
    "skips": 1, "latent": 16, "hidden": 96, "rounds": 2, "decoder": 32, "quantization": "tap",
    "codes": 256, "expert": "advection", "tendency": 0, "learned_flow": True, "gate": True,
    "residual": True, "sharp": False, "position": False, "local": False, "local_view": 0,
    "serve": "mean", "ramp": [0.0, 0.0],
}


class Config:
    """The config of a checkpoint; what it names and this file does not know is refused."""

    def __init__(self, told):
        unknown = set(told) - set(DEFAULTS) - {"variables"}
        if unknown:
            raise SystemExit(f"the twin does not know {', '.join(sorted(unknown))}")
        self.__dict__.update(DEFAULTS | told)
        self.channels = len(self.variables)
        self.stride = 4 * self.global_scale
        self.learns = self.learned_flow or self.gate or self.residual or self.sharp or self.local
        self.encodes = self.learns or self.quantization != "none"
        self.periodic = self.boundary == "periodic"


class Conv(nn.Module):
    def __init__(self, config, cin, cout, k):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(cout, cin, k, k))
        self.bias = nn.Parameter(torch.zeros(cout))
        self.pad = k // 2
        self.mode = "circular" if config.periodic else "replicate"

    def forward(self, x):
        if self.pad:
            x = F.pad(x, (self.pad,) * 4, mode=self.mode)
        return F.conv2d(x, self.weight, self.bias)


class Block(nn.Module):
    def __init__(self, config, width):
        super().__init__()
        self.inner = Conv(config, width, width, 3)
        self.outer = Conv(config, width, width, 3)

    def forward(self, x):
        return x + self.outer(F.relu(self.inner(x)))


def upsample(config, x, r):
    """Bilinear, half-pixel centres; a periodic domain goes on past its border."""
    if r == 1:
        return x
    if config.periodic:
        x = F.pad(x, (1, 1, 1, 1), mode="circular")
    x = F.interpolate(x, scale_factor=r, mode="bilinear", align_corners=False)
    return x[:, :, r:-r, r:-r] if config.periodic else x


def pool(x, r):
    return x if r == 1 else F.avg_pool2d(x, r)


def warp(config, image, displacement):
    """The image (B, C, H, W) at each pixel plus each displacement (B, L * (dx, dy), H, W): (B, L * C, H, W)."""
    b, c, h, w = image.shape
    dx, dy = displacement[:, 0::2], displacement[:, 1::2]
    leads = dx.shape[1]
    x = torch.arange(w, dtype=image.dtype, device=image.device) + dx
    y = torch.arange(h, dtype=image.dtype, device=image.device)[:, None] + dy
    if config.periodic:
        x, y = x - w * torch.floor(x / w), y - h * torch.floor(y / h)
        image = F.pad(image, (0, 1, 0, 1), mode="circular")
    last_x, last_y = image.shape[3] - 1, image.shape[2] - 1
    grid = torch.stack([x * (2 / last_x) - 1, y * (2 / last_y) - 1], dim=4)
    # The leads below one another: one call for all.
    grid = grid.reshape(b, leads * h, w, 2)
    out = F.grid_sample(image, grid, mode="bilinear", padding_mode="border", align_corners=True)
    return out.reshape(b, c, leads, h, w).transpose(1, 2).reshape(b, leads * c, h, w)


def per_lead(config, weight, fields):
    return weight.repeat_interleave(config.channels, dim=1) * fields


class Encoder(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.config = config
        folded, wide = 8 * config.channels, 2 * config.latent
        self.stem = Conv(config, folded, config.skip, 3)
        self.down = Conv(config, 4 * config.skip, wide, 1)
        self.inner = Conv(config, wide, wide, 3)
        self.outer = Conv(config, wide, wide, 3)
        self.project = Conv(config, wide, config.latent, 1)
        if config.local:
            self.local_stem = Conv(config, folded, LOCAL, 3)
            self.local_project = Conv(config, LOCAL, LOCAL, 1)

    def forward(self, frames):
        seen = pool(frames, self.config.global_scale)
        skip = F.relu(self.stem(F.pixel_unshuffle(seen, 2)))
        wide = self.down(F.pixel_unshuffle(skip, 2))
        wide = wide + self.outer(F.relu(self.inner(wide)))
        latent = self.project(F.relu(wide))
        local = None
        if self.config.local:
            local = self.local_project(F.relu(self.local_stem(F.pixel_unshuffle(frames, 2))))
        return latent, skip, local


class Codebook(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.codebook = nn.Parameter(torch.zeros(config.codes, config.latent))

    def codes(self, latent):
        """The nearest entry of each latent (B, latent, h, w), as (B, h, w)."""
        score = F.conv2d(latent, self.codebook[:, :, None, None], -0.5 * self.codebook.square().sum(1))
        return score.argmax(1)

    def prior(self, latent):
        return self.codebook[self.codes(latent)].permute(0, 3, 1, 2)


class Tendency(Conv):
    """A 1 x 1 convolution of how the field changed on its way here."""

    def __init__(self, config):
        steps = config.tendency * config.channels
        super().__init__(config, steps, config.horizon * config.channels, 1)
        self.config = config

    def change(self, newest, past, prior, displacement):
        config = self.config
        moves = config.expert == "advection"
        terms = []
        for step, before in enumerate(past):
            lead = prior[:, 2 * step : 2 * step + 2]
            terms.append(newest - (warp(config, before, lead) if moves else before))
        change = self(torch.cat(terms, 1))
        if not moves:
            return change
        parts = zip(change.split(config.channels, 1), displacement.split(2, 1), strict=True)
        return torch.cat([warp(config, part, lead) for part, lead in parts], 1)


class Experts(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.config = config
        hidden = config.hidden
        if config.learns:
            known = config.history * config.latent + (4 if config.position else 0) + 2
            self.mix = Conv(config, known, hidden, 1)
            for at in range(config.rounds):
                self.add_module(f"block{at}", Block(config, hidden))
        if config.learned_flow:
            self.flow = Conv(config, hidden, 2 * config.horizon, 1)
        if config.tendency:
            self.tendency = Tendency(config)

    def prior(self, flow):
        """The path of every lead along the flow, by the midpoint rule with one correction a step."""
        at, step, all_leads = torch.zeros_like(flow), flow, []
        for _ in range(self.config.horizon):
            step = warp(self.config, flow, at + 0.5 * step)
            at = at + step
            all_leads.append(at)
        return torch.cat(all_leads, 1)

    def chosen(self, newest, prior):
        if self.config.expert == "persistence":
            return newest.repeat(1, self.config.horizon, 1, 1)
        return warp(self.config, newest, prior)

    def forward(self, latents, newest, past, flow, prior):
        """The trunk, the correction, the displacement, what it carries, and how that changes."""
        config, trunk, correction = self.config, None, None
        displacement = torch.zeros_like(prior) if config.expert == "persistence" else prior
        if config.learns:
            trunk = self.mix(torch.cat([*self.known(latents), pool(flow, config.stride) / config.stride], 1))
            for at in range(config.rounds):
                trunk = getattr(self, f"block{at}")(trunk)
            trunk = F.relu(trunk)
        if config.learned_flow:
            correction = self.flow(trunk) * config.stride
            displacement = displacement + upsample(config, correction, config.stride)
            warped = warp(config, newest, displacement)
        else:
            warped = self.chosen(newest, prior)
        tendency = None
        if config.tendency:
            tendency = self.tendency.change(newest, past, prior, displacement)
        return trunk, correction, displacement, warped, tendency

    def known(self, latents):
        """The latents of the window side by side, and where each cell lies."""
        yield latents.flatten(1, 2)
        if self.config.position:
            b, (h, w) = latents.shape[0], latents.shape[3:]
            cells = lambda n: torch.arange(n, dtype=latents.dtype, device=latents.device) + 0.5
            x, y = (math.tau * cells(n) / n for n in (w, h))
            x, y = x.expand(h, w), y[:, None].expand(h, w)
            yield torch.stack([x.sin(), x.cos(), y.sin(), y.cos()]).expand(b, 4, h, w)


class Local(nn.Module):
    """Refines the global forecast at full resolution."""

    def __init__(self, config):
        super().__init__()
        self.config = config
        fields = 4 * config.horizon * config.channels
        self.mix = Conv(config, config.history * LOCAL + config.decoder + fields, LOCAL_TRUNK, 1)
        self.block0, self.block1 = Block(config, LOCAL_TRUNK), Block(config, LOCAL_TRUNK)
        self.flow = Conv(config, LOCAL_TRUNK, 2 * config.horizon, 1)
        self.residual = Conv(config, LOCAL_TRUNK, fields, 3)
        self.blend = Conv(config, LOCAL_TRUNK, config.horizon, 1)

    def forward(self, latents, features, newest, displacement, warped, forecast):
        config = self.config
        features = upsample(config, features, config.global_scale)
        x = self.mix(torch.cat([latents.flatten(1, 2), features, F.pixel_unshuffle(forecast, 2)], 1))
        x = F.relu(self.block1(self.block0(x)))
        finer = displacement + upsample(config, 2 * self.flow(x), 2)
        moved = warp(config, newest, finer) - warped
        residual = F.pixel_shuffle(self.residual(x), 2)
        blend = 2 * upsample(config, self.blend(x).sigmoid(), 2)
        return forecast + per_lead(config, blend, residual + moved)


class Sharp(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.residual = Conv(config, config.decoder, 4 * config.horizon * config.channels, 3)
        self.share = Conv(config, config.hidden, config.horizon, 1)


class Fusion(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.config = config
        hidden, decoder, fields = config.hidden, config.decoder, 4 * config.horizon * config.channels
        if config.residual:
            self.widen = Conv(config, hidden, 4 * decoder, 1)
            self.mix = Conv(config, decoder + config.skips * config.skip + fields, decoder, 3)
            self.residual = Conv(config, decoder, fields, 3)
        if config.gate:
            self.gate = Conv(config, hidden, config.horizon, 1)
        if config.sharp:
            self.sharp = Sharp(config)
        if config.local:
            self.local = Local(config)

    def to_pixels(self, folded):
        return upsample(self.config, F.pixel_shuffle(folded, 2), self.config.global_scale)

    def forward(self, trunk, field, skips, newest, displacement, warped, locals_):
        """The mean head, the same before the local level, and the sharp head."""
        config = self.config
        if not config.learns:
            return field, None, None
        if config.residual:
            wide = F.pixel_shuffle(F.relu(self.widen(trunk)), 2)
            seen = F.pixel_unshuffle(pool(field, config.global_scale), 2)
            features = F.relu(self.mix(torch.cat([wide, skips, seen], 1)))
        mean, alone, sharp = field, None, None
        if config.gate:
            gate = upsample(config, 2 * self.gate(trunk).sigmoid(), config.stride)
            mean = per_lead(config, gate, field)
        if config.residual:
            mean = mean + self.to_pixels(self.residual(features))
        if config.local:
            alone = mean
            mean = self.local(locals_, features, newest, displacement, warped, mean)
        if config.sharp:
            share = upsample(config, self.sharp.share(trunk).sigmoid(), config.stride)
            sharp = mean + per_lead(config, share, field - mean)
            sharp = sharp + self.to_pixels(self.sharp.residual(features))
        return mean, alone, sharp


def recall(config, latents, mask):
    """Latents (B, T, depth, h, w), where a frame or a neighbour cell misses what another frame of the window
    measured, from the nearest frame of which that is not so, the later of two."""
    b, frames = latents.shape[:2]
    lost = (mask.amax(1, keepdim=True) - mask).amax(2)
    lost = F.max_pool2d(lost.flatten(0, 1)[:, None], config.stride)
    lost = F.pad(lost, (1, 1, 1, 1), mode="circular" if config.periodic else "replicate")
    unsure = (F.max_pool2d(lost, 3, 1) > 0).unflatten(0, (b, frames))
    recalled = []
    for t in range(frames):
        taken, done = latents[:, t], ~unsure[:, t]
        for s in sorted(range(frames), key=lambda s: (abs(s - t), -s)):
            taken = torch.where(done | unsure[:, s], taken, latents[:, s])
            done = done | ~unsure[:, s]
        recalled.append(taken)
    return torch.stack(recalled, 1)


class Twin(nn.Module):
    """Frames (B, T, C, H, W), transformed and filled, their mask, the flow (B, 2, H, W): all outputs by name."""

    def __init__(self, config):
        super().__init__()
        self.config = config
        # Not where speed is compared: of whole frames there is nothing to recall.
        self.recalls = True
        if config.encodes:
            self.encoding = Encoder(config)
        if config.quantization != "none":
            self.quantization = Codebook(config)
        self.experts = Experts(config)
        self.fusion = Fusion(config)

    @classmethod
    def load(cls, path):
        with safe_open(path, "pt") as file:
            config = Config(json.loads(file.metadata()["physicnet"])["config"])
        twin = cls(config)
        # It copies into parameters that are float: weights of half the bits are cast.
        twin.load_state_dict(load_file(path))
        return twin.eval().requires_grad_(False)

    def forward(self, frames, mask, flow):
        latents = skips = locals_ = None
        if self.config.encodes:
            latents, skips, locals_ = self.encode(frames, mask)
            own = latents[:, -1]
            if self.recalls:
                latents = recall(self.config, latents, mask)
        outputs = self.forecast(frames, flow, latents, skips, locals_)
        # What a frame itself says has a code, not what it recalls.
        return outputs | {"latent": own} if self.config.encodes else outputs

    def encode(self, frames, mask):
        """The latents, skips and local latents (B, T, depth, h, w) of each frame by itself."""
        size = frames.shape[:2]
        # What was filled in is not what a frame says.
        features = self.encoding(torch.cat([frames * mask, mask], 2).flatten(0, 1))
        latents, skips, locals_ = (f if f is None else f.unflatten(0, size) for f in features)
        if self.config.quantization == "hard":
            latents = self.quantization.prior(latents.flatten(0, 1)).unflatten(0, size)
        return latents, skips, locals_

    def forecast(self, frames, flow, latents, skips, locals_):
        """All outputs by name, from what is known of the window's frames."""
        config, newest = self.config, frames[:, -1]
        past = [frames[:, -2 - step] for step in range(config.tendency)]
        prior = self.experts.prior(flow)
        trunk, correction, displacement, warped, tendency = self.experts(latents, newest, past, flow, prior)
        field = warped if tendency is None else warped + tendency
        if config.encodes:
            skips = skips[:, skips.shape[1] - config.skips :].flatten(1, 2)
        mean, alone, sharp = self.fusion(trunk, field, skips, newest, displacement, warped, locals_)
        outputs = {
            "mean": mean, "global": alone, "sharp": sharp, "warped": warped, "correction": correction,
            "latent": latents[:, -1] if config.encodes else None,
        }
        return {name: value for name, value in outputs.items() if value is not None}


class Some(nn.Module):
    """The twin with some of its outputs, in this order: what is exported."""

    def __init__(self, twin, names):
        super().__init__()
        self.twin, self.names = twin, names

    def forward(self, frames, mask, flow):
        outputs = self.twin(frames, mask, flow)
        return tuple(outputs[name] for name in self.names)


def export(twin, path, size, batch=1, names=None):
    """Writes the network as ONNX for frames of one size; without `names`, the served head alone."""
    names = names or [twin.config.serve]
    frames = torch.zeros(batch, twin.config.history, twin.config.channels, *size)
    inputs = (frames, torch.ones_like(frames), torch.zeros(batch, 2, *size))
    torch.onnx.export(
        Some(twin, names).eval(), inputs, str(path), opset_version=20, dynamo=True, external_data=False,
        input_names=["frames", "mask", "flow"], output_names=names, verbose=False,
    )


def session(path, threads=0):
    """ONNX Runtime over an export; 0 threads are all cores."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def channels_first(tensor):
    """(..., H, W, C) to (..., C, H, W)."""
    return tensor.movedim(-1, -3).contiguous()


def difference(a, b):
    """The largest difference as a share of the field's range."""
    return float((a - b).abs().max() / (b.max() - b.min()).clamp_min(1e-12))


def check(args):
    """Ours must be what the network is, in double precision, but for `TOLERANCE`. PyTorch itself is
    further from that on large frames: `grid_sample` takes coordinates as shares of the frame, and
    every step along the flow rounds them there and back."""
    twin = Twin.load(args.checkpoint)
    names, wrong = ("frames", "mask", "flow"), []
    print(f"PyTorch {torch.__version__}: the largest difference as a share of the field's range")
    columns = ("ours-PyTorch", "ours-ONNX", "ours-exact", "PyTorch-exact", "ONNX-exact")
    print(f"{'case':16} {'output':10} " + " ".join(f"{column:>13}" for column in columns))
    for path in args.cases:
        case = load_file(path)
        inputs = [channels_first(case[name]) for name in names]
        with torch.inference_mode():
            outputs = twin(*inputs)
            exact = twin.double()(*(value.double() for value in inputs))
            twin.float()
        lonely = set(outputs) ^ (set(case) - {*names, "codes", "target"})
        if lonely:
            raise SystemExit(f"{path}: only one side says {', '.join(sorted(lonely))}")
        with tempfile.NamedTemporaryFile(suffix=".onnx") as file:
            export(twin, file.name, inputs[0].shape[-2:], len(inputs[0]), list(outputs))
            fed = {name: value.numpy() for name, value in zip(names, inputs, strict=True)}
            run = session(file.name).run(list(outputs), fed)
        for (name, torchs), onnx in zip(outputs.items(), run, strict=True):
            ours, onnx = channels_first(case[name]), torch.from_numpy(onnx)
            own, torchs_own, onnx_own = (difference(x, exact[name]) for x in (ours, torchs, onnx))
            told = (difference(torchs, ours), difference(onnx, ours), own, torchs_own, onnx_own)
            print(f"{Path(path).name:16} {name:10} " + " ".join(f"{value:13.2e}" for value in told))
            if own > TOLERANCE or onnx_own > max(TOLERANCE, 2 * torchs_own):
                wrong.append(f"{path}: {name}")
        if "codes" in case:
            other = twin.quantization.codes(outputs["latent"]) != case["codes"].long()
            print(f"{Path(path).name:16} codes that differ: {int(other.sum())} of {other.numel()}")
            # Two entries may be as near as rounding tells.
            if other.float().mean() > 1e-3:
                wrong.append(f"{path}: codes")
    if wrong:
        raise SystemExit(f"they differ: {', '.join(wrong)}")


def lower(twin, inputs, target, steps, rate):
    """Trains the twin to say `target`; the mean absolute error of each step."""
    optimiser = torch.optim.AdamW(twin.requires_grad_(True).parameters(), lr=rate)
    losses, known = [], target.isfinite()
    for _ in range(steps):
        loss = (twin(*inputs)["mean"] - target)[known].abs().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    twin.requires_grad_(False)
    return losses


def save(twin, path, told, provenance):
    """A checkpoint that PhysicNet loads: the state_dict, and what it is made of."""
    physicnet = json.dumps({"config": told, "provenance": provenance})
    save_file(twin.state_dict(), path, {"format": "pt", "physicnet": physicnet})


def train(args):
    twin, case = Twin.load(args.checkpoint), load_file(args.case)
    inputs = [channels_first(case[name]) for name in ("frames", "mask", "flow")]
    losses = lower(twin, inputs, channels_first(case["target"]), args.steps, args.learning_rate)
    with safe_open(args.checkpoint, framework="pt") as file:
        known = json.loads(file.metadata()["physicnet"])
    provenance = known["provenance"]
    provenance |= {"steps": provenance["steps"] + args.steps, "validation": {}}
    save(twin, args.path, known["config"], provenance)
    print(f"mean absolute error {losses[0]:.6f} before, {losses[-1]:.6f} at the last of {args.steps} steps")


def golden(args):
    """Small networks of every part, random, and what PyTorch makes of them."""
    small = {"hidden": 8, "decoder": 4, "skip": 4, "latent": 4, "codes": 8, "rounds": 1, "horizon": 2}
    networks = {
        "plain": ({"boundary": "periodic", "position": True, "history": 3, "rounds": 2}, 1),
        "full": (
            {"history": 2, "skips": 2, "tendency": 1, "sharp": True, "local": True,
             "global_scale": 2, "quantization": "hard", "serve": "sharp"},
            2,
        ),
        "persistent": ({"expert": "persistence", "learned_flow": False, "tendency": 1, "history": 2}, 1),
        "holed": ({"history": 3}, 2),
    }
    folder = Path(args.folder)
    folder.mkdir(parents=True, exist_ok=True)
    for seed, (name, (parts, channels)) in enumerate(networks.items()):
        transform = {"kind": "identity"}
        variables = [{"name": f"v{c}", "units": "", "transform": transform} for c in range(channels)]
        told = small | parts | {"variables": variables}
        twin = Twin(Config(told)).requires_grad_(False)
        random = np.random.default_rng(seed)
        draw = lambda *shape: torch.from_numpy(random.standard_normal(shape, "f4"))
        for weight in twin.parameters():
            weight.copy_(draw(*weight.shape) / max(1, weight[0].numel()) ** 0.5)
        provenance = {"version": "twin", "data": [], "grid": [16, 16], "steps": 0, "seed": seed, "validation": {}}
        save(twin, folder / f"{name}.safetensors", told, provenance)

        shape = (3 - channels, twin.config.history, channels, 16, 16)
        mask = torch.from_numpy((random.random(shape) > 0.1).astype("f4"))
        if name == "holed":
            # Measured but for a block that one frame lacks, and a corner that none has.
            mask[:] = 1
            mask[:, 1, :, 5:11, 2:7] = 0
            mask[:, :, :, 14:, 14:] = 0
        # Smooth, as flows are: along noise, paths part by as much as rounding moved them apart.
        flow = F.interpolate(2 * draw(shape[0], 2, 4, 4), scale_factor=4, mode="bilinear")
        inputs = {"frames": draw(*shape), "mask": mask, "flow": flow}
        write_case(twin, inputs, folder / f"{name}.case.safetensors")
        if name == "plain":
            # The same network after a little training, in PyTorch: that the newest frame stays.
            target = inputs["frames"][:, -1].repeat(1, twin.config.horizon, 1, 1)
            losses = lower(twin, inputs.values(), target, 20, 1e-3)
            assert losses[-1] < losses[0]
            save(twin, folder / "trained.safetensors", told, provenance | {"steps": 20})
            write_case(twin, inputs, folder / "trained.case.safetensors")


def write_case(twin, inputs, path):
    case = inputs | twin(**inputs)
    codes = twin.quantization.codes(case["latent"]).to(torch.uint32)
    case = {key: value.movedim(-3, -1).contiguous() for key, value in case.items()}
    save_file(case | {"codes": codes}, path)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(required=True)
    checks = commands.add_parser("check", help="compares ours, PyTorch and ONNX Runtime on cases")
    checks.add_argument("checkpoint")
    checks.add_argument("cases", nargs="+")
    checks.set_defaults(run=check)
    trains = commands.add_parser("train", help="trains the weights of a checkpoint on a case, in PyTorch")
    trains.add_argument("checkpoint")
    trains.add_argument("case")
    trains.add_argument("path")
    trains.add_argument("--steps", type=int, default=100)
    trains.add_argument("--learning-rate", type=float, default=1e-3)
    trains.set_defaults(run=train)
    exports = commands.add_parser("export", help="writes the network as ONNX")
    exports.add_argument("checkpoint")
    exports.add_argument("path")
    exports.add_argument("--size", type=int, nargs=2, required=True)
    exports.add_argument("--batch", type=int, default=1)
    exports.set_defaults(run=lambda a: export(Twin.load(a.checkpoint), a.path, a.size, a.batch))
    goldens = commands.add_parser("golden", help="writes the golden networks and their outputs anew")
    goldens.add_argument("folder")
    goldens.set_defaults(run=golden)
    args = parser.parse_args()
    args.run(args)


if __name__ == "__main__":
    sys.exit(main())
