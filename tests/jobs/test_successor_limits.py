"""The successor of a call that has gone beyond a limit: the next limit is in its file, its request and its script."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from batches import batch

from callyard.cache.directory import CacheDirectory
from callyard.cache.messages import RunRequest
from callyard.errors import CacheError, OutOfMemory
from callyard.jobs.batch import BatchPart, CallAgain, CallFile, CallPosition, CallStart
from callyard.jobs.find_batches import folders
from callyard.jobs.next_limits import attempts, limits_of
from callyard.jobs.spool import BatchDirectory
from callyard.jobs.submission import job_time, note_of, request_of
from callyard.jobs.successor import move_to_successor
from callyard.resources import Resources
from callyard.worker.job_outcome import moves_on

TOKEN, KEY, GIB = "0123456789abcdef", "ab" * 20, 1 << 30
BEYOND_MEMORY, BEYOND_TIME = "OutOfMemory", "TimeLimitExceeded"


class Spool:
    """A cache with one batch of calls with these resources."""

    def __init__(self, directory: Path, resources: Resources, calls: int = 1, each: int = 1, scripts: Any = ()) -> None:
        self.home = CacheDirectory.open(directory)
        order = RunRequest(
            directory=self.home.path, inode=self.home.inode(), trust=None, key=KEY, name="add", afresh=False,
            failures=False, references=(), code_only=False, source="", facts={},
        )  # fmt: skip
        memory = None if resources.memory is None else int(resources.memory * GIB)
        call = CallFile(
            data=(), apart=None, inputs=(), order=order, meaning=None, initializer=None,
            options={"grace": 2.0, **({} if memory is None else {"memory": memory})}, run_time=resources.run_time,
            memory=memory, ranks=1, launcher=(), wait=0.0,
        ).dump()  # fmt: skip
        time = 600.0 if resources.run_time is None else job_time(resources.run_time, resources.grace or 0.0, each)
        request = json.loads(json.dumps(note_of("add", resources, None, time, bool(scripts), ())))
        self.folder = BatchDirectory(self.home, TOKEN)
        made = batch(
            calls=tuple(CallPosition(f"id{n}", "add", n * len(call), len(call)) for n in range(calls)),
            elements=None if calls == 1 else tuple(range(-(-calls // each))), calls_per_job=each, request=request,
            resources={"cores_per_rank": 2}, restart_limit=resources.restart_limit,
        )  # fmt: skip
        self.folder.create(made, [call] * calls, f"#!/bin/sh\n# first {TOKEN}\n", scripts=dict(scripts))

    def run(self, folder: BatchDirectory, number: int = 0, output: str = "", at: float = 2e9) -> None:
        """Let a call begin, and print."""
        folder.begin(number, CallStart("17", "node1", KEY))
        os.utime(f"{folder.path}/{number}.begun", (at, at))  # after the note of its attempt, unless a test says so
        if output:
            Path(folder.log(number)).write_text(output)

    def moved(self, error: str, folder: BatchDirectory | None = None, number: int = 0) -> BatchDirectory:
        """Move a call; return its successor."""
        folder = folder or self.folder
        assert move_to_successor(folder, number, error)
        outcome = folder.ended(number)
        assert outcome is not None
        assert outcome.state == "moved"
        successor = BatchDirectory(self.home, outcome.key)
        kept = successor.again(0)
        assert kept is not None
        assert outcome.attempts == kept.attempt
        return successor


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
    assert [limits_of(each) for each in attempts(asked)] == ["1 10", "1 60.0", "2 10", "2 60.0"]
    assert attempts(Resources(memory=1)) == [Resources(memory=1)]


def test_the_limits_are_tried_in_turn(tmp_path: Path) -> None:
    asked = Resources(memory=[1, "2GB", 4], run_time=[10, 60], grace=5, begin="now+1hour", restart_limit=2)
    spool = Spool(tmp_path / "cache", asked)
    spool.run(spool.folder)
    second = spool.moved(BEYOND_MEMORY)
    assert limits(second) == (2, 10, 2, 10, 75, "[2.0, 4]", "[10, 60]")
    assert "begin" not in second.batch.request["resources"]
    spool.run(second)
    third = spool.moved(BEYOND_TIME, second)
    assert limits(third) == (2, 60, 2, 60, 125, "[2.0, 4]", 60)
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
    spool = Spool(tmp_path / "cache", Resources(memory=1, run_time=[1, 2]))
    spool.run(spool.folder)
    for error in (BEYOND_MEMORY, "WorkerLost", "NodeFailure", ""):
        assert not move_to_successor(spool.folder, 0, error)
    assert len(list(folders(spool.home))) == 1


def test_arguments_of_an_earlier_attempt_are_kept(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "cache", Resources(memory=[1, 2]))
    spool.folder.run_again(0, 3, 1, b"arguments")
    spool.run(spool.folder)
    assert spool.moved(BEYOND_MEMORY).again(0) == CallAgain(4, 0, b"arguments")


def test_a_call_that_asked_for_another_run_first_gets_that(tmp_path: Path) -> None:
    """Its job was ended before the next run: nothing says that its limit was too low."""
    spool = Spool(tmp_path / "cache", Resources(memory=[1, 2], run_time=[1, 2]))
    spool.run(spool.folder, at=1.0)
    spool.folder.run_again(0, 2, 0, b"arguments")
    successor = spool.moved(BEYOND_TIME)
    assert successor.again(0) == CallAgain(2, 0, b"arguments")
    assert limits(successor)[:2] == (1, 1)


def test_only_the_call_that_went_beyond_its_limit_moves(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "cache", Resources(run_time=[10, 60]), calls=5, each=2)
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
    scripts = {limits_of(each): f"#!/bin/sh\n# {each.memory} {TOKEN}\n" for each in attempts(asked)[1:]}
    spool = Spool(tmp_path / "cache", asked, scripts=scripts)
    folder = spool.folder
    for memory in (2, 4):
        spool.run(folder)
        folder = spool.moved(BEYOND_MEMORY, folder)
        assert folder.script() == f"#!/bin/sh\n# {memory} {folder.token}\n"


def test_the_log_goes_on(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "cache", Resources(memory=[1, 2]))
    spool.run(spool.folder, output="first words\n")
    successor = spool.moved(BEYOND_MEMORY)
    with open(successor.log(0), "a") as log:
        log.write("second words\n")
    spool.folder.remove()
    assert Path(successor.log(0)).read_text() == (
        "first words\ncallyard: beyond its limit; it runs again with memory=2 GiB\nsecond words\n"
    )


def test_an_input_that_may_have_more_limits_is_waited_for(tmp_path: Path) -> None:
    assert Spool(tmp_path / "one", Resources(memory=[1, 2])).folder.batch.has_next_limits
    assert not Spool(tmp_path / "other", Resources(memory=1, run_time=3)).folder.batch.has_next_limits
    assert not batch().has_next_limits


def test_a_full_disk_ends_the_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    spool = Spool(tmp_path / "cache", Resources(memory=[1, 2]))
    spool.run(spool.folder)
    assert not moves_on(spool.folder, 0, ValueError())

    def refuse(*_: object, **__: object) -> None:
        raise CacheError("no room")

    monkeypatch.setattr(BatchDirectory, "create", refuse)
    assert not moves_on(spool.folder, 0, OutOfMemory())
    assert capsys.readouterr().err == "callyard: its next attempt cannot be written: no room\n"
