"""A batch reaches the scheduler completely and once, in as many parts as that likes, whoever is killed meanwhile."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from callyard.backends.batch.scheduler_client import SubmissionRefused
from callyard.backends.batch.submitter import submission
from callyard.cache.directory import CacheDirectory
from callyard.jobs.batch import Batch, BatchPart, CallOutcome, CallPosition
from callyard.jobs.planner import ArrayDependency
from callyard.jobs.spool import BatchDirectory
from callyard.jobs.submission import is_ready, next_part, note_of, parts_of, request_of
from callyard.resources import Resources
from callyard.schedulers.base import Dependency, JobId, JobRequest


def written(
    home: CacheDirectory, token: str, elements: int, after: tuple[ArrayDependency, ...] = (),
    at_once: int | None = None, after_each: Sequence[Sequence[ArrayDependency]] = (), lanes: Sequence[str] = (),
) -> BatchDirectory:  # fmt: skip
    """A batch of so many elements, of one call each."""
    batch = Batch(
        token=token, scheduler="Slurm", calls=tuple(CallPosition(f"{i:040}", "call", i, 1) for i in range(elements)),
        elements=tuple(range(elements)), calls_per_job=1, needs=(), resources={}, environment={}, restart_limit=0,
        paths=(), cwd="/", umask=0o77, submitter="", created=0.0, python="", callyard="",
        request=note_of("call", Resources(), at_once, None, False, after, after_each, lanes),
    )  # fmt: skip
    folder = BatchDirectory(home, token)
    folder.create(batch, [b"."] * elements, "#!/bin/sh\n")
    return folder


class Scheduler:
    """A desk that takes no more elements at once than there is room, and does not always answer."""

    gaps = True

    def __init__(self, answers: Callable[[], str]) -> None:
        self.answers, self.jobs = answers, dict[str, JobRequest]()
        self.room = 0

    def submit(self, request: JobRequest) -> str:
        assert isinstance(request.elements, tuple)
        if len(request.elements) > self.room:
            raise SubmissionRefused("limit", "too many", full=True)
        answer = self.answers()
        if answer != "deaf":
            self.room -= len(request.elements)
            self.jobs[str(len(self.jobs))] = request
        if answer != "ok":
            raise SubmissionRefused("silent", "no answer")
        return str(len(self.jobs) - 1)

    def look_up(self, token: str) -> dict[str, str]:
        return {request.token: job for job, request in self.jobs.items() if request.token.startswith(token)}


def type_all(steps: Iterator[Callable[[], Any]], killed: Callable[[], bool]) -> str:
    """Type the commands: "done", what was refused, or "killed" before an answer was noted."""
    resume: Callable[[], Callable[[], Any]] = lambda: next(steps)  # noqa: E731
    try:
        while True:
            command = resume()
            try:
                answer = command()
            except SubmissionRefused as error:
                refused = error
                resume = lambda refused=refused: steps.throw(refused)  # type: ignore[attr-defined, misc]  # noqa: E731
            else:
                resume = lambda answer=answer: steps.send(answer)  # type: ignore[attr-defined, misc]  # noqa: E731
            if killed():
                return "killed"
    except StopIteration:
        return "done"
    except SubmissionRefused as error:
        return error.kind


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 1 << 32), st.integers(1, 20))
def test_every_element_is_submitted_once(seed: int, elements: int) -> None:
    choose = Random(seed)
    with tempfile.TemporaryDirectory() as directory:
        home = CacheDirectory.open(directory)
        written(home, "0" * 16, elements)
        scheduler = Scheduler(lambda: choose.choice(["ok", "ok", "ok", "deaf", "mute"]))
        perhaps, outcome = False, ""
        while outcome != "done":
            scheduler.room = choose.randint(0, 8)
            folder = BatchDirectory(home, "0" * 16)  # as another process sees it
            outcome = type_all(submission(scheduler, folder, perhaps), lambda: choose.random() < 0.1)  # type: ignore[arg-type]
            perhaps = outcome in ("killed", "silent")
        sent = [number for request in scheduler.jobs.values() for number in request.elements or ()]  # type: ignore[union-attr]
        assert sorted(sent) == list(range(elements))
        assert BatchDirectory(home, "0" * 16).unsent is None


class SeparateScheduler:
    """A desk that makes a job of each element; it may take some of them, and may not answer."""

    gaps = True

    def __init__(self, choose: Random) -> None:
        self.choose = choose
        self.jobs = dict[str, str]()  # IDs by token
        self.numbers: list[int] = []  # of the elements that were submitted

    def submit(self, request: JobRequest) -> str:
        assert isinstance(request.elements, tuple)
        wanted = list(zip(request.elements, request.tokens(), strict=True))
        taken = [each for each in wanted if self.choose.random() < self.choose.choice([0.0, 0.7, 1.0])]
        for number, token in taken:
            self.numbers.append(number)
            self.jobs[token] = f"f{len(self.jobs)}"
        if len(taken) < len(wanted) or self.choose.random() < 0.2:
            raise SubmissionRefused("silent", "no answer")
        return "".join(f"{self.jobs[token]}," for _, token in taken)

    def look_up(self, token: str) -> dict[str, str]:
        found = [(word, job) for word, job in self.jobs.items() if word.startswith(token)]
        self.choose.shuffle(found)
        return dict(found)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 1 << 32), st.integers(1, 20))
def test_every_element_is_one_job_where_each_is_its_own(seed: int, elements: int) -> None:
    choose = Random(seed)
    with tempfile.TemporaryDirectory() as directory:
        home = CacheDirectory.open(directory)
        written(home, "0" * 16, elements, after_each=[[]] * elements)
        scheduler = SeparateScheduler(choose)
        perhaps, outcome = False, ""
        while outcome != "done":
            folder = BatchDirectory(home, "0" * 16)  # as another process sees it
            outcome = type_all(submission(scheduler, folder, perhaps), lambda: choose.random() < 0.1)  # type: ignore[arg-type]
            perhaps = outcome in ("killed", "silent")
        folder = BatchDirectory(home, "0" * 16)
        assert sorted(scheduler.numbers) == list(range(elements))
        assert [folder.job_of(i) for i in range(elements)] == [
            scheduler.jobs[f"{folder.token}.{i}-{i}"] for i in range(elements)
        ]


# ------------------------------------------------------------------ what is asked for


@pytest.fixture
def home(tmp_path: Path) -> CacheDirectory:
    os.chmod(tmp_path, 0o700)
    return CacheDirectory.open(tmp_path)


def test_a_batch_of_one_part(home: CacheDirectory) -> None:
    folder = written(home, "0" * 16, 5)
    assert folder.unsent == next_part(folder, None) == BatchPart(0, 5)
    assert request_of(folder, BatchPart(0, 5)).token == folder.token
    folder.submitted_as(BatchPart(0, 5, "7"))
    assert os.path.exists(f"{folder.path}/job")
    again = BatchDirectory(home, folder.token)
    assert (again.unsent, again.parts, again.job_of(3)) == (None, [BatchPart(0, 5, "7")], "7_3")


def test_a_batch_in_parts(home: CacheDirectory) -> None:
    folder = written(home, "0" * 16, 9)
    assert folder.job_of(8) is None
    folder.submitted_as(BatchPart(6, 9, "8"))
    folder.submitted_as(BatchPart(0, 2, "7"))
    again = BatchDirectory(home, folder.token)
    assert next_part(again, None) == BatchPart(2, 6)
    assert next_part(again, 3) == BatchPart(2, 5)
    assert [again.job_of(number) for number in (1, 2, 8)] == ["7_1", None, "8_8"]
    request = request_of(again, BatchPart(2, 5))
    assert request.elements == (2, 3, 4)
    assert request.token == f"{folder.token}.2-4"
    folder.submitted_as(BatchPart(2, 6, "9"))
    assert again.unsent is None


def test_what_follows_a_batch_in_parts(home: CacheDirectory) -> None:
    first = written(home, "0" * 16, 9)
    for part in BatchPart(0, 4, "7"), BatchPart(4, 9, "8"):
        first.submitted_as(part)
    each = written(home, "1" * 16, 9, (ArrayDependency("corresponding", first.token),))
    assert next_part(each, None) == BatchPart(0, 4)
    assert request_of(each, BatchPart(0, 4)).after == (Dependency("corresponding", JobId.parse("7"), (0, 1, 2, 3)),)
    each.submitted_as(BatchPart(0, 4, "9"))
    assert next_part(each, None) == BatchPart(4, 9)
    assert request_of(each, BatchPart(4, 9)).after == (Dependency("corresponding", JobId.parse("8"), (4, 5, 6, 7, 8)),)
    after = written(home, "2" * 16, 1, (ArrayDependency("any", first.token), ArrayDependency("ok", first.token, 5)))
    assert request_of(after, BatchPart(0, 1)).after == (
        Dependency("any", JobId.parse("7")),
        Dependency("any", JobId.parse("8")),
        Dependency("ok", JobId.parse("8_5")),
    )
    first.remove()
    assert request_of(after, BatchPart(0, 1)).after == ()
    assert next_part(written(home, "3" * 16, 9, (ArrayDependency("corresponding", first.token),)), None) == BatchPart(
        0, 9
    )


def test_a_successor_begins_behind_all_batches_under_its_limit(home: CacheDirectory) -> None:
    limit = {"name": "relax", "resources": {}, "at_once": 1, "time": None, "templated": False, "throttle": "one"}
    first, second, successor, other = (written(home, digit * 16, 1) for digit in "1234")
    for folder, request in ((first, {}), (second, {}), (successor, {"behind": True}), (other, {"throttle": "two"})):
        batch = folder.batch.replace(request={**limit, "after": [], **request}, created=float(folder.token[0]))
        folder.remove()
        folder.create(batch, [b"."], "")
    first.submitted_as(BatchPart(0, 1, "17"))
    assert not is_ready(successor), "the second has no job to wait for"
    assert is_ready(second), "it does not wait for the successor in turn"
    second.submitted_as(BatchPart(0, 1, "18"))
    assert is_ready(successor)
    after = {str(each.job) for each in request_of(successor, BatchPart(0, 1)).after}
    assert after == {"17", "18"}
    first.end(0, CallOutcome("cancelled"))
    assert {str(each.job) for each in request_of(successor, BatchPart(0, 1)).after} == {"18"}


def test_parts_of_a_throttled_array_follow_one_another(home: CacheDirectory) -> None:
    folder = written(home, "0" * 16, 9, at_once=4)
    folder.submitted_as(BatchPart(0, 5, "7"))
    assert request_of(folder, BatchPart(5, 9)).after == (Dependency("any", JobId.parse("7")),)
    wide = written(home, "1" * 16, 9, at_once=9)
    wide.submitted_as(BatchPart(0, 5, "8"))
    assert request_of(wide, BatchPart(5, 9)).after == ()


def test_elements_that_are_jobs_of_their_own(home: CacheDirectory) -> None:
    folder = written(home, "0" * 16, 3, after_each=[[]] * 3)
    folder.submitted_as(BatchPart(0, 3, "f0,f1,f2,"))
    again = BatchDirectory(home, folder.token)
    assert ([again.job_of(i) for i in range(3)], again.unsent) == (["f0", "f1", "f2"], None)
    assert again.parts[0].jobs == ("f0", "f1", "f2")
    each = [
        [ArrayDependency("any", folder.token, 2)],
        [ArrayDependency("any", folder.token, 0), ArrayDependency("any", folder.token, 1)],
    ]
    second = written(home, "1" * 16, 2, after_each=each, lanes=["a", "b"])
    assert second.batch.waited_for() == {folder.token}
    request = request_of(second, BatchPart(0, 2))
    assert (request.after, request.lanes) == ((), ("a", "b"))
    assert request.after_each == ((JobId("f2"),), (JobId("f0"), JobId("f1")))
    assert request_of(second, BatchPart(1, 2)).after_each == ((JobId("f0"), JobId("f1")),)
    folder.remove()
    assert request_of(second, BatchPart(0, 2)).after_each == ((), ())


def test_a_single_element_that_is_a_job_of_its_own(home: CacheDirectory) -> None:
    folder = written(home, "0" * 16, 1, after_each=[[]])
    folder.submitted_as(BatchPart(0, 1, "f0,"))
    assert BatchDirectory(home, folder.token).job_of(0) == "f0"


def test_elements_that_are_found_make_few_parts(home: CacheDirectory) -> None:
    folder = written(home, "0" * 16, 6, after_each=[[]] * 6)
    found = {f"{folder.token}.{place}-{place}": f"f{place}" for place in (4, 0, 2, 1)}
    assert parts_of(folder, found) == [BatchPart(0, 3, "f0,f1,f2,"), BatchPart(4, 5, "f4,")]
