#!/usr/bin/env python3
"""Solves what PDEBench solves with scipy, as PDEBench does, and compares our data set with it.

    pdebench.py STORE          a store of `physicnet simulate` with fitzhugh_nagumo's defaults

From the first frame of every sample u and v are integrated anew, by scipy's RK45 at its default
tolerances, over the five-point Laplacian of a closed square: the equations of Takamoto et al. 2022
(arXiv:2210.07182), stated here on their own. Two comparisons, each a line of JSON that says by how
much they differ:

    same     frame by frame from the same start: the relative L2 distance of each frame
    noise    mean, spread and spectrum over time beside a start from numpy's own noise

Run by tests/simulators.rs, which says what may differ by how much.
"""

import json
import sys

import numpy as np
import xarray as xr
from scipy.integrate import solve_ivp

DU, DV, K = 1e-3, 5e-3, 5e-3
SIDE, INTERVAL = 2.0, 0.05


def laplacian(field, spacing):
    padded = np.pad(field, 1, mode="edge")
    around = padded[2:, 1:-1] + padded[:-2, 1:-1] + padded[1:-1, 2:] + padded[1:-1, :-2]
    return (around - 4 * field) / spacing**2


def solve(start, frames):
    """u and v, (frame, species, y, x), from `start` (species, y, x)."""
    spacing = SIDE / start.shape[-1]

    def slope(_time, state):
        u, v = state.reshape(start.shape)
        du = DU * laplacian(u, spacing) + u - u**3 - K - v
        dv = DV * laplacian(v, spacing) + u - v
        return np.stack([du, dv]).ravel()

    times = INTERVAL * np.arange(frames)
    told = solve_ivp(slope, (0, times[-1]), start.ravel(), t_eval=times)
    return told.y.T.reshape(frames, *start.shape)


def spectrum(fields):
    """The power of each species in four bands of wave numbers, (frame, species, band)."""
    n = fields.shape[-1]
    power = np.abs(np.fft.fft2(fields)) ** 2 / n**4
    k = np.fft.fftfreq(n, 1 / n)
    radius = np.hypot(*np.meshgrid(k, k))
    edges = [0.5, 2.5, 5.5, 10.5, n]
    bands = [(radius >= low) & (radius < high) for low, high in zip(edges, edges[1:])]
    return np.stack([power[..., band].sum(-1) for band in bands], axis=-1)


def main(store):
    data = xr.open_zarr(store)
    fields = np.stack([data["u"].values, data["v"].values], axis=2).astype(float)
    samples, frames, _, n, _ = fields.shape

    distances = []
    for ours in fields:
        theirs = solve(ours[0], frames)
        error = np.sqrt(((ours - theirs) ** 2).sum((-2, -1)) / (theirs**2).sum((-2, -1)))
        distances.append(error.max(1))
    same = {"compared": "same", "largest": float(np.max(distances))}
    print(json.dumps(same | {"last": float(np.max(np.array(distances)[:, -1]))}))

    noise = [np.random.RandomState(seed).randn(2, n, n) for seed in range(samples)]
    theirs = np.stack([solve(start, frames) for start in noise])
    told = {"compared": "noise"}
    told["mean"] = float(np.abs(fields.mean((0, 3, 4)) - theirs.mean((0, 3, 4))).max())
    spread = fields.std((0, 3, 4)) / theirs.std((0, 3, 4))
    told["spread"] = float(np.abs(spread - 1).max())
    bands = spectrum(fields).mean(0) / spectrum(theirs).mean(0)
    told["spectrum"] = float(np.abs(np.log(bands)).max())
    print(json.dumps(told))


if __name__ == "__main__":
    main(sys.argv[1])
