"""What the documentation shows works: each page's code runs, in order, in a process of its own.

A ```python block is run; a ```text block that follows directly is what it prints ("..." stands for anything
within a line). `<!-- no test: reason -->` before a block leaves it out; `<!-- needs: mpi -->` anywhere on a
page skips the page where that is missing. A page that needs `slurm` runs on the login node of a test cluster, one that
needs `daemon` has the tests' own.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from cluster import Cluster
from local_daemons import TestedDaemon

from callyard.resources import NAMES
from callyard.schedulers.script import VARIABLES

ROOT = Path(__file__).parent.parent
BLOCK = re.compile(
    r"(?P<skip><!-- no test: [^\n]+ -->\n+)?"
    r"^```python\n(?P<code>.*?)^```\n"
    r"(?:\n*```text\n(?P<output>.*?)^```)?",
    re.MULTILINE | re.DOTALL,
)
NEEDS = re.compile(r"<!-- needs: (\w+) -->")


@dataclass(frozen=True)
class Page:
    path: Path

    @property
    def text(self) -> str:
        return self.path.read_text(encoding="utf-8")

    @property
    def blocks(self) -> list[re.Match[str]]:
        return [block for block in BLOCK.finditer(self.text) if not block["skip"]]

    def script(self) -> str:
        """Return the page with all but its code blanked, so that a traceback has the page's line numbers."""
        script = ""
        for block in self.blocks:
            wanted = self.text.count("\n", 0, block.start("code"))
            script += "\n" * (wanted - script.count("\n")) + block["code"]
        return script

    def outputs(self) -> list[str]:
        return [block["output"] for block in self.blocks if block["output"]]


SURROUNDINGS = {"slurm", "daemon"}


def pages(place: str | None = None) -> Iterator[object]:
    """Yield the pages that need this of the surroundings, by default none of them."""
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]:
        page = Page(path)
        needs = NEEDS.findall(page.text)
        if page.blocks and SURROUNDINGS.intersection(needs) == {place} - {None}:
            yield pytest.param(page, id=str(path.relative_to(ROOT)), marks=pytest.mark.needs(*needs))


def run(*arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        cwd=cwd,
        env=os.environ | {"MPLCONFIGDIR": str(cwd)},
        timeout=100,  # before the time of the test is over, so that the output is shown
        check=False,
    )


@pytest.mark.parametrize("page", list(pages()))
def test_page(page: Page, tmp_path: Path) -> None:
    check(page, tmp_path)


@pytest.mark.once
@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system does not bind processes to cores")
@pytest.mark.parametrize("page", list(pages()))
def test_page_on_one_core(page: Page, tmp_path: Path) -> None:
    check(page, tmp_path, "-c", ON_ONE_CORE, sys.executable)


ON_ONE_CORE = (
    "import os, sys; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); os.execv(sys.argv[1], sys.argv[1:])"
)


def test_the_readme_begins_with_ten_lines_of_code() -> None:
    (first, *_) = Page(ROOT / "README.md").blocks
    assert sum(bool(line) for line in first["code"].splitlines()) <= 10
    assert "no test" not in (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("page", list(pages("slurm")))
def test_page_on_a_cluster(page: Page, slurm: Cluster, tmp_path: Path) -> None:
    check(page, tmp_path)


@pytest.mark.parametrize("page", list(pages("daemon")))
def test_page_with_a_daemon(page: Page, daemon: TestedDaemon, tmp_path: Path) -> None:
    check(page, tmp_path)


def check(page: Page, tmp_path: Path, *before: str) -> None:
    script = tmp_path / f"{page.path.stem}.py"
    script.write_text(page.script(), encoding="utf-8")
    ended = run(*before, "-W", "error", script, cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert "Exception ignored" not in ended.stderr, ended.stderr  # a warning where it cannot be raised
    printed = ended.stdout
    for expected in page.outputs():
        pattern = re.escape(expected).replace(re.escape("..."), ".*?")
        match = re.search(pattern, printed)
        assert match, f"the page says:\n{expected}\nbut this was printed:\n{printed}"
        printed = printed[match.end() :]  # outputs are in order


@pytest.mark.needs("ase", "matplotlib")
def test_example(tmp_path: Path) -> None:
    # Warnings are no errors here: they may be ASE's.
    options = ["--metals", "Cu", "Au", "--points", "5", "--output", "curves.png"]
    ended = run(ROOT / "examples" / "equation_of_state.py", *options, cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    rows = {line.split()[0]: line.split()[1:] for line in ended.stdout.splitlines()[2:4]}
    assert rows["Cu"][:3] == ["3.590", "3.615", "3.610"]
    assert rows["Au"][:3] == ["4.056", "4.062", "4.080"]
    assert (tmp_path / "curves.png").stat().st_size > 10_000


def test_variables_of_templates() -> None:
    page = (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")
    table = page.partition("### Job templates")[2].partition("\n## ")[0]
    for name, meaning in VARIABLES.items():
        assert f"| `{name}` | {meaning} |" in table
    keys = set(NAMES) - set(VARIABLES)
    assert set(re.findall(r"`(\w+)`", table.partition("| `ranks`")[2].partition("|")[0])) | {"ranks"} == keys
