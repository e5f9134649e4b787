"""The successor of a call that has gone beyond a limit: the next limit is in its file, its request and its script."""

from __future__ import annotations

from pathlib import Path

import pytest
from batches import batch
from limited_calls import GIB, TOKEN, LimitedCalls

from callyard.errors import CacheError, OutOfMemory
from callyard.jobs.batch import BatchPart, CallAgain, CallFile
from callyard.jobs.find_batches import folders
from callyard.jobs.next_limits import limits_of
from callyard.jobs.spool import BatchDirectory
from callyard.jobs.submission import request_of
from callyard.jobs.successor import move_to_successor
from callyard.resources import Resources
from callyard.worker.job_outcome import moves_on

BEYOND_MEMORY, BEYOND_TIME = "OutOfMemory", "TimeLimitExceeded"


def limits(folder: BatchDirectory) -> tuple[object, ...]:
    """The limits in a call's file, for the scheduler, and for people."""
    call = CallFile.load(folder.call(0))
    asked, part = request_of(folder, BatchPart(0, 1)), folder.batch.resources
    assert call.options.get("memory") == call.memory
    return (
        None if call.memory is None else call.memory / GIB, call.run_time, asked.resources.memory,
        asked.resources.run_time, asked.time, part.get("memory"), part.get("run_time"),
    )  # fmt: skip


def test_all_attempts_of_a_call() -> None:
    asked = Resources(memory=[1, 2], run_time=[10, "1min"])
    assert [limits_of(each) for each in asked.attempts()] == ["1 10", "2 10", "1 60.0", "2 60.0"]
    assert Resources(memory=1).attempts() == [Resources(memory=1)]


def test_the_limits_are_tried_in_turn(tmp_path: Path) -> None:
    asked = Resources(memory=[1, "2GB", 4], run_time=[10, 60], grace=5, begin="now+1hour", restart_limit=2)
    spool = LimitedCalls(tmp_path / "cache", asked)
    spool.run(spool.folder)
    second = spool.moved(BEYOND_MEMORY)
    assert limits(second) == (2, 10, 2, 10, 75, [2.0, 4], [10, 60])
    assert "begin" not in second.batch.request["resources"]
    spool.run(second)
    third = spool.moved(BEYOND_TIME, second)
    assert limits(third) == (2, 60, 2, 60, 125, [2.0, 4], 60)
    assert third.again(0) == CallAgain(3, 0, b"")
    spool.run(third)
    last = spool.moved(BEYOND_MEMORY, third)
    assert limits(last) == (4, 60, 4, 60, 125, 4, 60)
    assert last.batch.resources["cores_per_rank"] == 2
    assert last.batch.restart_limit == 2, "none was needed"
    assert last.batch.tried == "; earlier attempts had memory=1 GiB, run_time=10 s, memory=2 GiB"
    assert last.batch.limit == "memory=4 GiB"
    spool.run(last)
    for error in (BEYOND_MEMORY, BEYOND_TIME, "NodeLost", "JobCancelled", ""):
        assert not move_to_successor(last, 0, error)
    assert last.ended(0) is None


def test_calls_without_a_list_do_not_move(tmp_path: Path) -> None:
    spool = LimitedCalls(tmp_path / "cache", Resources(memory=1, run_time=[1, 2]))
    spool.run(spool.folder)
    for error in (BEYOND_MEMORY, "WorkerLost", "NodeFailure", ""):
        assert not move_to_successor(spool.folder, 0, error)
    assert len(list(folders(spool.home))) == 1


def test_arguments_of_an_earlier_attempt_are_kept(tmp_path: Path) -> None:
    spool = LimitedCalls(tmp_path / "cache", Resources(memory=[1, 2]))
    spool.folder.run_again(0, CallAgain(3, 1, b"arguments", 1))
    spool.run(spool.folder)
    assert spool.moved(BEYOND_MEMORY).again(0) == CallAgain(4, 0, b"arguments")


def test_a_call_that_asked_for_another_run_first_gets_that(tmp_path: Path) -> None:
    """Its job was ended before the next run: nothing says that its limit was too low."""
    spool = LimitedCalls(tmp_path / "cache", Resources(memory=[1, 2], run_time=[1, 2]))
    spool.run(spool.folder, at=1.0)
    spool.folder.run_again(0, CallAgain(2, 0, b"arguments"))
    successor = spool.moved(BEYOND_TIME)
    assert successor.again(0) == CallAgain(2, 0, b"arguments")
    assert limits(successor)[:2] == (1, 1)


def test_only_the_call_that_went_beyond_its_limit_moves(tmp_path: Path) -> None:
    spool = LimitedCalls(tmp_path / "cache", Resources(run_time=[10, 60]), calls=5, each=2)
    spool.run(spool.folder, 2)
    second = spool.moved(BEYOND_TIME, number=2)
    assert second.batch.calls_per_job == 1
    assert (second.batch.elements, second.batch.calls[0].id) == ((1,), "id2")
    assert limits(second)[1:5] == (60, None, 60, 120)
    assert spool.folder.ended(3) is None
    behind = spool.moved(BEYOND_TIME, number=3)
    assert limits(behind)[1] == 10, "it has not begun, as the call before it has taken the time of their job"
    assert behind.again(0) == CallAgain(1, 0, b"")
    first = spool.moved(BEYOND_TIME, number=4)
    assert limits(first)[1] == 60, "nothing but the limit can have kept it from beginning"


def test_a_script_of_a_template_has_the_next_limits(tmp_path: Path) -> None:
    asked = Resources(memory=[1, 2, 4])
    scripts = {limits_of(each): f"#!/bin/sh\n# {each.memory} {TOKEN}\n" for each in asked.attempts()[1:]}
    spool = LimitedCalls(tmp_path / "cache", asked, scripts=scripts)
    folder = spool.folder
    for memory in (2, 4):
        spool.run(folder)
        folder = spool.moved(BEYOND_MEMORY, folder)
        assert folder.script() == f"#!/bin/sh\n# {memory} {folder.token}\n"


def test_the_log_goes_on(tmp_path: Path) -> None:
    spool = LimitedCalls(tmp_path / "cache", Resources(memory=[1, 2]))
    spool.run(spool.folder, output="first words\n")
    successor = spool.moved(BEYOND_MEMORY)
    with open(successor.log(0), "a") as log:
        log.write("second words\n")
    spool.folder.remove()
    assert Path(successor.log(0)).read_text() == (
        "first words\ncallyard: it went beyond its limit, and runs again with memory=2 GiB\nsecond words\n"
    )


def test_an_input_that_may_have_more_limits_is_waited_for(tmp_path: Path) -> None:
    assert LimitedCalls(tmp_path / "one", Resources(memory=[1, 2])).folder.batch.has_next_limits
    assert not LimitedCalls(tmp_path / "other", Resources(memory=1, run_time=3)).folder.batch.has_next_limits
    assert not batch().has_next_limits


def test_a_full_disk_ends_the_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    spool = LimitedCalls(tmp_path / "cache", Resources(memory=[1, 2]))
    spool.run(spool.folder)
    assert not moves_on(spool.folder, 0, ValueError())

    def refuse(*_: object, **__: object) -> None:
        raise CacheError("no room")

    monkeypatch.setattr(BatchDirectory, "create", refuse)
    assert not moves_on(spool.folder, 0, OutOfMemory())
    assert capsys.readouterr().err == "callyard: its next attempt cannot be written: no room\n"
