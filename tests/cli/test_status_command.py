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
from callyard.cli import cancel
from callyard.report import ask_processes
from callyard.report.ask_processes import ProcessAnswer

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


@pytest.mark.parametrize("words", [["results"], ["-C", "results"], []])
def test_a_call_is_cancelled_by_its_key(
    callyard: Callable[..., Any], gate: Gate, words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if not words:
        monkeypatch.setenv("CALLYARD_CACHE", "results")
    with executor(gate, 1, cache="results") as ex:
        held = ex.submit(gate.hold)
        gate.arrived()
        ended = callyard("cancel", *words, held.key)
        assert (ended.status, ended.err) == (0, "")
        assert ended.out.startswith("ended 'hold', key ")
        until(held.done)
        refused = callyard("cancel", *words, held.key)
        assert (refused.status, refused.out) == (1, "")
        assert f"no call that waits or runs has a key that begins with '{held.key}'" in refused.err


def test_what_is_done_is_told_also_if_a_later_word_is_wrong(callyard: Callable[..., Any], gate: Gate) -> None:
    with executor(gate, 1) as ex:
        ex.submit(gate.hold)
        gate.arrived()
        waiting = ex.submit(abs, -1)
        name = callyard("status").out.split()[0]
        ended = callyard("cancel", f"{name}:1", f"{name}:77")
        assert (ended.status, ended.out) == (1, "cancelled 'abs'\n")
        assert f"no call {name}:77 waits or runs" in ended.err
        assert waiting.cancelled()


def test_a_process_that_does_not_answer_may_cancel_later(
    callyard: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cancel, "ask_all", lambda *_, **__: [ProcessAnswer(4711, None, "is stopped")])
    ended = callyard("cancel", "4711:3")
    assert (ended.status, ended.out) == (1, "")
    assert "process 4711 is stopped, so it may cancel the call later: see `callyard status`" in ended.err


def test_all_the_jobs_of_a_cache_are_not_its_running_calls(callyard: Callable[..., Any], gate: Gate) -> None:
    with executor(gate, 1, cache="results") as ex:
        ex.submit(gate.hold)
        gate.arrived()
        ended = callyard("cancel", "--all", "results")
    assert (ended.status, ended.out) == (0, "")
    assert "results waits or runs; other calls are cancelled by name" in ended.err


def test_the_output_of_a_cancelled_call(callyard: Callable[..., Any], gate: Gate) -> None:
    def noisy() -> None:
        print("so far", flush=True)
        gate.hold()

    with executor(gate, 1, cache="results") as ex:
        held = ex.submit(noisy)
        gate.arrived()
        until(lambda: callyard("logs", "results", held.key).out == "so far\n")
        assert callyard("cancel", "results", held.key).status == 0
        until(held.done)
    assert callyard("logs", "results", held.key[:12]).out == "so far\n"
    assert callyard("prune", "results", "--function", "noisy", "--yes").status == 0
    assert "there is no call" in callyard("logs", "results", held.key).err


def test_processes_are_told_in_one_order(monkeypatch: pytest.MonkeyPatch) -> None:
    late_first = [ProcessAnswer(pid, {}) for pid in (30, 4, 200)]
    monkeypatch.setattr(ask_processes, "_answers", lambda *_: iter(late_first))
    with Executor(1):
        assert [answer.pid for answer in ask_processes.ask_all("status")] == [4, 30, 200]


def test_the_jobs_of_a_cache(callyard: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "results").mkdir(mode=0o700)
    assert "results: no jobs" in callyard("status", "results").out
