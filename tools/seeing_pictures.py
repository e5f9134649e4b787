"""Make the pictures of docs/howto/seeing.md: run the code of the page, and photograph watch and report.

python tools/seeing_pictures.py
"""

from __future__ import annotations

import argparse
import asyncio
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests" / "report"))

from chromium import Chromium  # noqa: E402

WIDTH = 960  # px


def picture(browser: Chromium, page: Path, first: str, last: str, *, dark: bool) -> bytes:
    """Return a picture of a page from the top of one element to the bottom of another, by selectors."""
    browser.open(page, width=WIDTH, dark=dark)
    browser.run("for (const each of document.querySelectorAll('#failures details')) each.open = true")
    top = browser.run(f"document.querySelector({first!r}).getBoundingClientRect().top + scrollY")
    bottom = browser.run(f"document.querySelector({last!r}).getBoundingClientRect().bottom + scrollY")
    return browser.screenshot({"x": 0, "y": top - 12, "width": WIDTH, "height": bottom - top + 24, "scale": 1})


async def watched() -> str:
    """Return a picture (SVG) of `callyard watch` while the program goes on, in the middle of it."""
    from callyard.cli.watch_app import WatchApp
    from callyard.cli.watch_rows import Source

    source = Source(argparse.Namespace(trust=None), None)
    app = WatchApp(source, 0.05)
    async with app.run_test(size=(100, 18)) as pilot:
        while not any(row.function == "energy" and row.time not in ("", "0 us") for row in app._rows.values()):
            await pilot.pause(0.02)
        return app.export_screenshot(title="callyard watch")


def picture_of_watch(browser: Chromium, place: Path, code: str) -> bytes:
    """Return a picture of the live view in the middle of the run."""
    (place / "study.py").write_text(code.replace("time.sleep(0.", "time.sleep(1."), encoding="utf-8")
    with subprocess.Popen([sys.executable, "study.py"], cwd=place, stdout=subprocess.DEVNULL) as process:
        (place / "watch.svg").write_text(asyncio.run(watched()), encoding="utf-8")
        process.kill()
    browser.open(place / "watch.svg", width=WIDTH, dark=False)
    # The drawing is in the middle of the window, with the proportions of its view box.
    box = "document.documentElement.viewBox.baseVal"
    height = WIDTH * browser.run(f"{box}.height / {box}.width")
    top = (browser.run("document.documentElement.getBoundingClientRect().height") - height) / 2
    return browser.screenshot({"x": 0, "y": top, "width": WIDTH, "height": height, "scale": 1})


def main() -> None:
    """Make them."""
    text = (ROOT / "docs" / "howto" / "seeing.md").read_text(encoding="utf-8")
    code = "".join(re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL))
    with tempfile.TemporaryDirectory() as place:
        (Path(place) / "study.py").write_text(code, encoding="utf-8")
        subprocess.run([sys.executable, "study.py"], cwd=place, check=True)
        browser = Chromium(Path(place) / "profile")
        page = Path(place) / "run.html"
        light = picture(browser, page, "header", "#functions", dark=False)
        dark = picture(browser, page, "#timeline", "#graph", dark=True)
        (Path(place) / "watched").mkdir()
        watch = picture_of_watch(browser, Path(place) / "watched", code)
        browser.close()
    (ROOT / "docs" / "report-light.png").write_bytes(light)
    (ROOT / "docs" / "report-dark.png").write_bytes(dark)
    (ROOT / "docs" / "watch.png").write_bytes(watch)


if __name__ == "__main__":
    main()
