"""Calls that fail in one way or another, and what is asked of the errors that they leave."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest
from cluster import Cluster
from this_machine import until

from callyard import CallyardError, Executor
from callyard.futures import Future

PATIENCE = 60.0  # s; spent only where something is wrong
Error = TypeVar("Error", bound=CallyardError)
Detached = Callable[..., Executor]


def add(a: int, b: int) -> int:
    return a + b


def hold(place: str, value: Any = None) -> Any:
    """Run until somebody makes the file `go`; note each start."""
    with open(f"{place}/starts", "a") as file:
        file.write(f"{os.environ['SLURMD_NODENAME']}\n")
    while not os.path.exists(f"{place}/go"):
        time.sleep(0.02)
    return value


def starts(place: Path) -> list[str]:
    """The nodes on which `hold` has started, one after the other."""
    path = place / "starts"
    return path.read_text().split() if path.exists() else []


def until_it_runs(place: Path, times: int = 1) -> str:
    """Wait until `hold` has started so often; on which node that was."""
    until(lambda: len(starts(place)) >= times)
    return starts(place)[times - 1]


def until_submitted(cluster: Cluster, future: Future[Any]) -> str:
    """Wait until the scheduler has the job of a call; its name."""
    until(lambda: future.job_id is not None and cluster.state(future.job_id) != "")
    assert future.job_id is not None
    return future.job_id


def failure(future: Future[Any], kind: type[Error], *words: str, log: bool = True) -> Error:
    """The error of a call: of this very class; it names the call, its job, where its log is, and says these words."""
    error = future.exception(timeout=PATIENCE)
    assert type(error) is kind, repr(error)
    text = str(error)
    for word in (repr(future.name), future.job_id or "no job", *words):
        assert word in text, f"{word!r} is not in {text!r}"
    if log:
        assert re.search(r"/jobs/[0-9a-f]{16}/\d+\.log\b", text), text
    return error


class Unopenable:
    """What can be sent, and cannot be opened by whom it reaches."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (refuse, ())


def refuse() -> None:
    if "SLURM_JOB_ID" in os.environ:
        raise LookupError("what it needs is not here")


def places(tmp_path: Path, *names: str) -> list[Path]:
    """Directories for several calls of `hold`."""
    made = [tmp_path / name for name in names]
    for place in made:
        place.mkdir()
    return made


def on(node: str) -> dict[str, list[str]]:
    return {"slurm_cmd_args": [f"--nodelist={node}"]}


def put_before(directory: Path, monkeypatch: pytest.MonkeyPatch, command: str, text: str) -> Path:
    """Let lines of shell run in place of a command; in them "$real" is that command. Returns a directory for them.

    They find that directory as the current one, and leave traces in it.
    """
    directory.mkdir()
    real = shutil.which(command)
    assert real is not None
    script = directory / command
    script.write_text(f"#!/bin/sh\nreal={shlex.quote(real)}\ncd {shlex.quote(str(directory))}\n{text}\n")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{directory}:{os.environ['PATH']}")
    return directory


AT_MOST = """
for word; do case $word in --array=*)
    list=$(echo "$word" | sed 's/--array=//; s/%.*//'); first=${list%%-*} last=${list##*-}
    [ $((last - first + 1)) -le MOST ] || { echo "sbatch: error: AssocMaxSubmitJobLimit" >&2; exit 1; };;
esac; done
exec "$real" "$@"
"""


def refuse_arrays(directory: Path, monkeypatch: pytest.MonkeyPatch, beyond: int) -> None:
    """Let sbatch find arrays of more elements too large."""
    put_before(directory, monkeypatch, "sbatch", AT_MOST.replace("MOST", str(beyond)))


def another_python() -> str | None:
    """An interpreter of another minor version, if one starts here."""
    probe = "import sys; print(*sys.version_info[:2], sep='.')"
    for version in ("3.10", "3.11", "3.12", "3.13", "3.14"):
        if version == ".".join(map(str, sys.version_info[:2])):
            continue
        beside = Path(sys.base_prefix).parent.glob(f"{version}.*/bin/python")  # where pyenv has them
        for found in filter(None, [shutil.which(f"python{version}"), *map(str, beside)]):
            said = subprocess.run([found, "-c", probe], capture_output=True, text=True, check=False).stdout
            if said.strip() == version:
                return found
    return None
