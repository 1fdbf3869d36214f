"""The network by itself: ours beside PyTorch, ONNX Runtime and tract, under the same weights.

scripts/bench runs it. The sides have their turns one after another, round after round; what is told
is the median of the rounds, and the median of the ratios within a round, with their range. Nobody
pays for the classical flow, which is an input; `flow` says what it costs. tract, which computes on
one thread, has the rows of one thread and batch 1. With --compile PyTorch is compiled, too, for each
row anew. On a GPU the peers are PyTorch as it is and, with --compile, compiled, and compiled into CUDA
graphs; ours composes the motion of the leads on the CPU within its time, as a job does, and each call
ends when the GPU is done.

  window    whole windows, every frame encoded: all that an export of the whole network can do
  stream    a new frame of each window, with what is known of the others: each is encoded once
  gradient  of the mean absolute error, for a step of training
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn

import twin as peers

try:
    import onnxruntime
except ImportError:
    # It has no part in a comparison on a GPU.
    onnxruntime = None
try:
    import tract
except ImportError:
    tract = None

# Seconds of calls in a turn, and the calls at least.
TURN, LEAST = 0.4, 3


class Ours:
    """The process that answers with seconds."""

    def __init__(self, command, checkpoint, device):
        # As the command starts itself.
        environment = os.environ | {
            "CANDLE_NUM_THREADS": "1",
            "MALLOC_MMAP_THRESHOLD_": "33554432", "MALLOC_TRIM_THRESHOLD_": "268435456",
        }
        self.process = subprocess.Popen(
            [command, "time", checkpoint, "cpu" if device == "cpu" else "cuda:0"], text=True, env=environment,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )

    def seconds(self, what, side, batch, threads, calls):
        self.process.stdin.write(f"{what} {side} {batch} {threads} {calls}\n")
        self.process.stdin.flush()
        return [float(word) for word in self.process.stdout.readline().split()]

    def turn(self, *asked):
        def turn():
            once = self.seconds(*asked, 2)[-1]
            return statistics.median(self.seconds(*asked, calls(once) + 1)[1:])

        return turn


def calls(once):
    return max(LEAST, int(TURN / once))


def turn(work):
    """The median of the calls of a turn."""

    def timed():
        begun = time.perf_counter()
        work()
        if torch.cuda.is_initialized():
            torch.cuda.synchronize()
        return time.perf_counter() - begun

    def turn():
        timed()
        return statistics.median([timed() for _ in range(calls(timed()))])

    return turn


class Encode(nn.Module):
    """What a stream does once a frame."""

    def __init__(self, twin):
        super().__init__()
        self.twin = twin

    def forward(self, frames, mask):
        return self.twin.encode(frames, mask)[:2]


class Forecast(nn.Module):
    """What a stream does with what it knows of a window."""

    def __init__(self, twin):
        super().__init__()
        self.twin = twin

    def forward(self, frames, flow, latents, skips):
        return self.twin.forecast(frames, flow, latents, skips, None)[self.twin.config.serve]


@contextmanager
def exported(module, inputs, **how):
    """A file of the module in ONNX, and its inputs by name."""
    fed = {f"x{at}": value.numpy() for at, value in enumerate(inputs)}
    with tempfile.NamedTemporaryFile(suffix=".onnx") as file:
        torch.onnx.export(
            module.eval(), inputs, file.name, opset_version=20, input_names=list(fed), verbose=False, **how
        )
        yield file.name, fed


def onnx(module, inputs, threads):
    """The module in ONNX Runtime, as a call."""
    with exported(module, inputs, dynamo=True, external_data=False) as (path, fed):
        session = peers.session(path, threads)
    # Constants may have made an input needless.
    fed = {wanted.name: fed[wanted.name] for wanted in session.get_inputs()}
    return lambda: session.run(None, fed)


def in_tract(module, inputs):
    """The module in tract, as a call."""
    # It knows no padding by wrapping around, which the older exporter writes as slices.
    with exported(module, inputs, dynamo=False) as (path, fed):
        model = tract.onnx().load(path)
    fed = [fed[model.input_name(at)] for at in range(model.input_count())]
    runnable = model.into_model().into_runnable()
    return lambda: runnable.run(fed)


def inferred(call):
    def work():
        with torch.inference_mode():
            call()

    return work


def sides(twin, args, what, side, batch, threads):
    """The peers of a row, by name."""
    torch.manual_seed(0)
    config = twin.config
    frames = torch.randn(batch, config.history, config.channels, side, side).to(args.device)
    mask, flow = torch.ones_like(frames), torch.randn(batch, 2, side, side).to(args.device)
    gpu = args.device != "cpu"
    # It takes no more threads, and for batches hours, nearly all in its GridSample.
    tracts = tract and not gpu and (batch, threads) == (1, 1)
    # Or PyTorch would compile for any shape from the second row on.
    torch.compiler.reset()
    twin.recalls = False
    whole = peers.Some(twin, [config.serve])
    if what == "gradient":
        trained = peers.Twin.load(args.checkpoint).to(args.device).requires_grad_(True)
        trained.recalls = False
        weights = list(trained.parameters())

        def error():
            return trained(frames, mask, flow)["mean"].abs().mean()

        def gradient(of):
            return turn(lambda: torch.autograd.grad(of(), weights, allow_unused=True))

        every = {"PyTorch": gradient(error)}
        if args.compile and not gpu:
            every["torch.compile"] = gradient(torch.compile(error))
        return every
    if what == "window":
        inputs = (frames, mask, flow)
        every = {"PyTorch": turn(inferred(lambda: whole(*inputs)))}
        if not gpu:
            every["ONNX Runtime"] = turn(onnx(whole, inputs, threads))
        if tracts:
            every["tract"] = turn(in_tract(whole, inputs))
        if args.compile:
            compiled = torch.compile(whole)
            every["torch.compile"] = turn(inferred(lambda: compiled(*inputs)))
        if args.compile and gpu:
            graphs = torch.compile(whole, mode="reduce-overhead")
            every["CUDA graphs"] = turn(inferred(lambda: graphs(*inputs)))
        return every
    encode, forecast = Encode(twin), Forecast(twin)
    with torch.inference_mode():
        latents, skips = (known.clone() for known in encode(frames, mask))
    newest = (frames[:, -1:].contiguous(), mask[:, -1:].contiguous())
    skips = skips[:, -config.skips :].contiguous()
    known = (frames, flow, latents, skips)
    every = {"PyTorch": turn(inferred(lambda: (encode(*newest), forecast(*known))))}
    if not gpu:
        first, second = onnx(encode, newest, threads), onnx(forecast, known, threads)
        every["ONNX Runtime"] = turn(lambda: (first(), second()))
    if tracts:
        third, fourth = in_tract(encode, newest), in_tract(forecast, known)
        every["tract"] = turn(lambda: (third(), fourth()))
    if args.compile:
        name, mode = ("CUDA graphs", "reduce-overhead") if gpu else ("torch.compile", "default")
        one, two = (torch.compile(part, mode=mode) for part in (encode, forecast))
        every[name] = turn(inferred(lambda: (one(*newest), two(*known))))
    return every


def measure(args):
    ours = Ours(args.ours, args.checkpoint, args.device)
    twin = peers.Twin.load(args.checkpoint).to(args.device)
    numbers = sorted({1, os.cpu_count()}) if args.device == "cpu" else [1]
    rows = [("window", batch) for batch in args.batches] + [("stream", 1), ("stream", 8), ("gradient", 8)]
    told = []
    for side in args.sides:
        flow = 1e3 * ours.turn("flow", side, 1, 1)()
        print(f"\n{side} x {side}; the classical flow of a window takes {flow:.2f} ms\n", flush=True)
        print("| ms a window | threads | PhysicNet | peer | | ratio | of the rounds |")
        print("| --- | --- | --- | --- | --- | --- | --- |")
        for what, batch in rows:
            for threads in numbers:
                torch.set_num_threads(threads)
                every = {"PhysicNet": ours.turn(what, side, batch, threads)}
                every |= sides(twin, args, what, side, batch, threads)
                seconds = {name: [] for name in every}
                for _ in range(args.rounds):
                    for name, turn in every.items():
                        seconds[name].append(turn() / batch)
                own = seconds["PhysicNet"]
                for peer in list(every)[1:]:
                    ratios = sorted(a / b for a, b in zip(own, seconds[peer], strict=True))
                    mine, theirs = (1e3 * statistics.median(s) for s in (own, seconds[peer]))
                    print(
                        f"| {what}, batch {batch} | {threads} | {mine:.2f} | {theirs:.2f} | {peer} "
                        f"| {statistics.median(ratios):.2f} | {ratios[0]:.2f} to {ratios[-1]:.2f} |",
                        flush=True,
                    )
                told.append({"what": what, "side": side, "batch": batch, "threads": threads, "seconds": seconds})
    return told


def machine():
    info = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    line = lambda key: next((l.split(": ")[1] for l in info.splitlines() if l.startswith(key)), "")
    vectors = [flag for flag in line("flags").split() if flag.startswith(("avx", "fma", "amx"))]
    return {
        "cpu": line("model name"), "cores": os.cpu_count(), "vectors": vectors, "load": os.getloadavg()[0],
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else "",
        "python": platform.python_version(), "torch": torch.__version__,
        "onnxruntime": onnxruntime.__version__ if onnxruntime else "",
        "tract": tract.version() if tract else "",
    }


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--ours", required=True, help="the command bench-network")
    parser.add_argument("--checkpoint", default="configs/demo/checkpoint.safetensors")
    parser.add_argument("--sides", type=int, nargs="+", default=[64, 128, 256])
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--compile", action="store_true", help="torch.compile too: up to minutes a row")
    parser.add_argument("--json", help="where all figures go")
    args = parser.parse_args()
    about = machine()
    print(json.dumps(about))
    told = measure(args)
    if args.json:
        about["load after"] = os.getloadavg()[0]
        Path(args.json).write_text(json.dumps({"machine": about, "rows": told}, indent=1) + "\n")


if __name__ == "__main__":
    main()
