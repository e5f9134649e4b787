"""What a job loads: an array begins a thousand interpreters at once, and most calls take less time than imports."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cluster import Cluster
from this_machine import until

from callyard import Executor

pytestmark = pytest.mark.once

HEAVY = [
    *("argparse", "ast", "asyncio", "cloudpickle", "concurrent.futures", "contextlib", "dataclasses", "datetime"),
    *("dis", "enum"),
    *("h5py", "hashlib", "importlib.metadata", "importlib.util", "inspect", "json", "linecache", "logging"),
    *("multiprocessing", "numpy", "pathlib", "pickle", "platform", "queue", "random", "re", "selectors", "shlex"),
    *("shutil", "signal", "socket", "string", "subprocess", "tempfile", "textwrap", "threading", "tokenize"),
    *("traceback", "typing", "urllib", "uuid", "weakref", "ssl", "cryptography"),
]
MOST = 49  # modules of ours, packages included, that a small call loads: each is a file to open on a shared file system


def loaded_at_start() -> set[str]:
    """The modules of an interpreter that has nothing to do."""
    code = "import sys; print(*sys.modules)"
    return set(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split())


# As a script's function: it travels by value. It notes what is loaded when its result has been stored; its process
# is a fork of the one that waits for it, and has loaded what that has, too.
SCRIPT = """
def noted(path, value):
    import atexit, os, sys

    def note():
        with open(path + ".part", "w") as file:
            print(*sys.modules, file=file)
        os.rename(path + ".part", path)

    atexit.register(note)
    return value + 1
"""


@pytest.fixture(params=["script", "module"])
def noted(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The function, of a script or of a module of the user's: the job compares that with the code of the key."""
    if request.param == "script":
        script: dict[str, Any] = {"__name__": "__main__"}
        exec(SCRIPT, script)
        return script["noted"]
    (tmp_path / "module_of_a_light_job.py").write_text(SCRIPT)
    monkeypatch.syspath_prepend(tmp_path)
    return importlib.import_module("module_of_a_light_job").noted


def test_a_small_call_loads_little(slurm: Cluster, results: Path, tmp_path: Path, noted: Any) -> None:
    with Executor(backend="slurm", cache=results) as ex:
        assert ex.submit(noted, str(tmp_path / "loaded"), 1).result() == 2
    until((tmp_path / "loaded").exists)
    loaded = (tmp_path / "loaded").read_text().split()
    by_value = noted.__module__ == "__main__"
    needed = {
        "worker.job",
        "serialize.reconstruct" if by_value else "hashing.imported_code",
        "cache.format.record_writer",
    }
    assert {f"callyard.{name}" for name in needed} <= set(loaded)
    assert set(HEAVY) & set(loaded) - loaded_at_start() == set()
    ours = [name for name in loaded if name.partition(".")[0] == "callyard"]
    assert len(ours) <= MOST, ours
