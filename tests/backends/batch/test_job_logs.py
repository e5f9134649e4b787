"""The log of a job: what is in it while it runs and afterwards, and how large it becomes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from cluster import Cluster
from gate import Gate
from this_machine import until

from callyard import Cache, Executor, ResourceError, Slurm
from callyard.system.process_identity import ProcessIdentity

pytestmark = pytest.mark.once

Detached = Callable[..., Executor]
LIMIT = 64 << 10


def logs(cache: Path) -> list[Path]:
    return sorted((cache / "jobs").glob("*/*.log"))


def talk(gate: Gate, lines: int) -> int:
    """Print by all means, much more than a log may hold, and wait before the end."""
    print("the first line", flush=True)
    for number in range(lines):
        print(f"line {number}")
        if number == lines // 2:
            sys.stdout.flush()
            print("an error", file=sys.stderr, flush=True)
    sys.stdout.flush()
    subprocess.run(["sh", "-c", "echo a child; echo its error >&2"], check=True)
    gate.hold()
    print("the last line")
    return lines


def test_a_log_keeps_its_limit_its_head_and_its_tail(
    slurm: Cluster, detached: Detached, gate: Gate, tmp_path: Path
) -> None:
    ex = detached(log_limit="64KB")
    future = ex.submit(talk, gate, 100_000)
    gate.arrived()
    (log,) = logs(tmp_path / "cache")
    until(lambda: log.read_text().endswith("\na child\nits error\n"))  # while it runs
    gate.open()
    assert future.result() == 100_000
    text = next(iter(Cache(tmp_path / "cache"))).log
    assert text is not None
    assert text.startswith("the first line\nline 0\nline 1\n")
    assert text.endswith("line 99999\na child\nits error\nthe last line\n")
    assert "bytes were left out here, beyond log_limit" in text
    assert LIMIT // 2 < len(text) <= LIMIT


def leave_a_writer() -> str:
    subprocess.Popen(["yes"])
    return "done"


def test_a_process_that_never_stops_printing(slurm: Cluster, detached: Detached) -> None:
    assert detached(log_limit="64KB").submit(leave_a_writer).result(60) == "done"


def in_order(lines: int) -> None:
    for number in range(lines):
        print(number, file=(sys.stdout, sys.stderr)[number % 2], flush=True)


def close_all() -> None:
    print("before")
    sys.stdout.flush()
    os.dup2(1, 5)
    os.closerange(0, 5)
    os.closerange(6, 1000)
    os.write(5, b"after\n")


def kill_itself() -> None:
    os.write(1, b"the last words\n")
    os.kill(os.getpid(), 11)


def test_logs_of_several_calls_of_a_job(slurm: Cluster, detached: Detached, tmp_path: Path) -> None:
    ex = detached(calls_per_job=3)
    futures = [ex.submit(in_order, 1000), ex.submit(kill_itself), ex.submit(close_all)]
    assert futures[0].result() is None
    assert futures[1].exception() is not None
    assert futures[2].result() is None
    found = {entry.function: entry.log for entry in Cache(tmp_path / "cache")}
    assert found == {"in_order": "".join(f"{number}\n" for number in range(1000)), "close_all": "before\nafter\n"}
    (log,) = (tmp_path / "cache" / "jobs").glob("*/1.log")
    assert log.read_text() == "the last words\n"


def test_errors_that_the_user_has_sent_elsewhere(slurm: Cluster, detached: Detached, tmp_path: Path) -> None:
    pytest.importorskip("jinja2")
    future = detached(template=f"#!/bin/bash\n#SBATCH --error={tmp_path}/errors\n{{{{ command }}}}").submit(in_order, 4)
    assert future.result() is None
    assert Cache(tmp_path / "cache")[str(future.key)].log == "0\n2\n"
    assert (tmp_path / "errors").read_text() == "1\n3\n"


def test_a_limit_that_makes_no_sense() -> None:
    with pytest.raises(ResourceError, match="log_limit must be a positive number of GiB"):
        Slurm(log_limit="much")


# ------------------------------------------------------------------ the log that an error names


def die_with_words() -> None:
    print("the last words", flush=True)
    os._exit(3)


def test_an_error_quotes_the_log_which_is_kept_for_a_week(
    slurm: Cluster, detached: Detached, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = tmp_path / "runs"
    monkeypatch.setenv("CALLYARD_RUNS", str(runs))
    ex = detached(cache=None)
    error = ex.submit(die_with_words).exception()
    ex.shutdown()
    found = re.search(r"exit code 3; .*; what it printed is in (\S+), at last:\n    the last words$", str(error))
    assert found is not None, error
    log = Path(found[1])
    assert log.read_text() == "the last words\n"
    monkeypatch.setattr(ProcessIdentity, "state", lambda self: "gone")
    detached(cache=None).shutdown()
    assert log.exists()
    os.utime(log, (0, time.time() - 8 * 24 * 3600))
    detached(cache=None).shutdown()
    assert list(runs.iterdir()) == []
