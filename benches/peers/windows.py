"""What a peer is trained on: the windows that `physicnet train` would draw by the same file.

The training file says which (data, history, horizon, split, crop, augment); the reading of it is this
module's own, so that a mistake in ours is not repeated here unseen.
"""

import numpy as np
import torch
import xarray

RAIN = ("mm h-1", "mm/h", "mm hr-1", "mm h^-1", "mm/hr")


class Store:
    """A store of observations in memory: (sample, time, channel, y, x), NaN where missing."""

    def __init__(self, path, variables=None):
        data = xarray.open_zarr(path)
        names = variables or [name for name in data.data_vars if data[name].ndim >= 3]
        fields = [data[name] for name in names]
        fields = [f if "sample" in f.dims else f.expand_dims("sample") for f in fields]
        self.names, self.units = names, [field.attrs.get("units", "") for field in fields]
        frames = np.stack([field.values for field in fields], axis=2).astype("f4")
        self.frames = np.where(np.isfinite(frames), frames, np.nan)
        self.times = data["time"].values
        self.axes = fields[0].dims[-2:]
        self.coordinates = [data[axis].values for axis in self.axes]

    def whole(self, length):
        """Where windows of so many frames begin that no frame is missing from."""
        steps = np.diff(self.times).astype("i8")
        cadence = np.median(steps)
        good = np.abs(steps - cadence) < cadence / 2
        starts = range(len(self.times) - length + 1)
        return [first for first in starts if good[first : first + length - 1].all()]


class Transform:
    """To what a network sees, and back: rain rates by their logarithm, others standardised."""

    def __init__(self, units, sample):
        self.rain = units in RAIN
        self.mean, self.std = float(np.nanmean(sample)), float(np.nanstd(sample))

    def forward(self, values):
        return np.log1p(values / 0.1) / 2 if self.rain else (values - self.mean) / self.std

    def inverse(self, values):
        # Capped at what no radar measures: one wild pixel must not own a step.
        return torch.expm1(2 * values.clamp(0, 3.8)) * 0.1 if self.rain else values * self.std + self.mean


class Windows:
    """The windows of a training file, transformed, in memory."""

    def __init__(self, config):
        model, split = config["model"], config.get("split", {})
        self.history, self.horizon = model["history"], model["horizon"]
        self.crop, self.least = config.get("crop", 0), config.get("min_measured", 0.5)
        self.augment = config.get("augment", {})
        (source,) = config["data"]
        self.store = store = Store(source["path"], source.get("variables"))
        by, train = split.get("by", "time"), split.get("train", 0.6)
        end = train + split.get("validation", 0.1)
        length, (samples, frames) = self.history + self.horizon, store.frames.shape[:2]
        self.training, self.validation = [], []
        for sample in range(samples):
            for first in store.whole(length):
                # Where it begins and ends, as shares; no frame is in two parts.
                begins, ends = first / frames, (first + length) / frames
                if by == "sensor":
                    begins = ends = sample / samples
                if begins < train and ends <= train:
                    self.training.append((sample, first))
                elif train <= begins < end and ends <= end:
                    self.validation.append((sample, first))
        seen = np.stack([store.frames[place] for place in self.training[:: len(self.training) // 500 + 1]])
        self.transforms = [Transform(units, seen[:, c]) for c, units in enumerate(store.units)]
        self.fields = self.transformed(store.frames)

    def transformed(self, frames):
        return np.stack([t.forward(frames[:, :, c]) for c, t in enumerate(self.transforms)], axis=2)

    def inverse(self, fields):
        """(..., channel, y, x) in the units of the data."""
        return torch.stack([t.inverse(fields[..., c, :, :]) for c, t in enumerate(self.transforms)], dim=-3)

    def window(self, place):
        sample, first = place
        return self.fields[sample, first : first + self.history + self.horizon]

    def draw(self, random, count, crop=None):
        """A batch of training windows: (window, frame, channel, y, x)."""
        crop = self.crop if crop is None else crop
        return torch.from_numpy(np.stack([self.view(random, crop) for _ in range(count)]))

    def view(self, random, crop):
        for _ in range(50):
            window = self.window(self.training[random.integers(len(self.training))])
            height, width = window.shape[-2:]
            if crop == 0 or crop >= max(height, width):
                break
            rows, columns = min(crop, height), min(crop, width)
            top, left = random.integers(height - rows + 1), random.integers(width - columns + 1)
            window = window[..., top : top + rows, left : left + columns]
            if np.isfinite(window[self.history - 1]).mean() >= self.least:
                break
        if self.augment.get("flip"):
            window = window[..., :: random.choice([-1, 1]), :: random.choice([-1, 1])]
        if self.augment.get("transpose") and window.shape[-1] == window.shape[-2] and random.random() < 0.5:
            window = window.swapaxes(-1, -2)
        if self.augment.get("roll_diagonal"):
            shift = random.integers(window.shape[-1])
            window = np.roll(window, (-shift, shift), axis=(-2, -1))
        return np.ascontiguousarray(window)


def inputs(frames, position):
    """From the history (window, frame, channel, y, x), NaN where missing: what a network sees
    (window, channels, y, x), the newest frame with its gaps filled from older ones, and whether
    anything was measured."""
    known = torch.isfinite(frames)
    newest = frames[:, 0]
    for older in frames.unbind(1)[1:]:
        newest = torch.where(torch.isfinite(older), older, newest)
    ever = known.any(1)
    seen = [torch.nan_to_num(frames, nan=0.0).flatten(1, 2), known.float().flatten(1, 2)]
    if position:
        # Where a forcing is fixed in space, a convolution has to be told where it is.
        b, h, w = len(frames), *frames.shape[-2:]
        y, x = (2 * torch.pi * (torch.arange(n) + 0.5) / n for n in (h, w))
        x, y = x.expand(h, w), y[:, None].expand(h, w)
        seen.append(torch.stack([x.sin(), x.cos(), y.sin(), y.cos()]).expand(b, 4, h, w))
    return torch.cat(seen, 1), torch.nan_to_num(newest, nan=0.0), ever
