"""`callyard explain study.py`: by its text, and by a dry run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from callyard import Cache

TOOLS = """
def scale(x):
    return x * 2


def unused():
    pass
"""
STUDY = """
import sys
from callyard import Executor
import tools

FORCE = 0.1


class Atom:
    def __init__(self, n):
        self.n = n

    def move(self, d):
        return self.n + d


def helper(x):
    return tools.scale(x) + FORCE


def relax(metal):
    return helper(len(metal)) + Atom(1).move(2)


def energy(x):
    return x + 1


open("ran", "a").close()
with Executor(max_workers=1, cache="results") as ex:
    print([ex.submit(energy, ex.submit(relax, metal)).result() for metal in sys.argv[1:] or ["Cu", "Al"]])
"""


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """A script that has run, so that its results are in a cache."""
    (tmp_path / "tools.py").write_text(TOOLS)
    path = tmp_path / "study.py"
    path.write_text(STUDY)
    ended = subprocess.run([sys.executable, "study.py"], cwd=tmp_path, check=True, capture_output=True, text=True)
    assert ended.stdout == "[8.1, 8.1]\n"
    (tmp_path / "ran").unlink()
    return path


def change(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_a_script_is_read_and_not_run(callyard, study: Path) -> None:
    ended = callyard("explain", "study.py")
    assert (ended.status, ended.err) == (0, "")
    assert ended.out.splitlines() == [
        "study.py was read, not run; --run makes a dry run, which tells what each of its calls would do",
        "",
        "in the cache results:",
        "FUNCTION  CALLS  BY THIS CODE  BY OTHER CODE",
        "relax         2             2              0",
        "energy        1             1              0",
    ]
    assert not os.path.exists("ran")
    assert "tools" not in sys.modules


def test_changes_of_code_are_found_without_running_it(callyard, study: Path) -> None:
    change(study, "self.n + d", "self.n - d")
    change(study, "FORCE = 0.1", "FORCE = 0.2")
    change(study, "def energy(x):", "def energy(x):  # the same")
    change(study.parent / "tools.py", "x * 2", "2 * x")
    ended = callyard("explain", "results", "study.py")
    text = ended.out.partition("BY OTHER CODE\n")[2].splitlines()
    assert text[:5] == [
        "relax         2             0              2",
        "energy        1             1              0",
        "",
        "relax: 2 calls by other code",
        "  code of Atom.move changed",
    ]
    assert text[7:16] == [
        "    @@ -1,2 +1,2 @@",
        "     def move(self, d):",
        "    -    return self.n + d",
        "    +    return self.n - d",
        "  code of tools.scale changed",
        *text[12:14],
        "    @@ -1,2 +1,2 @@",
        "     def scale(x):",
    ]
    assert text[-1] == "  global __main__.FORCE: 0.1 -> 0.2"
    assert not os.path.exists("ran")


def test_a_helper_that_is_gone_and_functions_of_others(callyard, study: Path, store) -> None:
    store(1, name="other")
    change(study.parent / "tools.py", "def scale", "def scaled")
    found = json.loads(callyard("explain", "study.py", "--json").out)
    (cache,) = found["caches"]
    relax, energy = cache["functions"]
    assert (relax["function"], relax["calls"], relax["by_this_code"]) == ("relax", 2, 0)
    assert relax["changes"] == [{"calls": 2, "differences": ["code of tools.scale is not there any more"], "diffs": {}}]
    assert (energy["by_this_code"], energy["changes"]) == (1, [])
    assert cache["other_functions"] == {"other": 1}
    assert "1 call of functions that study.py does not define: other (1)" in callyard("explain", "study.py").out


@pytest.mark.parametrize(
    ("words", "status", "says"),
    [
        (["missing.py"], 1, "missing.py cannot be read: No such file or directory"),
        (["bad.py"], 1, "bad.py is not Python 3"),
        (["bare.py"], 2, "which cache? bare.py names none"),
        (["bare.py", "x"], 2, "what is 'x'? Arguments of a script are for --run"),
        (["--run", "abcdef"], 2, "which script?"),
        (["-C", "missing", "bare.py"], 1, "there is no cache 'missing'"),
    ],
)
def test_what_cannot_be_explained(callyard, tmp_path: Path, words: list[str], status: int, says: str) -> None:
    (tmp_path / "bad.py").write_text("def (")
    (tmp_path / "bare.py").write_text("from callyard import Executor\nEx = Executor(cache=print)\n")
    ended = callyard("explain", *words)
    assert ended.status == status
    assert says in ended.err


# ------------------------------------------------------------------ --run


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "callyard", "explain", *words], capture_output=True, text=True, check=False, timeout=60
    )


def test_a_dry_run_asks_first(study: Path) -> None:
    ended = run("--run", "study.py")
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr.startswith("callyard explain: --run runs study.py: its executors compute, submit and store")
    assert "there is no terminal to ask on: say --yes" in ended.stderr
    assert not os.path.exists("ran")


def test_a_dry_run_of_a_script(study: Path) -> None:
    ended = run("--run", "--yes", "study.py", "--", "Cu", "iron")
    assert ended.returncode == 0
    assert ended.stderr.count("\n") == 1
    assert "  2  relax(metal='iron'): argument metal: 'Cu' -> 'iron'\n" in ended.stdout or (
        "  2  relax(metal='iron'): argument metal: 'Al' -> 'iron'\n" in ended.stdout
    )
    assert "  3  energy(x=the result of relax (2)): after relax (2)\n" in ended.stdout
    assert "the result of energy (call 3) was asked for" in ended.stdout
    assert os.path.exists("ran")
    assert len(Cache("results")) == 3


def test_a_dry_run_as_json(study: Path) -> None:
    change(study, "print(", "print('hello',")
    found = json.loads(run("--run", "--yes", "--json", "study.py").stdout)
    (plan,) = found["plans"]
    assert [(call["name"], call["state"]) for call in plan["calls"]] == [("relax", "cached"), ("energy", "cached")] * 2
    assert found["status"] == 0


def test_a_script_that_fails_or_makes_no_executor(tmp_path: Path) -> None:
    (tmp_path / "empty.py").write_text("")
    (tmp_path / "failing.py").write_text("from callyard import Executor\nwith Executor(): 1 / 0\n")
    assert run("--run", "--yes", "empty.py").stdout == "empty.py has made no executor\n"
    ended = run("--run", "--yes", "failing.py")
    assert ended.returncode == 1
    assert "ZeroDivisionError" in ended.stderr
    assert "failing.py has ended with status 1" in ended.stderr
