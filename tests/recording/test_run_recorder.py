"""The recorder of a run, told by a backend that is only pretended."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from gate import Gate

import callyard
from callyard.errors import CallyardError
from callyard.events.call_record import RunRecord
from callyard.events.event import Ended, Event, RunBegan, RunEnded, Started, Submitted, Waiting
from callyard.events.usage import Usage
from callyard.futures import Future
from callyard.recording import run_recorder
from callyard.recording.run_recorder import RunRecorder
from callyard.recording.targets import targets_of
from callyard.resources import Resources


class Run:
    """A recorder, and the events that have come from it."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.recorder = RunRecorder(targets_of(self.events.append))

    def submit(self, *args: Any, future: Future[Any] | None = None) -> Future[Any]:
        given = Future("f") if future is None else future
        return self.recorder.submit(lambda *_: given, len, args, {}, Resources())

    def kinds(self, call: int) -> list[type]:
        self.recorder.flush()
        return [type(event) for event in self.events if getattr(event, "call", None) == call]


@pytest.fixture
def run() -> Iterator[Run]:
    one = Run()
    yield one
    one.recorder.close_at_exit()
    assert not [thread for thread in threading.enumerate() if thread.name == "callyard-events"]


def test_the_story_of_a_call(run: Run):
    run.recorder.begin("<words>", {"cores": 2})
    future = run.submit()
    run.recorder.started(future, "c1", "worker 7", 1, None, 5.0)
    future.note_usage(Usage(2.0))
    future.set_result("large")
    assert run.kinds(0) == [Submitted, Started, Ended]
    began, submitted, started, ended = run.events
    assert isinstance(began, RunBegan)
    assert (began.pid, began.executor, began.capacity) == (os.getpid(), "<words>", {"cores": 2})
    assert isinstance(submitted, Submitted)
    assert submitted.line.startswith("test_run_recorder.py:")
    assert started == Started(5.0, 0, "c1", "worker 7")
    assert isinstance(ended, Ended)
    assert (ended.outcome, ended.usage) == ("finished", Usage(2.0))
    assert run.recorder.record.calls[0].state == "finished"
    run.recorder.close(wait=True)
    assert isinstance(run.events[-1], RunEnded)


@pytest.mark.parametrize(
    ("path", "line"),
    [("/home/me/study.py", "study.py:1"), ("/tmp/ipykernel_4711/123.py", "cell:1"), ("<stdin>", "<stdin>:1")],
)
def test_the_line_of_a_submission(run: Run, path: str, line: str):
    submit = partial(run.recorder.submit, lambda *_: Future("f"), len, (), {}, Resources())
    exec(compile("submit().set_result(1)", path, "exec"), {"submit": submit, "__name__": "__main__"})
    run.recorder.flush()
    assert [event.line for event in run.events if isinstance(event, Submitted)] == [line]


def test_a_start_before_the_submission_is_known_comes_after_it(run: Run):
    future: Future[Any] = Future("f")
    run.recorder.started(future, "c1")
    run.submit(future=future)
    future.set_result(1)
    assert run.kinds(0) == [Submitted, Started, Ended]


def test_what_a_shared_call_does_all_its_futures_do(run: Run):
    inner, early, late, last = (Future("f") for _ in range(4))
    run.recorder.stands_for(inner, early)
    run.recorder.started(inner, "c1")
    run.submit(future=early)
    run.submit(future=late)
    run.recorder.stands_for(inner, late)
    run.recorder.stands_for(inner, last)
    run.submit(future=last)
    assert [run.kinds(call) for call in range(3)] == [[Submitted, Started]] * 3
    for future in (early, late, last):
        future.cancel()


def test_inputs_have_numbers_also_through_derived_futures(run: Run):
    first, second = run.submit(), run.submit()
    part = callyard.item(second, 0)
    both = callyard.batched([first, second], 2)
    run.submit([first], {"a": part})
    run.submit(callyard.item(part, 1), both[0])
    run.recorder.flush()
    first.set_result(1)
    second.set_result([[1, 2]])
    run.submit(part, both[0])
    run.recorder.flush()
    submitted = {event.call: event.inputs for event in run.events if isinstance(event, Submitted)}
    assert submitted == {0: (), 1: (), 2: (0, 1), 3: (0, 1), 4: (0, 1)}
    reasons = [event.reason for event in run.events if isinstance(event, Waiting)]
    assert reasons[:2] == ["for `f` and 1 other call"] * 2


def test_outcomes(run: Run):
    failed, cancelled = run.submit(), run.submit()
    error = callyard.WorkerLost("gone")
    error.exitcode = -9
    failed.set_exception(error)
    cancelled.cancel()
    run.recorder.flush()
    ends = {event.call: event for event in run.events if isinstance(event, Ended)}
    assert ends[1].outcome == "cancelled"
    failure = ends[0].failure
    assert failure is not None
    assert (failure.error, failure.message, failure.signal) == ("WorkerLost", "gone", "SIGKILL")


def test_of_a_huge_message_beginning_and_end_are_recorded(run: Run):
    run.submit().set_exception(ValueError("a" + "x" * 1_000_000 + "z"))
    run.recorder.flush()
    [failure] = [event.failure for event in run.events if isinstance(event, Ended)]
    assert failure is not None
    assert failure.message[0] + failure.message[-1] == "az"
    assert "characters are left out" in failure.message
    assert len(failure.message) < 10_100
    assert len(failure.traceback) < 50_100


def test_a_function_that_raises_is_told_of_once(caplog: pytest.LogCaptureFixture):
    def broken(event: Event) -> None:
        raise ValueError("broken")

    recorder = RunRecorder(targets_of(broken))
    futures = [recorder.submit(lambda *_: Future("f"), len, (), {}, Resources()) for _ in range(3)]
    for future in futures:
        future.set_result(1)
    recorder.close(wait=True)
    assert [record.exc_info is not None for record in caplog.records] == [True]
    assert recorder.record.counts() == {"finished": 3}


def test_a_full_disk_is_one_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture):
    path = tmp_path / "run.jsonl"
    recorder = RunRecorder(targets_of(path))
    with monkeypatch.context() as patched:
        patched.setattr("callyard.recording.event_file.os.write", lambda *_: (_ for _ in ()).throw(OSError(28, "full")))
        future = recorder.submit(lambda *_: Future("f"), len, (), {}, Resources())
        recorder.flush()
        future.set_result(1)
        recorder.flush()
    recorder.close(wait=True)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert '"run-ended"' in path.read_text(), "what comes later is written"


def test_several_runs_in_one_file(tmp_path: Path):
    path = tmp_path / "run.jsonl"
    one, other = RunRecorder(targets_of(path)), RunRecorder(targets_of(str(path)))
    for recorder in (one, other):
        recorder.begin("", {})
    for recorder in (one, other, one):
        recorder.submit(lambda *_: Future("f"), len, (), {}, Resources()).set_result(1)
        recorder.flush()
    one.close(wait=True)
    other.close(wait=True)
    assert [len(record.calls) for record in RunRecord.read(path)] == [2, 1]
    assert RunRecord.read(path) == [one.record, other.record]


def test_the_log_gets_events_where_its_level_is_set(caplog: pytest.LogCaptureFixture):
    assert targets_of(None) == []
    with caplog.at_level(logging.DEBUG, "callyard.events"):
        recorder = RunRecorder(targets_of(None))
        ok, bad = (recorder.submit(lambda *_: Future("f"), len, (), {}, Resources()) for _ in range(2))
        ok.set_result(1)
        bad.set_exception(ValueError("no"))
        recorder.close(wait=True)
    logged = [record for record in caplog.records if record.name == "callyard.events"]
    assert sum(isinstance(record.event, Ended) for record in logged) == 2  # type: ignore[attr-defined]
    assert [record.levelname for record in logged if "failed" in record.getMessage()] == ["INFO"]


def test_impossible_targets(tmp_path: Path):
    with pytest.raises(CallyardError, match="cannot be written to: No such file or directory"):
        targets_of(tmp_path / "no" / "run.jsonl")
    with pytest.raises(TypeError, match="a path or a function, not 3"):
        targets_of(3)  # type: ignore[arg-type]


def test_a_call_is_told_as_running_where_only_its_future_knows(run: Run, monkeypatch: pytest.MonkeyPatch):
    future = run.submit()
    future.set_running_or_notify_cancel()
    until = time.monotonic() + 20
    while Started not in run.kinds(0) and time.monotonic() < until:
        time.sleep(0.01)
    future.set_result(1)
    assert run.kinds(0) == [Submitted, Started, Ended]


def test_nothing_keeps_a_result_alive(run: Run):
    import gc
    import weakref

    class Result:
        pass

    future, result = run.submit(), Result()
    gone = weakref.ref(result)
    future.set_result(result)
    del result, future
    run.recorder.flush()
    gc.collect()
    assert gone() is None


def test_a_forked_child_records_nothing(run: Run):
    run.submit()
    run.recorder.flush()
    pid = os.fork()
    if pid == 0:
        run.submit()
        os._exit(0 if run.recorder.flush() and run.recorder._notes.empty() else 1)
    assert os.waitpid(pid, 0)[1] == 0
    run.recorder.flush()
    assert len(run.events) == 1


def test_an_interrupted_submission_cancels(run: Run, monkeypatch: pytest.MonkeyPatch):
    future: Future[Any] = Future("f")

    def interrupted() -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr("callyard.recording.run_recorder.user_line", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run.submit(future=future)
    assert future.cancelled()


def test_a_callback_may_shut_down_while_other_calls_go_on(gate: Gate):
    done = threading.Event()
    with callyard.Executor(2, events=True) as ex:
        held = ex.submit(gate.hold, 3)
        gate.arrived()

        def end(_: object) -> None:
            ex.shutdown(wait=True)
            done.set()

        ex.submit(abs, -1).add_done_callback(end)
        assert done.wait(60)
        gate.open()
        assert held.result() == 3
    assert [call.state for call in ex._running.record.calls.values()] == ["finished", "finished"]  # type: ignore[union-attr]


@pytest.mark.parametrize("calls", [1, 33, 200])
def test_a_look_at_the_record_and_the_end_wait_for_no_bundle(monkeypatch: pytest.MonkeyPatch, calls: int):
    monkeypatch.setattr(run_recorder, "_LATENCY", 3600.0)
    with callyard.Executor(1, events=True) as executor:
        for _ in range(2):
            for future in [executor.submit(abs, number) for number in range(calls)]:
                future.result()
            record = executor._running.record
        assert record is not None
        assert record.counts() == {"finished": 2 * calls}


def test_a_function_that_takes_events_may_ask_for_the_record():
    counted: list[int] = []

    def ask(event: Event) -> None:
        if isinstance(event, Ended):
            counted.append(len(run.record.calls))
            assert not run.flush(1000)  # at once

    run = RunRecorder(targets_of(ask))
    run.submit(lambda *_: Future("f"), len, (), {}, Resources()).set_result(1)
    run.close(wait=True)
    assert counted == [1]


def test_the_interpreter_does_not_wait_for_a_function_that_hangs(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(run_recorder, "_PATIENCE", 0.01)
    go_on = threading.Event()
    run = RunRecorder(targets_of(lambda _: go_on.wait()))
    run.begin("<words>", {})
    run.close_at_exit()
    go_on.set()
    run.close(wait=True)


def test_a_failure_whose_class_cancels_is_the_end_of_its_call(run: Run):
    class Packed:
        def load(self) -> BaseException:
            raise asyncio.CancelledError

    run.submit().fail(Packed())  # type: ignore[arg-type]
    assert run.kinds(0)[-1] is Ended
    assert run.recorder.record.calls[0].failure.error == "CancelledError"  # type: ignore[union-attr]
