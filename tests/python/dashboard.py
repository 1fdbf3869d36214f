"""The dashboard in a real browser: dashboard.py URL TOKEN FRAMES EVALUATION.json PICTURES

Looks at a job that reads FRAMES frames and then waits; compares what the page shows with what the
job says of itself, and that with an evaluation of the same data. Leaves pictures.
"""

import json
import math
import struct
import sys
import time
import urllib.parse
import urllib.request

from playwright.sync_api import sync_playwright

URL, TOKEN, FRAMES, EVALUATION, PICTURES = sys.argv[1:]
# Only what is served here is looked at.
FLAGS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
).split()
STAGES = {"sources", "admission", "cropping", "encoding", "quantization", "drift", "windowing", "experts",
          "fusion", "sinks", "rejects", "scoring"}


def get(path):
    request = urllib.request.Request(URL + path, headers={"Authorization": f"Bearer {TOKEN}"})
    return urllib.request.urlopen(request, timeout=10).read()


def state():
    return json.loads(get("/api/state"))


def sensor(name, forecast):
    query = urllib.parse.urlencode({"sensor": name, "forecast": forecast})
    body = get(f"/api/sensor?{query}")
    (length,) = struct.unpack_from("<I", body)
    header = json.loads(body[4 : 4 + length])
    values = struct.unpack(f"<{(len(body) - 4 - length) // 4}f", body[4 + length :])
    arrays = {}
    for array in header["arrays"]:
        planes, rows, columns = array["shape"]
        at = array["at"]
        arrays.setdefault(array["name"], []).extend(
            values[at + p * rows * columns : at + (p + 1) * rows * columns] for p in range(planes)
        )
    return header, arrays


def rms(a, b):
    squares = [(x - y) ** 2 for x, y in zip(a, b) if math.isfinite(x - y)]
    return math.sqrt(sum(squares) / len(squares))


def close(a, b, relative=1e-5):
    assert math.isclose(a, b, rel_tol=relative), (a, b)


def wait(what, condition, seconds=90):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"in vain: {what}"
        time.sleep(0.2)


def same_scores():
    """What is served live is what an evaluation finds."""
    with open(EVALUATION) as file:
        found = json.load(file)["variables"][0]["products"]
    live = state()["skill"][0]["rmse"]
    assert set(live) <= set(found) and "persistence" in live, (found.keys(), live.keys())
    for product, leads in live.items():
        for lead, rmse in enumerate(leads):
            close(rmse, found[product]["leads"][lead]["rmse"], 1e-12)


def fields(page):
    """The numbers and colours of the panels are those of the forecast."""
    page.keyboard.press("End")
    name = page.text_content("#sensor-title")
    reference = page.get_attribute("#forecast-title", "data-reference")
    header, arrays = sensor(name, reference)
    lead = header["arrays"][0]["shape"][0]
    for _ in range(20):
        page.keyboard.press("ArrowLeft")
    assert page.input_value("#lead") == page.get_attribute("#lead", "min")
    for _ in range(len(arrays["past"]) - 1 + lead):
        page.keyboard.press("ArrowRight")
    assert page.input_value("#lead") == str(lead), page.input_value("#lead")
    truth, forecast, past = arrays["truth"][lead - 1], arrays["forecast"][lead - 1], arrays["past"][-1]
    for panel, field in [("forecast", forecast), ("persistence", past)]:
        shown = float(page.get_attribute(f"#{panel}-error", "data-rmse"))
        close(shown, rms(field, truth))
        note = page.text_content(f"[data-note={panel}-error]")
        close(float(note.removeprefix("RMSE ")), shown, 0.01)
    page.uncheck("#arrows")
    rows, columns = header["arrays"][0]["shape"][1:]
    everything = [v for a in ("past", "truth", "forecast") for plane in arrays[a] for v in plane]
    low, high = min(everything), max(everything)
    for x, y in [(0, 0), (columns - 1, 0), (columns // 2, rows - 1)]:
        drawn = page.evaluate(
            """([x, y, columns]) => {
              const canvas = document.getElementById("forecast");
              const zoom = canvas.width / columns;
              const copy = new OffscreenCanvas(canvas.width, canvas.height);
              const context = copy.getContext("2d", { willReadFrequently: true });
              context.drawImage(canvas, 0, 0);
              const { data } = context.getImageData((x + 0.5) * zoom, (y + 0.5) * zoom, 1, 1);
              return [...data];
            }""",
            [x, y, columns],
        )
        share = (forecast[y * columns + x] - low) / (high - low)
        wanted = page.evaluate("async (t) => (await import('/colours.js')).viridis(t)", share)
        assert all(abs(a - b) <= 1 for a, b in zip(drawn, wanted)), (drawn, wanted)
    page.check("#arrows")


def table(page):
    """The table of skill is the job's."""
    skill = state()["skill"][0]
    for product, leads in skill["rmse"].items():
        cells = page.locator(f"#skill-table tr[data-product={product}] td").all_text_contents()
        assert len(cells) == len(leads)
        for cell, rmse in zip(cells, leads):
            close(float(cell), rmse, 0.006)
    said = page.text_content("#better [data-value]")
    gain = skill["gain"]["persistence"]
    assert said.startswith("Yes" if gain > 0 else "No"), said
    assert f"{abs(100 * gain):.0f} %" in said, (said, gain)


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

        context, page = look("light", 1280, 900)
        page.goto(URL)
        page.fill("#token", "not the token")
        page.press("#token", "Enter")
        page.wait_for_load_state()
        page.fill("#token", TOKEN)
        page.press("#token", "Enter")
        page.wait_for_selector("#play")
        # From here on there is nothing to complain of.
        page.on("console", lambda message: problems.append(message.text)
                if message.type in ("error", "warning") else None)
        page.wait_for_selector(".sensor")
        wait("a forecast", lambda: int(page.get_attribute("#lead", "max")) > 0)
        assert page.text_content("#play") == "Pause"
        page.keyboard.press("Space")
        assert page.text_content("#play") == "Play"
        wait("all frames", lambda: state()["frames"] >= int(FRAMES))
        wait("all verified", lambda: state()["in_flight"] == 0)
        same_scores()
        page.keyboard.press("n")
        page.keyboard.press("n")
        time.sleep(2.5)
        fields(page)
        table(page)
        rooms = page.evaluate("[...document.querySelectorAll('[data-room]')].map((g) => g.dataset.room)")
        assert set(rooms) == STAGES, rooms
        second = page.locator(".sensor").nth(1).get_attribute("data-id")
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
