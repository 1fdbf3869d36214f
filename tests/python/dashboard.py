"""The dashboard in a real browser: dashboard.py URL TOKEN FOLDER EVALUATION.json PICTURES

Looks at a job over the stores s0.zarr, s1.zarr, ... of FOLDER. Their frames come late and corrected, one
of each sensor too late to be used; the job reads them all and then waits. What the page shows is held
against those stores, the forecasts that the job has left in FOLDER/out, and an EVALUATION of the same
data in order; its colours against matplotlib's and the browser's own. Leaves PICTURES.
"""

import json
import math
import struct
import sys
import time
import urllib.parse
import urllib.request
from pathlib import Path

import matplotlib
import numpy as np
import xarray as xr
from playwright.sync_api import sync_playwright

URL, TOKEN, FOLDER, EVALUATION, PICTURES = sys.argv[1:]
# Only what is served here is looked at.
FLAGS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
).split()
STAGES = {"sources", "admission", "cropping", "encoding", "quantization", "drift", "windowing", "experts",
          "fusion", "sinks", "rejects", "scoring"}
# The job's `history`, and its `revise_within`: what is as late as both is not used.
HISTORY, WITHIN = 3, 3


class Sensor:
    """What there is to know of a sensor, from the stores."""

    def __init__(self, path):
        data = xr.open_zarr(path)
        steps = data.time.values.astype("datetime64[m]").astype(int)
        self.count, self.late, self.rejected, self.frames = len(steps), 0, 0, {}
        newest = -1
        for step, field in zip(steps, data.u.values):
            self.late += step < newest
            if step <= newest - WITHIN - HISTORY:
                self.rejected += 1
            else:
                self.frames[int(step)] = field
            newest = max(newest, step)
        self.out = Path(FOLDER) / "out" / Path(path).name

    def stored(self):
        """The forecasts: fields by reference time, and how many were issued again."""
        data = xr.open_zarr(self.out, decode_timedelta=True)
        steps = data.time.values.astype("datetime64[m]").astype(int)
        self.forecasts = {int(step): field for step, field in zip(steps, data.u.values)}
        self.revised = int(data.revision.values.sum())

    def pairs(self, lead):
        """Forecast and observation at a lead, by valid time."""
        for step, fields in self.forecasts.items():
            if (truth := self.frames.get(step + lead)) is not None:
                yield step + lead, fields[lead - 1], truth


SENSORS = {path.stem: Sensor(path) for path in sorted(Path(FOLDER).glob("s*.zarr"))}


def get(path):
    request = urllib.request.Request(URL + path, headers={"Authorization": f"Bearer {TOKEN}"})
    return urllib.request.urlopen(request, timeout=10).read()


def state():
    return json.loads(get("/api/state"))


def api_sensor(name, forecast):
    """What only the job knows: the flow and the codes."""
    query = urllib.parse.urlencode({"sensor": name, "forecast": forecast})
    body = get(f"/api/sensor?{query}")
    (length,) = struct.unpack_from("<I", body)
    header = json.loads(body[4 : 4 + length])
    values = np.frombuffer(body[4 + length :], "<f4")
    arrays = {}
    for array in header["arrays"]:
        size = math.prod(array["shape"])
        arrays[array["name"]] = values[array["at"] : array["at"] + size].reshape(array["shape"])
    return header, arrays


def close(a, b, relative=1e-5):
    assert math.isclose(a, b, rel_tol=relative, abs_tol=1e-9), (a, b)


def wait(what, condition, seconds=90):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"in vain: {what}"
        time.sleep(0.2)


def rms(field):
    return math.sqrt(np.nanmean(np.square(field, dtype="f8")))


# ---- Pixels.

CELLS = """([id, columns, rows]) => {
  const canvas = document.getElementById(id);
  const copy = new OffscreenCanvas(canvas.width, canvas.height);
  const context = copy.getContext("2d", { willReadFrequently: true });
  context.drawImage(canvas, 0, 0);
  const { data } = context.getImageData(0, 0, canvas.width, canvas.height);
  const cells = [];
  for (let i = 0; i < columns * rows; i++) {
    const x = Math.floor(((i % columns) + 0.5) * canvas.width / columns);
    const y = Math.floor((Math.floor(i / columns) + 0.5) * canvas.height / rows);
    cells.push([...data.subarray(4 * (y * canvas.width + x), 4 * (y * canvas.width + x) + 4)]);
  }
  return cells;
}"""
# The browser knows Oklch itself.
CSS = """(colours) => colours.map((css) => {
  const context = new OffscreenCanvas(1, 1).getContext("2d");
  context.fillStyle = css;
  context.fillRect(0, 0, 1, 1);
  return [...context.getImageData(0, 0, 1, 1).data].slice(0, 3);
})"""


def cells(page, canvas, shape):
    """The colours in the middles of a canvas' cells: `(rows, columns, RGBA)`."""
    rows, columns = shape
    return np.array(page.evaluate(CELLS, [canvas, columns, rows])).reshape(rows, columns, 4)


def drawn(page, canvas, field, wanted, within):
    """Holds that a canvas shows a field in the colours that are `wanted`, and nothing where it is missing."""
    found = cells(page, canvas, field.shape)
    known = np.isfinite(field)
    assert known.any(), f"{canvas}: nothing to see"
    assert (found[~known][:, 3] == 0).all(), f"{canvas}: what is missing is drawn"
    off = np.abs(found[known][:, :3] - np.array(wanted(field[known])))
    assert (found[known][:, 3] == 255).all() and off.max() <= within, (canvas, off.max())


def viridis(low, high):
    # The page has a polynomial that was fitted to it.
    return lambda values: 255 * matplotlib.colormaps["viridis"]((values - low) / (high - low))[:, :3]


def diverging(page, limit):
    def wanted(values):
        shares = np.clip(values / limit, -1, 1)
        css = [f"oklch({0.97 - 0.47 * abs(t)} {0.15 * abs(t)} {255 if t < 0 else 30})" for t in shares]
        return page.evaluate(CSS, css)

    return wanted


def named(page):
    return lambda codes: page.evaluate(
        CSS, [f"oklch({0.5 + 0.09 * (c % 4)} 0.11 {c * 137.508 % 360})" for c in codes.astype(int)]
    )


# ---- What is looked at.


def lead_to(page, step):
    # What has the focus keeps the keys that work it.
    page.evaluate("document.activeElement.blur()")
    for _ in range(20):
        page.keyboard.press("ArrowLeft")
    for _ in range(step - int(page.get_attribute("#lead", "min"))):
        page.keyboard.press("ArrowRight")
    assert page.input_value("#lead") == str(step)


def plays(page):
    """It plays through the leads by itself, and stands still when it is told to."""
    assert page.text_content("#play") == "Pause"
    seen = []
    wait("more leads", lambda: seen.append(int(page.input_value("#lead"))) or len(set(seen)) >= 4, 10)
    page.keyboard.press("Space")
    assert page.text_content("#play") == "Play"
    before = page.input_value("#lead")
    time.sleep(1.2)
    assert page.input_value("#lead") == before


def fields(page):
    """The panels show the stored frames and the stored forecast."""
    name = page.text_content("#sensor-title")
    reference = page.get_attribute("#forecast-title", "data-reference")
    sensor, at = SENSORS[name], int(reference) // 60_000_000_000
    forecast = sensor.forecasts[at]
    leads = len(forecast)
    # The newest forecast whose every lead has been observed.
    whole = [s for s in sensor.forecasts if all(s + k in sensor.frames for k in range(1, leads + 1))]
    assert at == max(whole), (at, max(whole))
    now, before = sensor.frames[at], sorted(step for step in sensor.frames if step <= at)[-HISTORY:]
    truths = [sensor.frames[at + lead] for lead in range(1, leads + 1)]
    past = [sensor.frames[step] for step in before]
    everything = np.concatenate([np.ravel(f) for f in [*past, *truths, *forecast]])
    low, high = np.nanmin(everything), np.nanmax(everything)
    colours = viridis(low, high)

    page.uncheck("#arrows")
    lead_to(page, 0)
    drawn(page, "truth", now, colours, 8)
    drawn(page, "forecast", now, colours, 8)
    arrows(page, name, reference, 0)
    lead_to(page, -1)
    drawn(page, "truth", past[-2], colours, 8)
    assert page.text_content("[data-note=truth]") == "before"

    # The scales: both ends, and what lies between them.
    ends = page.locator("#scale-text span").all_text_contents()
    close(float(ends[0]), low, 0.006), close(float(ends[2]), high, 0.006)
    assert ends[1] == "u, m s-1", ends
    off = np.concatenate([np.abs(f - t).ravel() for t in truths for f in [now]]
                         + [np.abs(f - t).ravel() for f, t in zip(forecast, truths)])
    off = np.sort(off[np.isfinite(off)])
    limit = off[int(0.995 * len(off))]
    ends = page.locator("#error-scale-text span").all_text_contents()
    close(float(ends[2].removeprefix("≥ ")), limit, 0.006)
    assert ends[0] == ends[2].replace("≥ ", "≤ −") and ends[1] == "forecast − what came, m s-1", ends
    bar = cells(page, "scale", (1, 256))[0, :, :3]
    assert np.abs(bar - colours(low + (high - low) * (np.arange(256) + 0.5) / 256)).max() <= 8

    for lead in (1, leads):
        lead_to(page, lead)
        truth = truths[lead - 1]
        drawn(page, "truth", truth, colours, 8)
        drawn(page, "forecast", forecast[lead - 1], colours, 8)
        arrows(page, name, reference, lead)
        drawn(page, "persistence", now, colours, 8)
        for panel, field in [("forecast", forecast[lead - 1]), ("persistence", now)]:
            drawn(page, f"{panel}-error", field - truth, diverging(page, limit), 4)
            shown = float(page.get_attribute(f"#{panel}-error", "data-rmse"))
            close(shown, rms(field - truth))
            note = page.text_content(f"[data-note={panel}-error]")
            close(float(note.removeprefix("RMSE ")), shown, 0.01)
        valid = np.datetime64(at + lead, "m").item().strftime("%Y-%m-%d %H:%M UTC")
        told = page.text_content("#lead-text")
        assert told == f"+{lead} min, {valid}" or told == f"+{60 * lead} s, {valid}", told
    page.check("#arrows")

    # Where it is wrong: at the last lead that was observed.
    error = forecast[-1] - truths[-1]
    y, x = np.unravel_index(np.nanargmax(np.abs(error)), error.shape)
    third = lambda at, size, names: names[0 if at < size / 3 else 1 if at < 2 * size / 3 else 2]
    where = f"{third(y, error.shape[0], ['top', 'middle', 'bottom'])} {third(x, error.shape[1], ['left', 'centre', 'right'])}"
    assert page.text_content("#wrong [data-value]") == f"{where}, too {'high' if error[y, x] > 0 else 'low'}"
    more = page.text_content("#wrong [data-more]")
    assert more.startswith(f"{name} at lead +{leads}: off by "), more
    close(float(more.split("off by ")[1].split(" ")[0]), abs(error[y, x]), 0.006)
    close(float(more.split("(the ring), ")[1].split(" ")[0]), rms(error), 0.006)


def arrows(page, name, reference, step):
    """In each cell that the forecast moves stands an arrow, and none when they are off."""
    _, arrays = api_sensor(name, reference)
    lead = max(1, step)
    dx, dy = arrays["flow"][2 * lead - 2 : 2 * lead]
    # What is measured drifts along x.
    assert np.nanmean(dx) > 0, dx
    speed = np.hypot(dx, dy)
    moves = 0.9 * speed / np.nanmax(speed) > 0.12
    assert moves.sum() > 20, moves.sum()
    told = page.text_content("#flow-text")
    assert told.startswith("how the forecast moves things by +"), told
    close(float(told.split("up to ")[1].split(" ")[0]), np.nanmax(speed), 0.006)
    bare = cells(page, "forecast", dx.shape)
    page.check("#arrows")
    with_arrows = cells(page, "forecast", dx.shape)
    changed = (bare != with_arrows).any(-1)
    assert changed[moves].all() and not changed[~moves].any(), (changed, moves)
    assert (with_arrows[moves][:, :3] > 150).mean() > 0.8
    page.uncheck("#arrows")


def codes(page):
    """The code map and the codebook are those of the last frames."""
    name = page.text_content("#sensor-title")
    header, arrays = api_sensor(name, page.get_attribute("#forecast-title", "data-reference"))
    field = arrays["codes"][0]
    drawn(page, "codes", field, named(page), 3)
    counts = {int(code): count for code, count in header["usage"].items()}
    # As many maps as forecasts are kept of.
    assert sum(counts.values()) % field.size == 0 and set(field.astype(int).ravel()) <= set(counts)
    bars = page.evaluate(
        "[...document.querySelectorAll('#usage rect')].map((bar) =>"
        " [bar.textContent, Number(bar.getAttribute('height')), Number(bar.getAttribute('x'))])"
    )
    assert sorted(text for text, *_ in bars) == sorted(f"code {c}: {n}" for c, n in counts.items()), bars
    for text, height, x in bars:
        code, count = (int(part) for part in text.removeprefix("code ").split(": "))
        close(height, (150 - 24) * count / max(counts.values()), 0.01)
        close(x, 360 * code / header["codes"], 0.01)
    told = page.text_content("#usage-text")
    # Nobody has counted what codes this model's training data has.
    assert told.startswith(f"{len(counts)} of {header['codes']} codes") and "physicnet calibrate" in told, told


def skill(page):
    """The table and the chart show every score as an evaluation has it, and the last hour as stores do."""
    with open(EVALUATION) as file:
        found = json.load(file)["variables"][0]["products"]
    products = ["physicnet", "persistence", "advection"]
    for score in ["rmse", "mae", "bias", "csi_0.1", "csi_0.5", "fss_0.1_3", "ssim"]:
        page.select_option("#score", score)
        for product in products:
            wanted = [lead[score] for lead in found[product]["leads"]]
            cells_ = page.locator(f"#skill-table tr[data-product={product}] td").all_text_contents()
            assert len(cells_) == len(wanted), (score, product, cells_)
            [close(float(cell), value, 0.006) for cell, value in zip(cells_, wanted)]
        chart(page, {product: [lead[score] for lead in found[product]["leads"]] for product in products})
    page.select_option("#score", "rmse")
    page.check("[name=span][value=hour]")
    for lead in range(1, 3):
        squares, count = 0.0, 0
        for sensor in SENSORS.values():
            pairs = list(sensor.pairs(lead))
            # The hour ends with the sensor's newest frame that any lead has met, to five minutes.
            newest = max(step for k in (1, 2) for step, *_ in sensor.pairs(k))
            for step, forecast, truth in pairs:
                if step >= newest - newest % 5 - 55:
                    error = np.square(forecast - truth, dtype="f8")
                    squares, count = squares + np.nansum(error), count + np.isfinite(error).sum()
        shown = page.locator("#skill-table tr[data-product=physicnet] td").nth(lead - 1).text_content()
        close(float(shown), math.sqrt(squares / count), 0.006)
        # And that is something else than all time.
        pairs = int(page.locator("#skill-table tr[data-product=pairs] td").nth(lead - 1).text_content())
        assert pairs < found["physicnet"]["leads"][lead - 1]["pairs"]
    page.check("[name=span][value=day]")
    shown = page.locator("#skill-table tr[data-product=pairs] td").all_text_contents()
    assert [int(pairs) for pairs in shown] == [lead["pairs"] for lead in found["physicnet"]["leads"]]
    page.check("[name=span][value=all]")
    # The verdict: all of it is of the last day.
    mean = lambda product: sum(lead["rmse"] for lead in found[product]["leads"])
    gain = 1 - mean("physicnet") / mean("persistence")
    said = page.text_content("#better [data-value]")
    assert said == f"{'Yes' if gain > 0 else 'No'}: {abs(100 * gain):.0f} % {'less' if gain > 0 else 'more'} error", said
    assert page.text_content("#better [data-more]").startswith("Over the last day "), said


def chart(page, wanted):
    """The lines of the chart, read by its own grid."""
    grid = page.evaluate(
        "[...document.querySelectorAll('#skill-chart line.grid')].map((line) =>"
        " [Number(line.nextSibling.textContent), Number(line.getAttribute('y1'))])"
    )
    (low, y_low), (high, y_high) = grid[0], grid[-1]
    each = (high - low) / (y_high - y_low)
    for product, values in wanted.items():
        path = page.get_attribute(f"#skill-chart path[data-product={product}]", "d")
        points = [point.split(",") for point in path.replace("L", "M").split("M")[1:]]
        assert len(points) == len(values)
        for (_, y), value in zip(points, values):
            found = low + (float(y) - y_low) * each
            # A tenth of a pixel.
            assert abs(found - value) <= 0.2 * abs(each), (product, found, value)


def told(page):
    """The very state that the page shows now."""
    with page.expect_response(lambda response: response.url.endswith("/api/state")) as answer:
        pass
    state = answer.value.json()
    page.wait_for_timeout(100)
    return state


def lines(page):
    """Each sensor's line says what its store says."""
    for place, (name, sensor) in enumerate(SENSORS.items()):
        item = page.locator(".sensor").nth(place)
        assert item.locator("b").text_content() == name
        said = item.locator("small").text_content()
        for words in [
            f"{sensor.count} frames",
            f"{sensor.late} late",
            f"{sensor.rejected} not used",
            f"{sensor.revised} revised",
            "25.0 % of pixels missing",
        ]:
            assert words in said, (name, words, said)
    late = sum(sensor.late for sensor in SENSORS.values())
    assert f"{late} late frames" in page.text_content("#late [data-value]"), late
    assert page.get_attribute("#late [data-value]", "class") == "big warn"


def dataflow(page):
    """Each box says what comes into its stage and how much at once, and the text how much of all."""
    state = told(page)
    boxes = page.evaluate(
        "Object.fromEntries([...document.querySelectorAll('[data-room]')].map((box) =>"
        " [box.dataset.room, [...box.querySelectorAll('text')].map((text) => text.textContent)]))"
    )
    assert set(boxes) == STAGES, boxes
    rooms = {room["name"]: room for room in state["rates"]["rooms"]}
    assert rooms["admission"]["records"] > 0 and rooms["fusion"]["records"] > 0
    for name, (title, rate, batch) in boxes.items():
        room = rooms[name]
        assert title == name
        close(float(rate.removesuffix(" /s")), room["per_second"], 0.006)
        if room["batch"]:
            close(float(batch.split(" in ")[0]), room["batch"], 0.06)
        else:
            assert batch == ""
    said = page.text_content("#dataflow-text")
    frames, forecasts = (float(part.split(" ")[0]) for part in (said, said.split(" and ")[1]))
    close(frames, state["rates"]["frames_per_second"], 0.006)
    close(forecasts, state["rates"]["forecasts_per_second"], 0.006)
    limit = state["job"]["in_flight"]
    assert f"{state['in_flight']} of at most {limit} epochs in flight" in said, said


def main():
    problems = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=FLAGS)

        def look(scheme, width, height):
            context = browser.new_context(
                color_scheme=scheme, viewport={"width": width, "height": height}
            )
            page = context.new_page()
            page.on("pageerror", lambda error: problems.append(str(error)))
            page.on("request", lambda request: problems.append(request.url)
                    if not request.url.startswith((URL, "data:", "blob:")) else None)
            return context, page

        def complain(page):
            page.on("console", lambda message: problems.append(message.text)
                    if message.type in ("error", "warning") else None)

        context, page = look("light", 1280, 900)
        page.goto(URL)
        page.fill("#token", "not the token")
        page.press("#token", "Enter")
        page.wait_for_load_state()
        page.fill("#token", TOKEN)
        page.press("#token", "Enter")
        page.wait_for_selector("#play")
        # From here on there is nothing to complain of.
        complain(page)
        page.wait_for_selector(".sensor")
        wait("a forecast", lambda: int(page.get_attribute("#lead", "max")) > 0)
        plays(page)
        dataflow(page)
        frames = sum(sensor.count for sensor in SENSORS.values())
        wait("all frames", lambda: state()["frames"] >= frames)
        wait("all verified", lambda: state()["in_flight"] == 0)
        for sensor in SENSORS.values():
            sensor.stored()
        page.keyboard.press("n")
        page.keyboard.press("n")
        time.sleep(2.5)
        told(page)
        lines(page)
        fields(page)
        codes(page)
        skill(page)
        # What came too late, and what was forecast again.
        said = page.locator("#events li").all_text_contents()
        rejects = [line for line in said if "reject" in line and "not newer than the newest frame" in line]
        assert len(rejects) == len(SENSORS), said
        revised = sum(sensor.revised for sensor in SENSORS.values())
        assert revised > 20 and any("issued again, revision" in line for line in said), said
        counts = page.text_content("#event-counts")
        assert f"{len(SENSORS)} rejects" in counts and f"{revised} revisions" in counts, counts
        second = page.locator(".sensor").nth(1).get_attribute("data-id")
        page.evaluate("document.activeElement.blur()")
        page.keyboard.press("ArrowDown")
        assert page.text_content("#sensor-title") == second
        # Nothing comes any more: that is said.
        page.wait_for_selector("#events .bad", timeout=60_000)
        assert "silent" in page.text_content("#late [data-value]")
        assert "no frame for" in page.text_content("#events")
        page.screenshot(path=f"{PICTURES}/light.png", full_page=True)
        light = page.evaluate("getComputedStyle(document.body).backgroundColor")
        cookies = context.cookies()
        context.close()
        for name, scheme, width in [("dark", "dark", 1280), ("phone", "light", 360)]:
            context, page = look(scheme, width, 740)
            complain(page)
            context.add_cookies(cookies)
            page.goto(URL)
            page.wait_for_selector("[data-room]")
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            page.screenshot(path=f"{PICTURES}/{name}.png", full_page=True)
            ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
            assert (ground == light) == (scheme == "light"), (name, ground)
            context.close()
        browser.close()
    assert not problems, problems


main()
