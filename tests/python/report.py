"""A report in a real browser: report.py PAGE.html PICTURES

Opens it without any network, in light, dark, on a phone and on paper; leaves pictures.
"""

import json
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

PAGE, PICTURES = Path(sys.argv[1]).resolve(), Path(sys.argv[2])
# Only what lies on this machine is looked at.
FLAGS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
).split()


def whole(page, width):
    """Every figure is there, with a name; nothing is wider than the screen."""
    pictures = page.locator("img")
    for i in range(pictures.count()):
        picture = pictures.nth(i)
        assert picture.get_attribute("alt"), i
        assert picture.evaluate("(img) => img.complete && img.naturalWidth > 0"), i
    assert pictures.count() > 20, pictures.count()
    charts = page.locator(".chart svg")
    assert charts.count() > 10, charts.count()
    for i in range(charts.count()):
        assert charts.nth(i).get_attribute("aria-label"), i
        assert charts.nth(i).locator("path.line, rect.bar").count() > 0, i
    for section in ["skill", "ensemble", "contests", "fss", "spectra", "maps", "cases"]:
        assert page.locator(f"#{section}-0").is_visible(), section
    assert page.locator("#ensemble-0 rect.bar").count() >= 6
    assert page.locator("#atlas .atlas li").count() > 0
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def keys(page):
    """All that can be opened or scrolled is reached and opened by the keyboard."""
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    reached = set()
    for _ in range(200):
        page.keyboard.press("Tab")
        name = page.evaluate("document.activeElement.tagName")
        if name == "SUMMARY":
            closed = page.evaluate("!document.activeElement.parentElement.open")
            if closed:
                page.keyboard.press("Enter")
                assert page.evaluate("document.activeElement.parentElement.open")
            reached.add(page.evaluate("document.activeElement.textContent"))
        if name == "BODY":
            break
    assert len(reached) == page.locator("summary").count(), reached


def main():
    problems = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=FLAGS)
        grounds = {}
        for name, scheme, width in [("light", "light", 1280), ("dark", "dark", 1280), ("phone", "light", 360)]:
            context = browser.new_context(
                color_scheme=scheme, viewport={"width": width, "height": 800}, offline=True
            )
            page = context.new_page()
            page.on("pageerror", lambda error: problems.append(str(error)))
            page.on("console", lambda message: problems.append(message.text))
            page.on("request", lambda request: problems.append(request.url)
                    if not request.url.startswith(("file:", "data:")) else None)
            page.goto(PAGE.as_uri())
            whole(page, width)
            page.screenshot(path=PICTURES / f"{name}.png", full_page=True)
            grounds[name] = page.evaluate("getComputedStyle(document.body).backgroundColor")
            if name == "light":
                data = json.loads(page.text_content("#evaluation"))
                assert data["variables"] and data["forecasts"] > 0
                printed = page.pdf(path=PICTURES / "printed.pdf", format="A4")
                assert printed.startswith(b"%PDF-") and len(printed) > 50_000, len(printed)
                keys(page)
            context.close()
        assert grounds["light"] == grounds["phone"] != grounds["dark"], grounds
        browser.close()
    assert not problems, problems


main()
