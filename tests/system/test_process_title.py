"""The names of our processes, as `ps` shows them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from callyard.system.process_title import script_name

pytestmark = [pytest.mark.wide, pytest.mark.skipif(sys.platform != "linux", reason="only Linux shows them")]

SCRIPT = """
import os, subprocess
from callyard import Executor

def names():
    both = f"{os.getpid()},{os.getppid()}"
    return subprocess.run(["ps", "-o", "comm=,args=", "-p", both], capture_output=True, text=True).stdout

with Executor(1) as ex:
    print(ex.submit(names).result())
    print(ex.submit(names, resource_dict={"env": {"PYTHONHASHSEED": "1"}}).result())
"""


def test_workers_are_named_after_the_script(tmp_path: Path) -> None:
    script = tmp_path / "study.py"
    script.write_text(SCRIPT)
    said = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=True).stdout
    assert said.split("\n") == [
        "callyard-guard  callyard: guard of study.py",
        "callyard-worker callyard: worker of study.py",
        "",
    ] * 2 + [""]


def test_a_title_longer_than_the_arguments_is_cut_and_touches_no_variable() -> None:
    code = """
import os
from callyard.system.process_title import set_title
set_title("worker", "x" * 10000)
with open("/proc/self/cmdline", "rb") as arguments, open("/proc/self/environ", "rb") as variables:
    print(len(arguments.read()), os.environ["MARK"], b"MARK=here" in variables.read())
"""
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "MARK": "here"}, capture_output=True, text=True, check=True
    )
    length, *rest = done.stdout.split()
    assert int(length) == len(os.fsencode(sys.executable)) + 1 + len("-c") + 1 + len(code) + 1
    assert rest == ["here", "True"]


def test_names_of_scripts() -> None:
    assert script_name(["/home/me/study.py", "-x"]) == "study.py"
    assert script_name(["/site-packages/pytest/__main__.py"]) == "pytest"
    assert [script_name(argv) for argv in ([], [""], ["-c"], ["-m"])] == [""] * 4
