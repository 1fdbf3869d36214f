"""The peers' networks, in their usual form and of a size that a budget of minutes on cores can train.

Each takes what it sees (window, channels, y, x) and gives all leads at once (window, leads * channels,
y, x), as a change from the newest frame: the last layer begins at zero, so training begins at persistence.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn


def conv(a, b, size, periodic, **more):
    mode = "circular" if periodic else "zeros"
    return nn.Conv2d(a, b, size, padding=more.pop("padding", size // 2), padding_mode=mode, **more)


def ends_at_zero(layer):
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


class Twice(nn.Sequential):
    def __init__(self, a, b, periodic):
        layers = [conv(a, b, 3, periodic), nn.GroupNorm(4, b), nn.SiLU(), conv(b, b, 3, periodic), nn.SiLU()]
        super().__init__(*layers)


class UNet(nn.Module):
    """Ronneberger et al. 2015, with group norms; four resolutions."""

    multiple = 8

    def __init__(self, shape, width=24):
        super().__init__()
        widths = [width, 2 * width, 4 * width, 4 * width]
        block = lambda a, b: Twice(a, b, shape.periodic)
        self.down = nn.ModuleList(map(block, [shape.seen, *widths], widths))
        self.up = nn.ModuleList(block(a + b, b) for a, b in zip(widths[:0:-1], widths[-2::-1]))
        self.out = ends_at_zero(nn.Conv2d(width, shape.told, 1))

    def forward(self, x):
        levels = []
        for at, block in enumerate(self.down):
            x = block(x if at == 0 else F.avg_pool2d(x, 2))
            levels.append(x)
        levels.pop()
        for block in self.up:
            x = F.interpolate(x, scale_factor=2, mode="bilinear")
            x = block(torch.cat([x, levels.pop()], 1))
        return self.out(x)


@dataclass(frozen=True)
class Shape:
    """What goes in and out: values and masks of each frame, and what is not of a frame."""

    frames: int
    leads: int
    channels: int
    extra: int
    periodic: bool

    @property
    def seen(self):
        return 2 * self.frames * self.channels + self.extra

    @property
    def told(self):
        return self.leads * self.channels

    @property
    def each(self):
        return 2 * self.channels + self.extra

    def per_frame(self, x):
        """(window, frame, each, y, x)."""
        frames, extra = x[:, : self.seen - self.extra], x[:, self.seen - self.extra :]
        frames = frames.unflatten(1, (2, self.frames, self.channels)).transpose(1, 2).flatten(2, 3)
        return torch.cat([frames, extra[:, None].expand(-1, self.frames, -1, -1, -1)], 2)


class ConvLSTMCell(nn.Module):
    def __init__(self, a, b, periodic):
        super().__init__()
        self.gates = conv(a + b, 4 * b, 3, periodic)

    def forward(self, x, state):
        h, c = state
        i, f, o, g = self.gates(torch.cat([x, h], 1)).chunk(4, 1)
        c = (f + 1).sigmoid() * c + i.sigmoid() * g.tanh()
        h = o.sigmoid() * c.tanh()
        return h, (h, c)


class ConvLSTM(nn.Module):
    """Shi et al. 2015: two layers that read the history, and two that go on from their state; on
    patches of four by four pixels, as there."""

    multiple = 4

    def __init__(self, shape, width=48):
        super().__init__()
        self.shape, self.width = shape, width
        self.into = nn.Conv2d(16 * shape.each, width, 1)
        cell = lambda _: ConvLSTMCell(width, width, shape.periodic)
        self.read, self.go_on = nn.ModuleList(map(cell, range(2))), nn.ModuleList(map(cell, range(2)))
        self.out = ends_at_zero(nn.Conv2d(width, 16 * shape.channels, 1))

    def forward(self, x):
        x = F.pixel_unshuffle(self.shape.per_frame(x), 4)
        b, _, _, h, w = x.shape
        zero = x.new_zeros(b, self.width, h, w)
        states = [(zero, zero)] * 2
        for frame in x.unbind(1):
            y = F.silu(self.into(frame))
            for at, cell in enumerate(self.read):
                y, states[at] = cell(y, states[at])
        told = []
        for _ in range(self.shape.leads):
            for at, cell in enumerate(self.go_on):
                y, states[at] = cell(y, states[at])
            told.append(self.out(y))
        return F.pixel_shuffle(torch.stack(told, 1), 4).flatten(1, 2)


class GatedAttention(nn.Module):
    """SimVP's gSTA: a large kernel, taken apart, as a gate; then mixing along channels."""

    def __init__(self, width, periodic):
        super().__init__()
        self.norms = nn.ModuleList(nn.GroupNorm(1, width) for _ in range(2))
        self.enter, self.leave = nn.Conv2d(width, width, 1), nn.Conv2d(width, width, 1)
        self.near = conv(width, width, 5, periodic, groups=width)
        self.far = conv(width, width, 7, periodic, groups=width, padding=9, dilation=3)
        self.gate = nn.Conv2d(width, 2 * width, 1)
        self.mix = nn.Sequential(nn.Conv2d(width, 2 * width, 1), nn.GELU(), nn.Conv2d(2 * width, width, 1))
        self.scales = nn.ParameterList(torch.full((width, 1, 1), 0.1) for _ in range(2))

    def forward(self, x):
        y = F.gelu(self.enter(self.norms[0](x)))
        value, gate = self.gate(self.far(self.near(y))).chunk(2, 1)
        x = x + self.scales[0] * self.leave(value * gate.sigmoid())
        return x + self.scales[1] * self.mix(self.norms[1](x))


class SimVP(nn.Module):
    """Gao et al. 2022 with gSTA (Tan et al. 2022): frames encoded one by one, all of them translated
    together, leads decoded one by one. The outermost layers fold pixels two by two, which at full
    resolution would take most of the time."""

    multiple = 4

    def __init__(self, shape, width=16, hidden=128, depth=4):
        super().__init__()
        self.shape = shape
        block = lambda a, b, stride=1: nn.Sequential(
            conv(a, b, 3, shape.periodic, stride=stride), nn.GroupNorm(2, b), nn.SiLU()
        )
        self.first = block(4 * shape.each, width)
        self.second = nn.Sequential(block(width, 2 * width, 2), block(2 * width, 2 * width))
        self.enter = nn.Conv2d(shape.frames * 2 * width, hidden, 1)
        self.translate = nn.Sequential(*(GatedAttention(hidden, shape.periodic) for _ in range(depth)))
        self.leave = nn.Conv2d(hidden, shape.leads * 2 * width, 1)
        self.decode = block(2 * width, 4 * width)
        self.last = block(2 * width, width)
        self.out = ends_at_zero(conv(width, 4 * shape.channels, 3, shape.periodic))

    def forward(self, x):
        b, (frames, leads) = len(x), (self.shape.frames, self.shape.leads)
        x = F.pixel_unshuffle(self.shape.per_frame(x), 2)
        skip = self.first(x.flatten(0, 1))
        y = self.second(skip).unflatten(0, (b, frames)).flatten(1, 2)
        y = self.leave(self.translate(self.enter(y)))
        y = F.pixel_shuffle(self.decode(y.unflatten(1, (leads, -1)).flatten(0, 1)), 2)
        newest = skip.unflatten(0, (b, frames))[:, -1:].expand(-1, leads, -1, -1, -1)
        y = self.out(self.last(torch.cat([y, newest.flatten(0, 1)], 1)))
        return F.pixel_shuffle(y, 2).unflatten(0, (b, leads)).flatten(1, 2)


class Spectral(nn.Module):
    def __init__(self, width, modes):
        super().__init__()
        self.modes = modes
        self.weight = nn.Parameter(torch.randn(2, width, width, modes, modes, 2) / width)

    def forward(self, x):
        h, w = x.shape[-2:]
        m, n = min(self.modes, h // 2), min(self.modes, w // 2 + 1)
        modes, weight = torch.fft.rfft2(x), torch.view_as_complex(self.weight)
        told = torch.zeros_like(modes)
        for part, rows in zip(weight, (slice(0, m), slice(h - m, h))):
            told[:, :, rows, :n] = torch.einsum("bihw,iohw->bohw", modes[:, :, rows, :n], part[:, :, :m, :n])
        return torch.fft.irfft2(told, s=(h, w))


class FNO(nn.Module):
    """Li et al. 2021: FNO-2D, four layers; an open domain is padded, and a position stands beside it."""

    multiple = 1
    padding = 9

    def __init__(self, shape, width=20, modes=12):
        super().__init__()
        self.periodic = shape.periodic
        self.lift = nn.Conv2d(shape.seen + 2, width, 1)
        self.modes = nn.ModuleList(Spectral(width, modes) for _ in range(4))
        self.local = nn.ModuleList(nn.Conv2d(width, width, 1) for _ in range(4))
        last = ends_at_zero(nn.Conv2d(128, shape.told, 1))
        self.out = nn.Sequential(nn.Conv2d(width, 128, 1), nn.GELU(), last)

    def forward(self, x):
        b, _, h, w = x.shape
        y, across = torch.meshgrid(torch.linspace(0, 1, h), torch.linspace(0, 1, w), indexing="ij")
        x = self.lift(torch.cat([x, torch.stack([y, across]).expand(b, 2, h, w)], 1))
        pad = 0 if self.periodic else self.padding
        x = F.pad(x, (0, pad, 0, pad))
        for at, (modes, local) in enumerate(zip(self.modes, self.local)):
            x = modes(x) + local(x)
            x = F.gelu(x) if at < 3 else x
        return self.out(x[..., :h, :w])


NETS = {"unet": UNet, "convlstm": ConvLSTM, "simvp": SimVP, "fno": FNO}


class Peer(nn.Module):
    """A network for any size of frame: padded to its multiple, added to the newest frame."""

    def __init__(self, kind, shape, **sizes):
        super().__init__()
        self.net = NETS[kind](shape, **sizes)
        self.leads = shape.leads

    def forward(self, seen, newest):
        """(window, lead, channel, y, x)."""
        h, w = seen.shape[-2:]
        pad = (0, -w % self.net.multiple, 0, -h % self.net.multiple)
        change = self.net(F.pad(seen, pad) if any(pad) else seen)[..., :h, :w]
        return newest[:, None] + change.unflatten(1, (self.leads, -1))
