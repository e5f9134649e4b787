"""What a record of a run tells of each call, on every backend: `Executor(events=...)`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import contract_calls as calls
import pytest
from gate import Gate

from callyard import Executor, item
from callyard.events.call_record import RunRecord
from callyard.events.event import Ended, Event, RunBegan, RunEnded, Started, Submitted, Waiting

Make = Callable[..., Executor]


def _story(events: list[Event], call: int) -> list[Event]:
    return [event for event in events if getattr(event, "call", None) == call]


@pytest.mark.core
@pytest.mark.smoke
def test_events_of_a_call_tell_its_story(make: Make) -> None:
    events: list[Event] = []
    with make(events=events.append) as ex:
        first = ex.submit(calls.same, [1])
        second = ex.submit(calls.both, item(first, 0), 2)
        failed = ex.submit(calls.raised, ValueError("no good"))
        after = ex.submit(calls.same, failed)
        assert second.result() == (1, 2)
        assert isinstance(after.exception(), ValueError)
    assert isinstance(events[0], RunBegan)
    assert isinstance(events[-1], RunEnded)
    submitted = [event for event in events if isinstance(event, Submitted)]
    assert [event.name for event in submitted] == ["same", "both", "raised", "same"]
    assert [event.inputs for event in submitted] == [(), (0,), (), (2,)]
    assert {event.line.partition(":")[0] for event in submitted} == {"test_contract_events.py"}
    for call in range(4):
        story = _story(events, call)
        assert isinstance(story[0], Submitted)
        assert isinstance(story[-1], Ended)
        assert sum(isinstance(event, (Submitted, Ended)) for event in story) == 2
        begun = [event for event in story if isinstance(event, Started)]
        assert bool(begun) == (call != 3), story
        assert story[-1].outcome == ("finished" if call < 2 else "failed")
        assert submitted[call].time <= story[-1].time
    _check_usage(events, 0)
    failure = _story(events, 2)[-1].failure  # type: ignore[union-attr]
    assert failure is not None
    assert (failure.error, failure.message) == ("ValueError", "no good")
    assert "no good" in failure.traceback


def _check_usage(events: list[Event], call: int) -> None:
    ended = _story(events, call)[-1]
    assert isinstance(ended, Ended)
    assert ended.usage is not None, "what a call uses is measured on every backend"
    assert 0 <= ended.usage.wall < 60
    assert ended.usage.cpu is None or 0 <= ended.usage.cpu < 60
    assert ended.usage.peak_memory is None or 1 << 20 < ended.usage.peak_memory < 1 << 32
    assert ended.usage.bytes_in is None or 0 < ended.usage.bytes_in < 1 << 16


@pytest.mark.core
def test_events_tell_of_cancellations_and_of_what_a_call_waits_for(make: Make, gate: Gate) -> None:
    events: list[Event] = []
    with make(events=events.append) as ex:
        held = ex.submit(gate.hold)
        waiting = ex.submit(calls.same, held)
        gate.arrived()
        ex._running.recorder.flush()  # type: ignore[union-attr]
        assert waiting.cancel()
        gate.open()
        held.result()
    reasons = [event.reason for event in _story(events, 1) if isinstance(event, Waiting)]
    assert reasons[0] == "for `hold`"
    assert _story(events, 1)[-1].outcome == "cancelled"  # type: ignore[union-attr]
    assert not any(isinstance(event, Started) for event in _story(events, 1))


@pytest.mark.core
def test_a_file_of_events_has_the_states_of_the_futures(make: Make, tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    with make(events=path) as ex:
        futures = [ex.submit(calls.divide, 1.0, float(number % 2)) for number in range(4)]
        errors = [future.exception() for future in futures]
    (record,) = RunRecord.read(path)
    states = [record.calls[number].state for number in range(4)]
    assert [state == "failed" for state in states] == [error is not None for error in errors]
    assert record.ended is not None
    assert record.calls == ex._running.record.calls  # type: ignore[union-attr]
