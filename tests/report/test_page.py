"""The page of a report in a real browser: what it shows, what can be done with it, and what it must not let happen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from chromium import Chromium
from simulated_runs import BEGAN, Simulation

from callyard.events.call_record import RunRecord
from callyard.events.event import Ended, Event, Failure, RunBegan, Started, Submitted, Waiting
from callyard.report.page import page

NOW = BEGAN + 1e6
# The contrast of each text with what is behind it, as WCAG counts it; the lowest, and the text.
CONTRAST = """(() => {
  const channel = (c) => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
  const luminance = (rgb) => 0.2126 * channel(rgb[0]) + 0.7152 * channel(rgb[1]) + 0.0722 * channel(rgb[2]);
  const numbers = (text) => text.match(/[\\d.]+/g).map(Number);
  const behind = (element) => {
    for (let each = element; each; each = each.parentElement) {
      const found = numbers(getComputedStyle(each).backgroundColor);
      if (found.length < 4 || found[3] > 0) return found;
    }
    return [255, 255, 255];
  };
  let worst = [99, ""];
  for (const element of document.querySelectorAll("body *:not(script):not(svg *)")) {
    const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
    if (!own || !element.checkVisibility()) continue;
    const [a, b] = [luminance(numbers(getComputedStyle(element).color)), luminance(behind(element))];
    const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (contrast < worst[0]) worst = [contrast, element.outerHTML.slice(0, 200)];
  }
  return worst;
})()"""
ROWS = """[...document.querySelectorAll('#table tbody tr[data-row]')].map(
  row => [...row.cells].map(cell => cell.textContent))"""

pytestmark = pytest.mark.needs("chromium")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return pages by name."""
    place = tmp_path_factory.mktemp("pages")
    runs = {
        "small": Simulation(12).record(),
        "middle": Simulation(400).record(),
        "hostile": Simulation(400, hostile=True).record(),
        "large": Simulation(10_000).record(),
        "empty": RunRecord(),
    }
    paths = {name: place / f"{name}.html" for name in runs}
    for name, run in runs.items():
        paths[name].write_text(page(run, NOW), encoding="utf-8")
    return paths


def opened(chromium: Chromium, path: Path, **how: Any) -> Chromium:
    chromium.open(path, **how)
    assert not chromium.problems()
    return chromium


def search(chromium: Chromium, words: str) -> list[list[str]]:
    chromium.run(f"document.getElementById('search').value = {words!r}")
    chromium.run("document.getElementById('search').dispatchEvent(new Event('input'))")
    return chromium.run(ROWS)


def test_ten_thousand_calls(chromium: Chromium, files: dict[str, Path]) -> None:
    opened(chromium, files["large"])
    assert chromium.run("document.getElementById('found').textContent") == "10,000 calls"
    assert chromium.run("document.querySelectorAll('*').length") < 1500  # the table has only the rows in sight
    chromium.run("document.getElementById('rows').scrollTop = 1e9")
    chromium.run("new Promise(resolve => requestAnimationFrame(() => requestAnimationFrame(resolve)))")
    assert chromium.run(ROWS)[-1][0] == "9999"
    assert len(search(chromium, "outofmemory c1")) > 1


def test_the_timeline_is_drawn(chromium: Chromium, files: dict[str, Path]) -> None:
    opened(chromium, files["middle"])
    colours = chromium.run("""(() => {
      const canvas = document.getElementById("canvas");
      const pixels = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
      const found = new Set();
      for (let at = 0; at < pixels.length; at += 4) found.add(pixels.slice(at, at + 3).join());
      return [...found];
    })()""")
    assert {"47,111,183", "198,47,59"} <= set(colours)  # finished and failed


def test_the_timeline_by_keyboard(chromium: Chromium, files: dict[str, Path]) -> None:
    opened(chromium, files["small"])
    chromium.run("document.getElementById('lanes').focus()")
    chromium.press("ArrowDown")
    assert chromium.run("document.getElementById('chosen').textContent").startswith("relax #0: ✓ finished, 20.1 s, c1")
    chromium.press("ArrowRight")
    second = chromium.run("document.getElementById('chosen').textContent")
    chromium.press("+")
    chromium.press("Enter")
    assert chromium.run("document.getElementById('details').open")
    assert second.startswith(chromium.run("document.getElementById('details-title').textContent"))
    chromium.press("Escape")
    assert not chromium.run("document.getElementById('details').open")
    assert not chromium.problems()


def test_the_table_is_sorted_and_searched(chromium: Chromium, files: dict[str, Path]) -> None:
    opened(chromium, files["middle"])
    chromium.run("document.querySelectorAll('#table th button')[4].click()")  # Took: the longest first
    rows = chromium.run(ROWS)
    assert rows[0][1] == "phonons"
    assert rows[0][4] == chromium.run("document.querySelector('#slowest tbody tr').cells[1].textContent")
    assert chromium.run("document.querySelectorAll('#table th')[4].ariaSort") == "descending"
    chromium.run("document.querySelectorAll('#table th button')[1].click()")
    assert chromium.run(ROWS)[0][1] == "energy"
    assert {row[1] for row in search(chromium, "FIT study.py:23")} == {"fit"}
    assert search(chromium, "no such call") == []
    assert chromium.run("document.getElementById('found').textContent") == "0 of 400 calls"


def test_a_call_is_opened_from_the_table(chromium: Chromium, files: dict[str, Path]) -> None:
    opened(chromium, files["middle"])
    failed = search(chromium, "valueerror")
    chromium.run("document.getElementById('rows').focus()")
    chromium.press("ArrowDown")
    assert chromium.run("document.activeElement.cells[0].textContent") == failed[0][0]
    chromium.press("Enter")
    text = chromium.run("document.getElementById('details').innerText")
    assert "ValueError: the matrix is not positive definite" in text
    assert 'File "study.py", line 12, in solve' in text
    assert "cores_per_rank 8, memory 32 GiB, run_time 1 h 0 min" in text
    chromium.run("document.querySelector('#details .link').click()")  # the call whose result it took
    assert chromium.run("document.getElementById('details-title').textContent").startswith("relax #")


def test_a_state_a_function_and_a_failure_lead_to_the_table(chromium: Chromium, files: dict[str, Path]) -> None:
    opened(chromium, files["middle"])
    chromium.run("document.querySelector('[data-look=failed]').click()")
    failed = chromium.run(ROWS)
    assert {row[2] for row in failed} == {"✗ failed"}
    chromium.run("document.querySelector('#functions [data-function=relax]').click()")
    assert {row[1] for row in chromium.run(ROWS)} == {"relax"}
    chromium.run("document.querySelector('.node[data-function=phonons]').focus()")
    chromium.press("Enter")
    assert {row[1] for row in chromium.run(ROWS)} == {"phonons"}
    chromium.run("document.querySelector('#failures details').open = true")
    chromium.run("document.querySelector('#failures [data-call]').click()")
    assert "✗ failed" in chromium.run("document.getElementById('details').innerText")


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("phone", [False, True])
def test_texts_can_be_read(chromium: Chromium, files: dict[str, Path], dark: bool, phone: bool) -> None:
    size = {"width": 360, "height": 740} if phone else {}
    opened(chromium, files["middle"], dark=dark, phone=phone, **size)
    contrast, text = chromium.run(CONTRAST)
    assert contrast >= 4.5, text
    assert chromium.run("document.documentElement.scrollWidth") <= (360 if phone else 1280)
    ground = chromium.run("getComputedStyle(document.body).backgroundColor")
    assert ground == ("rgb(21, 24, 28)" if dark else "rgb(255, 255, 255)")


def test_all_that_can_be_used_has_a_name(chromium: Chromium, files: dict[str, Path]) -> None:
    opened(chromium, files["small"])
    nodes = chromium.ask("Accessibility.getFullAXTree")["nodes"]
    used = ("button", "link", "searchbox", "combobox", "image", "region", "application", "table", "group")
    named = [(node["role"]["value"], node.get("name", {}).get("value")) for node in nodes if not node["ignored"]]
    assert {role for role, _ in named} >= {"button", "link", "searchbox", "columnheader", "image", "heading", "main"}
    assert not [role for role, name in named if role in used[:-2] and not name]


def test_no_text_of_a_run_becomes_part_of_the_page(chromium: Chromium, files: dict[str, Path]) -> None:
    opened(chromium, files["hostile"])
    assert chromium.run("document.title") == "study.py"
    assert chromium.run("document.querySelectorAll('img').length") == 0
    assert chromium.run("document.scripts.length") == 2
    assert chromium.run(ROWS)[1][1].startswith("</script><script>document.title='taken'")
    search(chromium, "valueerror")
    chromium.run("document.querySelector('#table tr[data-row]').click()")
    assert "<img src=x onerror=" in chromium.run("document.getElementById('details').innerText")
    chromium.run("[...document.querySelectorAll('.node')].at(1).dispatchEvent(new Event('click', {bubbles: true}))")
    assert chromium.run("document.querySelectorAll('img').length") == 0
    assert not chromium.problems()


def test_no_other_script_runs_and_nothing_is_fetched(chromium: Chromium, files: dict[str, Path]) -> None:
    opened(chromium, files["small"])
    chromium.run("""(() => {
      const script = document.createElement("script");
      script.textContent = "document.title = 'taken'";
      const image = document.createElement("img");
      image.src = "http://127.0.0.1:9/x.png";
      document.body.append(script, image);
    })()""")
    assert chromium.run("fetch('http://127.0.0.1:9/').then(() => 'fetched', () => 'refused')") == "refused"
    assert chromium.run("document.title") == "study.py"
    assert any("Content Security Policy" in each for each in chromium.problems())


def test_a_run_without_calls(chromium: Chromium, files: dict[str, Path]) -> None:
    opened(chromium, files["empty"])
    assert "No call has ended yet" in chromium.run("document.body.innerText")


def test_calls_that_have_not_ended_and_values_that_are_not_known(chromium: Chromium, tmp_path: Path) -> None:
    events: list[Event] = [
        RunBegan(BEGAN, "r", "h", 1, ""),
        Submitted(BEGAN, 0, "spin", asked={"memory": [1, 2.5], "env": {"A": "<b>"}}),
        Submitted(BEGAN, 7, "wait", inputs=(0, 99)),
        Waiting(BEGAN, 7, "for spin"),
        Started(BEGAN + 1, 0, "h", "worker 1"),
        Submitted(BEGAN, 8, "odd \udc80", ""),
        Ended(BEGAN + 2, 8, "failed", failure=Failure("WorkerLost", "gone\n" * 3, "", -9, "SIGKILL")),
    ]
    path = tmp_path / "run.html"
    path.write_bytes(page(RunRecord.of(events), BEGAN + 11).encode("utf-8", "backslashreplace"))
    opened(chromium, path)
    assert [row[2:5] for row in chromium.run(ROWS)] == [
        ["● running", "1 s", "10 s"],
        ["○ waiting", "11 s", ""],
        ["✗ failed", "", ""],
    ]
    chromium.run("document.querySelectorAll('#table tr[data-row]')[0].click()")
    text = chromium.run("document.getElementById('details').innerText")
    assert "memory 1 GiB, then 2.5 GiB" in text
    assert "wait #7" in text
    chromium.run("document.querySelector('#details .link').click()")
    assert "○ waiting: waits for spin" in chromium.run("document.getElementById('details').innerText")
