"""What users write type-checks, and results have the types that one expects."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import callyard

pytestmark = pytest.mark.needs("mypy")
USER_CODE = Path(__file__).parent / "typing" / "user_code.py"
SOURCES = Path(__file__).parent.parent / "src"


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("mypy")


def check(path: Path, cache: Path) -> tuple[int, str]:
    """Run mypy as a user does: away from the sources and their configuration, on the installed package."""
    installed = SOURCES not in Path(callyard.__file__).parents
    options = ["--strict", "--follow-imports", "normal" if installed else "silent"]
    options += ["--cache-dir", str(cache), "--config-file", ""]
    checked = subprocess.run(
        [sys.executable, "-m", "mypy", *options, str(path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=cache,
        env=os.environ | ({} if installed else {"MYPYPATH": str(SOURCES)}),
        check=False,
    )
    return checked.returncode, checked.stdout


def test_user_code(cache: Path) -> None:
    status, said = check(USER_CODE, cache)
    assert status == 0, said


def test_mistakes_are_found(cache: Path, tmp_path: Path) -> None:
    mistakes = tmp_path / "mistakes.py"
    mistakes.write_text(
        "from callyard import Executor\n"
        "def double(x: int) -> int: return 2 * x\n"
        "with Executor() as ex:\n"
        "    text: str = ex.submit(double, 1).result()\n"
        "    Executor(max_worker=2)\n"
    )
    _, said = check(mistakes, cache)
    assert [line.split(":")[1] for line in said.splitlines() if ": error:" in line] == ["4", "5"], said
