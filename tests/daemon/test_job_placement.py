"""Jobs on the cores, GPUs and memory of one machine: nothing is given out twice, and nobody waits for ever."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callyard.daemon.job_placement import JobNeed, JobPlacement
from callyard.pool.call_shape import NodeCapacity
from callyard.schedulers.base import Share

MACHINE = NodeCapacity(4, ("0", "1"), 8)
WHOLE = Share("whole", 4, ("0", "1"), 8)
HALF = Share("half", 2, ("0",), 4)
LARGER = Share("larger", 6, ("0", "1", "7"), 8)
SHARES = (WHOLE, HALF, LARGER, Share("another", 2, ("0", "1"), 8))


@dataclasses.dataclass(eq=False)
class Waiting:
    """A job as the placement sees it."""

    order: int
    need: JobNeed
    priority: int = 0
    gone: bool = False
    gpus: tuple[str, ...] = ()

    def abandoned(self) -> bool:
        return self.gone


def need(cores: int = 1, gpus: int = 0, memory: int = 0, share: Share = WHOLE) -> JobNeed:
    return JobNeed(cores, gpus, memory, share)


def placement(*needs: JobNeed, priorities: tuple[int, ...] = ()) -> JobPlacement[Waiting]:
    made: JobPlacement[Waiting] = JobPlacement(MACHINE)
    for order, each in enumerate(needs):
        made.add(Waiting(order, each, priorities[order] if priorities else 0))
    return made


def orders(jobs: list[Waiting]) -> list[int]:
    return [job.order for job in jobs]


def test_in_the_order_of_submission_until_the_machine_is_full() -> None:
    machine = placement(*[need()] * 6)
    first = machine.place()
    assert orders(first) == [0, 1, 2, 3]
    assert machine.place() == []
    machine.vacate(first[2])
    assert orders(machine.place()) == [4]


def test_a_higher_priority_goes_first() -> None:
    assert orders(placement(need(4), need(4), need(4), priorities=(0, 5, -1)).place()) == [1]


def test_what_is_in_use() -> None:
    placing = placement(need(1, gpus=1, memory=3), need(2))
    first, _ = placing.place()
    assert placing.in_use() == {"cores": 3, "gpus": 1, "memory": 3}
    placing.vacate(first)
    assert placing.in_use() == {"cores": 2, "gpus": 0, "memory": 0}


def test_cancelled_jobs_are_left_out() -> None:
    machine = placement()
    jobs = [Waiting(order, need()) for order in range(3)]
    for job in jobs:
        machine.add(job)
    jobs[0].gone = True
    assert orders(machine.place()) == [1, 2]


def test_each_gpu_has_one_job() -> None:
    machine = placement(*[need(gpus=1)] * 3, need(gpus=1, share=HALF))
    placed = machine.place()
    assert [job.gpus for job in placed] == [("0",), ("1",)]
    machine.vacate(placed[0])
    assert [(job.order, job.gpus) for job in machine.place()] == [(2, ("0",))]


def test_an_executor_has_no_more_than_its_share() -> None:
    machine = placement(*[need(share=HALF)] * 3, need())
    assert orders(machine.place()) == [0, 1, 3]


def test_a_share_beyond_the_machine_is_the_users_word() -> None:
    machine = placement(*[need(2, share=LARGER)] * 4, need())
    placed = machine.place()
    assert orders(placed) == [0, 1, 2], "six cores, as said, though four were found"
    machine.vacate(placed[0])
    assert orders(machine.place()) == [3]


def test_a_small_job_passes_a_large_one_but_not_for_ever() -> None:
    machine = placement(need(), need(4), *[need()] * 40)
    running, begun = machine.place(), 0
    while 1 not in orders(running):
        machine.vacate(running.pop(0))
        begun += 1
        running += machine.place()
        assert begun < 30
    assert orders(running) == [1]


def test_a_full_share_holds_up_nobody_else() -> None:
    machine = placement(need(2, share=HALF), need(2, share=HALF), *[need()] * 60)
    running = machine.place()
    for _ in range(50):  # more often than small jobs may pass a large one that the machine has no room for
        job = next(job for job in running if job.need.share is WHOLE)
        running.remove(job)
        machine.vacate(job)
        running += machine.place()
        assert sum(job.need.cores for job in running) == 4


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (need(3, share=HALF), "3 cores, and its executor has 2"),
        (need(gpus=2, share=HALF), "2 GPUs, and its executor has 1"),
        (need(memory=5 << 30, share=Share("s", 1, (), 4 << 30)), "5 GiB, and its executor has 4 GiB"),
    ],
)
def test_what_can_never_run(asked: JobNeed, words: str) -> None:
    assert words in placement().why_never(asked)
    assert placement().why_never(need()) == ""


NEEDS = st.builds(need, st.integers(1, 2), st.integers(0, 1), st.integers(0, 4), st.sampled_from(SHARES))
EVENTS = st.lists(st.one_of(NEEDS, st.integers(0, 30)), max_size=60)


@given(EVENTS)
def test_nothing_is_given_out_twice_and_everything_runs(events: list[JobNeed | int]) -> None:
    machine: JobPlacement[Waiting] = JobPlacement(MACHINE)
    running: list[Waiting] = []
    added = ended = 0

    def place() -> None:
        running.extend(machine.place())
        assert sum(job.need.cores for job in running) <= max(4, *(share.cores for share in SHARES))
        plain = [job for job in running if job.need.share is not LARGER]
        assert sum(job.need.cores for job in plain) <= 4
        assert sum(job.need.memory for job in running) <= MACHINE.memory
        gpus = [gpu for job in running for gpu in job.gpus]
        assert len(gpus) == len(set(gpus)) == sum(job.need.gpus for job in running)
        for share in SHARES:
            own = [job for job in running if job.need.share is share]
            assert sum(job.need.cores for job in own) <= share.cores
            assert sum(job.need.memory for job in own) <= share.memory
            assert {gpu for job in own for gpu in job.gpus} <= {*share.gpus}

    def end(place_of_job: int) -> None:
        machine.vacate(running.pop(place_of_job % len(running)))

    for event in events:
        if isinstance(event, JobNeed):
            machine.add(Waiting(added, event))
            added += 1
        elif running:
            end(event)
            ended += 1
        place()
    while running:
        end(0)
        ended += 1
        place()
    assert ended == added
