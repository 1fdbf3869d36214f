"""The squared error of OpenCV's DIS optical flow, carried as this repository carries: a peer.

    python3 -m venv out/peers && out/peers/bin/pip install -r benches/peers/requirements.txt
    physicnet evaluate --zarr radar.zarr --horizon 12 --json out/advection.json
    out/peers/bin/python benches/peers/opencv_dis.py radar.zarr --ours out/advection.json

Every reference time with --history frames up to it is used, and every lead whose frame exists:
the protocol of `physicnet evaluate`. DIS (preset medium) estimates the backward flow on rain in
decibels; semi-Lagrangian steps with one midpoint correction carry the newest frame, in mm/h, and the
domain ends in its last pixel. Unmeasured pixels count as the newest measurement before them, else dry.
"""

import argparse
import json

import cv2
import numpy as np
import xarray


def intensity(rate):
    """-15 to 40 decibels of rain over 0 to 255; less than 0.1 mm/h is 0."""
    decibels = 10 * np.log10(np.maximum(rate, 1e-9))
    scaled = np.clip((decibels + 15) / 55, 0, 1) * 255
    return np.where(rate >= 0.1, scaled, 0).astype(np.uint8)


def look_up(field, x, y):
    return cv2.remap(field, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def filled(window):
    newest = window[-1].copy()
    for older in window[-2::-1]:
        newest = np.where(np.isfinite(newest), newest, older)
    return np.nan_to_num(newest, nan=0.0)


def forecast(window, leads):
    newest, before = filled(window), filled(window[:-1])
    medium = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    flow = medium.calc(intensity(newest), intensity(before), None)
    y, x = np.indices(newest.shape, dtype=np.float32)
    path, step = np.zeros_like(flow), flow
    for _ in range(leads):
        half = path + 0.5 * step
        step = look_up(flow, x + half[..., 0], y + half[..., 1])
        path = path + step
        yield look_up(newest, x + path[..., 0], y + path[..., 1])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("store", help="a Zarr store of one rain rate with dims time, y, x")
    parser.add_argument("--variable", help="default: the first with three dims")
    parser.add_argument("--history", type=int, default=4)
    parser.add_argument("--leads", type=int, default=12)
    parser.add_argument("--ours", help="the JSON that `physicnet evaluate --json` left")
    args = parser.parse_args()
    cv2.setNumThreads(1)

    data = xarray.open_zarr(args.store)
    name = args.variable or next(v for v in data.data_vars if data[v].ndim == 3)
    frames = data[name].values.astype(np.float32)
    squares, counts = np.zeros(args.leads), np.zeros(args.leads)
    for reference in range(args.history - 1, len(frames) - 1):
        window = frames[reference + 1 - args.history : reference + 1]
        known = np.isfinite(window).any(axis=0)
        for lead, carried in enumerate(forecast(window, args.leads)):
            if reference + lead + 1 < len(frames):
                truth = frames[reference + lead + 1]
                seen = np.isfinite(truth) & known
                squares[lead] += np.sum((carried[seen].astype(np.float64) - truth[seen]) ** 2)
                counts[lead] += seen.sum()
    dis = squares / counts
    ours = np.full(args.leads, np.nan)
    if args.ours:
        with open(args.ours) as report:
            products = json.load(report)["variables"][0]["products"]
        ours = np.array([lead["mse"] for lead in products["advection"]["leads"]][: args.leads])
    print("lead  DIS       ours      ours / DIS")
    for lead, (peer, own) in enumerate(zip(dis, ours), 1):
        print(f"{lead:4}  {peer:<8.5f}  {own:<8.5f}  {own / peer:.3f}")
    print(f"mean  {dis.mean():<8.5f}  {ours.mean():<8.5f}  {ours.mean() / dis.mean():.3f}")


if __name__ == "__main__":
    main()
