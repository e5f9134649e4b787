"""`callyard status`, and `callyard cancel` of calls of running executors."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from gate import Gate, until

from callyard import Executor

pytestmark = pytest.mark.wide


@pytest.fixture(autouse=True)
def nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CALLYARD_STATUS", "CALLYARD_DAEMON"):
        monkeypatch.setenv(name, str(tmp_path / name))


@contextmanager
def executor(gate: Gate, *args: Any, **kwargs: Any) -> Iterator[Executor]:
    """Yield an executor whose calls are let through in any case."""
    with Executor(*args, **kwargs) as ex:
        try:
            yield ex
        finally:
            gate.open(100)


def test_nothing_runs(callyard: Callable[..., Any]) -> None:
    ended = callyard("status")
    assert (ended.status, ended.out) == (0, "no executor runs here, and no job of this machine's daemon\n")


def test_a_directory_of_sockets_that_others_may_enter(callyard: Callable[..., Any], tmp_path: Path) -> None:
    place = tmp_path / "CALLYARD_STATUS"
    place.mkdir()
    place.chmod(0o777)
    ended = callyard("status")
    assert (ended.status, ended.out) == (1, "")
    assert f"{place} must be a directory of yours that nobody else may enter" in ended.err


def test_running_executors(callyard: Callable[..., Any], gate: Gate) -> None:
    with executor(gate, 1) as ex:
        held, waiting = ex.submit(gate.hold), ex.submit(abs, -1)
        gate.arrived()
        text = callyard("status").out
        assert re.match(rf"{os.getpid()}(\.\d+)? \S+: live on ", text)
        assert "1 waiting, 1 running" in text
        assert "1 call waits for one of the running calls to end (max_workers)" in text
        said = json.loads(callyard("status", "--json").out)
        assert said["processes"][0]["executors"][0]["running"][0]["name"] == "hold"
        name = text.split()[0]
        ended = callyard("cancel", f"{name}:1")
        assert (ended.status, ended.out) == (0, "cancelled 'abs'\n")
        assert waiting.cancelled()
        ended = callyard("cancel", f"{name}:77")
        assert ended.status == 1
        assert f"no call {name}:77 waits or runs" in ended.err
        assert "ended 'hold', which was running" in callyard("cancel", f"{name}:0").out
        until(held.done)
        assert held.cancelled()


def test_the_jobs_of_a_cache(callyard: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "results").mkdir(mode=0o700)
    assert "results: no jobs" in callyard("status", "results").out
