"""Records of real runs: whatever happens to calls, the states of the record are those of the futures."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from gate import until
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import callyard
from callyard.events.call_record import RunRecord
from callyard.events.event import Ended, Event, Started, Submitted


def step(kind: str, *inputs: Any) -> Any:
    if kind == "fail":
        raise ValueError("no good")
    if kind == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    return [kind]


def state_of(future: callyard.Future[Any]) -> set[str]:
    if future.cancelled():
        return {"cancelled"}
    if future.exception() is not None:
        return {"failed"}
    return {"finished", "cached"} if future.cached is not None else {"finished"}


pytestmark = pytest.mark.once

_steps = st.tuples(st.sampled_from(["go", "go", "go", "fail", "die"]), st.lists(st.integers(0, 30), max_size=2))
_graphs = st.lists(st.tuples(_steps, st.booleans(), st.booleans()), min_size=1, max_size=12)


@pytest.mark.parametrize("cached", [False, True], ids=["without a cache", "with a cache"])
@settings(max_examples=6, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
@given(graph=_graphs, ending=st.sampled_from(["wait", "wait", "cancel", "kill"]))
def test_a_record_has_the_states_of_the_futures(
    graph: list[Any], ending: str, cached: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    place = tmp_path_factory.mktemp("run")
    more: dict[str, Any] = {"cache": place / "results"} if cached else {}
    events: list[Event] = []
    ex = callyard.Executor(2, events=events.append, **more)
    futures: list[callyard.Future[Any]] = []
    inputs: list[set[int]] = []
    for (kind, wanted), part, cancels in graph:
        chosen = [number % len(futures) for number in wanted] if futures else []
        given_futures = [callyard.item(futures[n], 0) if part else futures[n] for n in chosen]
        futures.append(ex.submit(step, kind, *given_futures))
        inputs.append(set(chosen))
        if cancels:
            futures[-1].cancel()
    if ending == "kill":
        ex.kill_workers()
    ex.shutdown(wait=True, cancel_futures=ending == "cancel")
    record = RunRecord.of(events)
    assert len(record.calls) == len(futures)
    for number, future in enumerate(futures):
        call = record.calls[number]
        assert call.state in state_of(future), (number, call)
        assert set(call.inputs) <= inputs[number]  # a part of a failed result does not tell where it comes from
        story = [event for event in events if getattr(event, "call", None) == number]
        assert isinstance(story[0], Submitted)
        assert isinstance(story[-1], Ended)
        assert sum(isinstance(event, Ended) for event in story) == 1
        if call.state == "finished":
            assert any(isinstance(event, Started) for event in story)
    assert record.ended is not None


_DRIVER = """
import os, sys, callyard
def hold(x): return x
with callyard.Executor(2, events=sys.argv[1]) as ex:
    for number in range(100000):
        ex.submit(hold, number).result()
        if number == 30:
            print("runs", flush=True)
"""


def test_a_killed_driver_leaves_whole_lines(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    drivers = [subprocess.Popen([sys.executable, "-c", _DRIVER, str(path)], stdout=subprocess.PIPE) for _ in range(2)]
    for driver in drivers:
        assert driver.stdout is not None
        driver.stdout.readline()
    # The record is written a moment after the calls.
    until(lambda: [run.calls[0].is_over for run in RunRecord.read(path) if run.calls] == [True, True])
    for driver in drivers:
        driver.kill()
        driver.wait()
        driver.stdout.close()  # type: ignore[union-attr]
    runs = RunRecord.read(path)
    assert len(runs) == 2
    for run in runs:
        assert run.ended is None
        assert run.calls[0].state == "finished"


_INTERRUPTED = """
import os, signal, sys, time, callyard
with callyard.Executor(2, events=sys.argv[1]) as ex:
    futures = [ex.submit(time.sleep, 1000) for _ in range(5)]
    while not any(future.running() for future in futures):
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(1000)
"""


def test_ctrl_c_loses_no_event(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    run = subprocess.run([sys.executable, "-c", _INTERRUPTED, str(path)], capture_output=True, check=False)
    assert b"KeyboardInterrupt" in run.stderr
    (record,) = RunRecord.read(path)
    assert record.ended is not None
    assert set(record.counts()) <= {"failed", "cancelled"}
    assert len(record.calls) == 5


_LEFT = """
import sys, callyard
ex = callyard.Executor(2, events=sys.argv[1])
futures = [ex.submit(pow, 2, number) for number in range(20)]
"""


def test_the_end_of_the_interpreter_loses_no_event(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    subprocess.run([sys.executable, "-c", _LEFT, str(path)], check=True)
    (record,) = RunRecord.read(path)
    assert record.counts() == {"finished": 20}
    assert record.ended is not None
