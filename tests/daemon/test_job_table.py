"""The daemon's jobs: what starts when, in which order, and that nothing starts twice or waits for ever."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from callyard.daemon.job_placement import JobNeed
from callyard.daemon.job_table import Job, JobTable
from callyard.pool.call_shape import NodeCapacity
from callyard.schedulers.base import Share

CORES = 3
SHARE = Share("share", CORES, (), 0)
ONE = JobNeed(1, 0, 0, SHARE)


class Table:
    """A table with jobs named by numbers, and a clock."""

    def __init__(self) -> None:
        self.table, self.now, self.jobs = JobTable(NodeCapacity(CORES)), 100.0, list[Job]()

    def add(self, *after: int, **options: Any) -> Job:
        number = len(self.jobs)
        job = Job(str(number), f"token{number}", number, ONE, **options)
        self.jobs.append(job)
        self.table.add(job, map(str, after), self.now)
        return job

    def start(self) -> list[int]:
        return [int(job.id) for job in self.table.start(self.now)]

    def end(self, number: int, why: str = "exited") -> None:
        self.table.ended(self.jobs[number], why, self.now, 0)


def test_a_job_waits_for_others_however_they_end() -> None:
    table = Table()
    table.add()
    table.add()
    last = table.add(0, 1)
    assert table.start() == [0, 1]
    assert last.why == "jobs"
    table.end(0, "failed")
    assert table.start() == []
    table.end(1, "cancelled")
    assert table.start() == [2]


def test_jobs_that_are_not_known_have_ended() -> None:
    table = Table()
    table.add(77)
    assert table.start() == [0]


def test_a_job_waits_for_its_time() -> None:
    table = Table()
    job = table.add(begin=160.0)
    assert table.start() == []
    assert (job.why, table.table.due()) == ("begin", 160.0)
    table.now = 160.0
    assert table.start() == [0]
    assert table.table.due() is None


def test_one_job_of_a_lane_runs_at_a_time() -> None:
    table = Table()
    for _ in range(3):
        table.add(lane="a")
    table.add(lane="b")
    assert table.start() == [0, 3]
    assert table.jobs[1].why == "turn"
    table.end(1, "cancelled")
    assert table.start() == []
    table.end(0)
    assert table.start() == [2]


def test_a_lane_goes_by_priority() -> None:
    table = Table()
    table.add(lane="a")
    table.add(lane="a")
    table.add(lane="a", priority=1)
    assert table.start() == [0]
    table.end(0)
    assert table.start() == [2]


def test_a_job_that_could_not_be_started_is_tried_again_and_keeps_its_lane() -> None:
    table = Table()
    table.add(lane="a")
    table.add(lane="a")
    assert table.start() == [0]
    table.table.put_back(table.jobs[0], "no room", 105.0)
    assert table.start() == []
    assert (table.jobs[0].why, table.jobs[0].words) == ("start", "no room")
    table.now = 105.0
    assert table.start() == [0]


def test_what_ran_before_has_its_place() -> None:
    table = Table()
    for number in range(CORES):
        table.table.add_running(Job(f"old{number}", f"t{number}", -1, ONE, lane="a" if number == 0 else None))
    table.add()
    table.add(lane="a")
    assert table.start() == []
    table.table.ended(table.table.jobs["old1"], "exited", table.now)
    assert table.start() == [0]
    table.table.ended(table.table.jobs["old0"], "exited", table.now)
    assert table.start() == [1]
    assert table.table.busy == 3


def test_the_end_of_a_job_counts_once() -> None:
    table = Table()
    table.add()
    table.end(0, "cancelled")
    table.end(0)
    assert (table.table.busy, table.jobs[0].why) == (0, "cancelled")
    table.table.forget(["0"])
    assert not table.table.jobs


Step = Callable[["Table", set[int]], None]
JOBS = st.tuples(
    st.lists(st.integers(0, 40), max_size=3),
    st.sampled_from([None, "a", "b"]),
    st.integers(-1, 1),
    st.sampled_from([0.0, 0.0, 105.0, 130.0]),
)
STEPS = st.lists(
    st.one_of(
        JOBS,
        st.tuples(st.sampled_from(["end", "cancel", "put back", "time"]), st.integers(0, 40)),
    ),
    max_size=60,
)


@given(STEPS)
def test_each_job_starts_once_and_ends(steps: list[Any]) -> None:  # noqa: C901
    table, running, begun = Table(), set[int](), set[int]()

    def start() -> None:
        for number in table.start():
            job = table.jobs[number]
            assert number not in begun | running
            assert job.begin <= table.now
            assert not any(table.jobs[other].lane == job.lane for other in running if job.lane is not None)
            assert all(table.jobs[other].state == "ended" for other in needed[number])
            begun.add(number)
            running.add(number)
        assert len(running) <= CORES

    needed: dict[int, set[int]] = {}
    for step in steps:
        match step:
            case ("time", seconds):
                table.now += seconds
            case ("end", number) if number in running:
                running.discard(number)
                table.end(number)
            case ("put back", number) if number in running:
                running.discard(number)
                begun.discard(number)
                table.table.put_back(table.jobs[number], "full", table.now + 5)
            case ("cancel", number) if number < len(table.jobs) and number not in running:
                table.end(number, "cancelled")
            case (list() as after, lane, priority, begin):
                earlier = {other for other in after if other < len(table.jobs)}
                needed[len(table.jobs)] = earlier
                table.add(*earlier, lane=lane, priority=priority, begin=begin)
        start()
    while table.table.busy:
        if running:
            table.end(running.pop())
        else:
            due = table.table.due()
            assert due is not None, "a job waits for nothing"
            table.now = max(table.now, due)
        start()
    assert all(job.state == "ended" for job in table.jobs)
    assert begun == {int(job.id) for job in table.jobs if job.why != "cancelled"}
