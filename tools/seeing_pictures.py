"""Make the pictures of docs/howto/seeing.md: run the code of the page, and photograph the report in headless Chromium.

python tools/seeing_pictures.py
"""

from __future__ import annotations

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
        browser.close()
    (ROOT / "docs" / "report-light.png").write_bytes(light)
    (ROOT / "docs" / "report-dark.png").write_bytes(dark)


if __name__ == "__main__":
    main()
