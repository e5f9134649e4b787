"""What the pool decides: each rule by itself, then all of them at once under random events."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import count

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from callyard.pool import worker_placement as pool_module
from callyard.pool.call_queue import CallQueue
from callyard.pool.call_shape import NodeCapacity, WorkerShape
from callyard.pool.worker import Instruction, RetireWorker, SendToWorker, StartWorker, Worker
from callyard.pool.worker_placement import WorkerPlacement

LONG, SHORT = 1.0, 0.00001  # seconds that calls are expected to take
PATIENCE = pool_module._PATIENCE


@dataclass(eq=False)
class FakeCall:
    """A call that the test ends when it likes."""

    shape: WorkerShape = WorkerShape()  # noqa: RUF009  # it cannot be changed
    priority: int = 0
    seconds: float = LONG
    alone: bool = False
    order: int = field(default_factory=count().__next__)
    state: str = "waiting"

    def begin(self) -> bool:
        if self.state == "waiting":
            self.state = "running"
        return self.state == "running"

    def abandoned(self) -> bool:
        return self.state == "cancelled"

    def expected(self) -> float:
        return self.seconds


def is_long(call: FakeCall) -> bool:
    return call.alone or call.seconds >= LONG


class Site:
    """A pool, and workers that do what it says when the test lets them."""

    def __init__(
        self,
        cores: int = 1,
        gpus: int = 0,
        memory: int = 0,
        max_workers: int | None = None,
        max_tasks: int | None = None,
    ) -> None:
        self.capacity = NodeCapacity(cores, tuple(map(str, range(gpus))), memory)
        self.pool = WorkerPlacement(self.capacity, max_workers or cores, max_tasks)
        self.log: list[Instruction] = []

    def submit(self, *calls: FakeCall) -> list[FakeCall]:
        for call in calls:
            self.pool.add(call)
        self.decide()
        return list(calls)

    def decide(self) -> list[Instruction]:
        todo = self.pool.decide()
        self.log += todo
        return todo

    def ready(self, *workers: Worker) -> None:
        for worker in workers or self.starting:
            self.pool.started(worker)
            self.decide()

    def finish(self, worker: Worker, number: int = 1) -> None:
        for call in list(worker.in_flight)[:number]:
            call.state = "done"
        self.pool.finished(worker, number)
        self.decide()

    def fail(self, worker: Worker, scarce: bool = False, at_once: bool = False) -> list[FakeCall]:
        """The worker cannot be started; the calls that are given up."""
        self.pool.lost(worker)
        given_up = self.pool.not_started(worker.shape, scarce, at_once)
        self.decide()
        return given_up  # type: ignore[return-value]

    def gone(self, *workers: Worker) -> None:
        for worker in workers or self.leaving:
            self.pool.lost(worker)
            self.decide()

    def run_all(self, most: int = 1000) -> None:
        """Let every worker do its work until nothing happens any more."""
        for _ in range(most):
            before = len(self.log)
            self.ready()
            self.gone()
            for worker in self.busy:
                self.finish(worker, len(worker.in_flight))
            if len(self.log) == before and not self.busy:
                return
        raise AssertionError("this never comes to rest")

    @property
    def starting(self) -> list[Worker]:
        return [worker for worker in self.pool.workers.values() if not worker.ready]

    @property
    def leaving(self) -> list[Worker]:
        return [worker for worker in self.pool.workers.values() if worker.leaving]

    @property
    def busy(self) -> list[Worker]:
        return [worker for worker in self.pool.workers.values() if worker.in_flight]

    @property
    def sent(self) -> list[FakeCall]:
        """All calls that were sent, in order."""
        return [call for each in self.log if isinstance(each, SendToWorker) for call in each.calls]  # type: ignore[misc]

    def told(self, kind: type) -> int:
        return sum(isinstance(each, kind) for each in self.log)


# ------------------------------------------------------------------ lines and workers


def test_a_call_starts_a_worker_and_is_sent_when_that_is_ready():
    site = Site()
    [call] = site.submit(FakeCall())
    assert site.told(StartWorker) == 1
    assert site.sent == []
    site.ready()
    assert site.sent == [call]


def test_a_worker_is_used_again_for_calls_of_its_shape():
    site = Site()
    calls = site.submit(FakeCall(), FakeCall(), FakeCall())
    site.run_all()
    assert site.sent == calls
    assert site.told(StartWorker) == 1
    assert site.told(RetireWorker) == 0


def test_workers_start_for_all_calls_that_came_at_once():
    site = Site(cores=4)
    site.submit(*(FakeCall() for _ in range(4)))
    assert site.told(StartWorker) == 4


def test_no_more_workers_start_than_there_are_calls():
    site = Site(cores=4)
    site.submit(FakeCall(), FakeCall())
    assert site.told(StartWorker) == 2


def test_a_worker_gets_only_calls_of_its_shape():
    site = Site(cores=2)
    plain, special = site.submit(FakeCall(), FakeCall(WorkerShape(environment=(("A", "1"),))))
    site.ready()
    assert {worker.shape: list(worker.in_flight) for worker in site.busy} == {
        plain.shape: [plain],
        special.shape: [special],
    }


def test_max_workers_limits_how_many_run():
    site = Site(cores=4, max_workers=1)
    site.submit(*(FakeCall() for _ in range(3)))
    site.ready()
    assert len(site.busy) == 1
    assert site.told(StartWorker) == 1


def test_the_core_of_a_call_is_free_when_it_ends():
    site = Site(cores=2)
    small, large = site.submit(FakeCall(), FakeCall(WorkerShape(cores=2)))
    site.ready()
    assert site.sent == [small]
    site.finish(site.busy[0])
    site.ready()
    assert site.sent == [small, large]


def test_higher_priority_goes_first_then_the_oldest():
    site = Site()
    [first] = site.submit(FakeCall())
    site.ready()
    low, high, high_too = site.submit(FakeCall(priority=-1), FakeCall(priority=5), FakeCall(priority=5))
    site.run_all()
    assert site.sent == [first, high, high_too, low]


def test_a_call_that_was_cancelled_is_not_sent():
    site = Site()
    first, second = site.submit(FakeCall(), FakeCall())
    first.state = "cancelled"
    site.ready()
    assert site.sent == [second]


def test_waiting_and_busy_tell_whether_anything_is_left_to_do():
    site = Site()
    assert not site.pool.waiting
    first, second = site.submit(FakeCall(), FakeCall())
    assert site.pool.waiting
    assert site.pool.busy
    second.state = "cancelled"
    site.ready()
    assert not site.pool.waiting
    assert site.pool.busy
    site.finish(site.busy[0])
    assert first.state == "done"
    assert not site.pool.busy


def test_drain_gives_back_what_waits():
    site = Site()
    sent, *rest = site.submit(FakeCall(), FakeCall(), FakeCall(priority=1))
    sent.priority = 0
    assert set(site.pool.drain()) == {sent, *rest}
    site.ready()
    assert site.sent == []


# ------------------------------------------------------------------ calls sent ahead


def test_short_calls_share_a_message_and_wait_at_the_worker():
    site = Site()
    calls = site.submit(*(FakeCall(seconds=SHORT) for _ in range(50)))
    site.ready()
    assert list(site.busy[0].in_flight) == calls
    assert site.told(SendToWorker) == 1


def test_short_calls_are_topped_up_when_half_has_been_done():
    site = Site()
    site.submit(*(FakeCall(seconds=SHORT) for _ in range(1000)))
    site.ready()
    [worker] = site.busy
    most = len(worker.in_flight)
    assert 1 < most < 1000
    site.finish(worker, most // 2 - 1)
    assert site.told(SendToWorker) == 1
    site.finish(worker, 2)
    assert site.told(SendToWorker) == 2
    assert len(worker.in_flight) == most


def test_nothing_is_sent_behind_a_long_call_or_ahead_of_it():
    site = Site()
    kinds = [SHORT, SHORT, LONG, SHORT, LONG, LONG]
    calls = site.submit(*(FakeCall(seconds=kind) for kind in kinds))
    site.run_all()
    assert [each.calls for each in site.log if isinstance(each, SendToWorker)] == [
        calls[:2],
        calls[2:3],
        calls[3:4],
        calls[4:5],
        calls[5:],
    ]


def test_nothing_is_sent_behind_a_call_that_has_limits_of_its_own():
    site = Site()
    site.submit(FakeCall(seconds=SHORT, alone=True), FakeCall(seconds=SHORT))
    site.ready()
    assert len(site.busy[0].in_flight) == 1


class Fickle(FakeCall):
    """Cancelled by another thread between being looked at and being sent."""

    def begin(self) -> bool:
        return False


def test_a_call_cancelled_at_the_last_moment_does_not_let_others_wait_behind_a_long_one():
    site = Site()
    _, long, short = site.submit(Fickle(seconds=SHORT), FakeCall(), FakeCall(seconds=SHORT))
    site.ready()
    assert list(site.busy[0].in_flight) == [long]
    site.run_all()
    assert site.sent == [long, short]


def test_a_call_cancelled_at_the_last_moment_does_not_let_a_long_one_wait_behind_others():
    site = Site()
    first = site.submit(FakeCall(seconds=SHORT))
    site.ready()
    site.submit(Fickle(seconds=SHORT), FakeCall())
    assert list(site.busy[0].in_flight) == first


def test_a_worker_whose_only_call_was_cancelled_at_the_last_moment_is_at_rest():
    site = Site()
    site.submit(Fickle())
    site.ready()
    assert not site.pool.busy


def test_calls_taken_back_go_to_another_worker_in_their_order():
    site = Site(cores=2)
    calls = site.submit(*(FakeCall(seconds=SHORT) for _ in range(5)))
    first, second = site.starting
    site.ready(first)
    first.withdrawing = True
    for call in calls[1:]:
        call.state = "waiting"
    site.pool.withdrawn(first, calls[1:])
    site.ready(second)
    assert list(first.in_flight) == calls[:1]
    assert list(second.in_flight) == calls[1:]


def test_a_worker_gets_nothing_while_calls_are_taken_back_from_it():
    site = Site()
    site.submit(*(FakeCall(seconds=SHORT) for _ in range(2)))
    site.ready()
    [worker] = site.busy
    worker.withdrawing = True
    site.submit(FakeCall(seconds=SHORT))
    assert len(worker.in_flight) == 2


def test_a_worker_that_finished_before_anything_could_be_taken_back_is_at_rest_once():
    site = Site(cores=1, max_workers=2)
    site.submit(*(FakeCall(seconds=SHORT) for _ in range(2)))
    site.ready()
    [worker] = site.busy
    worker.withdrawing = True
    site.finish(worker, 2)
    site.pool.withdrawn(worker, [])
    site.submit(FakeCall(), FakeCall(WorkerShape(environment=(("A", "1"),))))
    site.ready()
    assert len(site.busy) == 1  # there is one core


# ------------------------------------------------------------------ GPUs and memory


GPU = WorkerShape(gpus=1)
BIG = WorkerShape(memory=3)


def test_workers_have_gpus_of_their_own():
    site = Site(cores=3, gpus=3)
    site.submit(FakeCall(GPU), FakeCall(WorkerShape(gpus=2)))
    assert sorted(worker.gpus for worker in site.starting) == [("0",), ("1", "2")]


def test_an_idle_worker_keeps_its_gpu_until_somebody_waits_for_it():
    site = Site(cores=2, gpus=1)
    site.submit(FakeCall(GPU))
    site.run_all()
    site.submit(FakeCall())
    site.run_all()
    assert site.told(RetireWorker) == 0
    [other] = site.submit(FakeCall(WorkerShape(gpus=1, environment=(("A", "1"),))))
    assert site.told(RetireWorker) == 1
    assert other not in site.sent
    assert not site.starting  # until the first has really ended
    site.run_all()
    assert other in site.sent


def test_memory_is_held_like_gpus():
    site = Site(cores=2, memory=4)
    site.submit(FakeCall(BIG))
    site.run_all()
    [other] = site.submit(FakeCall(WorkerShape(memory=2)))
    assert site.told(RetireWorker) == 1
    site.run_all()
    assert other.state == "done"


def test_only_workers_that_hold_what_is_missing_are_let_go():
    site = Site(cores=4, gpus=1)
    site.submit(FakeCall(), FakeCall(), FakeCall(GPU))
    site.run_all()
    site.submit(FakeCall(WorkerShape(gpus=1, environment=(("A", "1"),))))
    assert [each.worker.shape for each in site.log if isinstance(each, RetireWorker)] == [GPU]


def test_no_worker_is_let_go_when_that_would_not_be_enough():
    """Otherwise workers would start and end for nothing as long as the busy one runs."""
    site = Site(cores=4, gpus=2)
    other = WorkerShape(gpus=1, environment=(("A", "1"),))
    [long] = site.submit(FakeCall(other))
    site.ready()
    both, small = site.submit(FakeCall(WorkerShape(gpus=2)), FakeCall(GPU))
    site.ready()
    assert site.sent == [long, small]
    assert site.told(RetireWorker) == 0
    site.run_all()
    assert both.state == "done"


def test_what_is_being_made_free_for_a_call_is_not_taken_by_another():
    """Otherwise the two would take it from each other for ever, and neither would run."""
    site = Site(cores=2, gpus=2, max_workers=1)
    site.submit(FakeCall(GPU))
    site.run_all()
    both, one = site.submit(FakeCall(WorkerShape(gpus=2)), FakeCall(WorkerShape(gpus=1, environment=(("A", "1"),))))
    site.run_all()
    assert site.sent[1:] == [both, one]
    assert site.told(StartWorker) == 3


def test_a_worker_is_let_go_for_another_shape_when_there_may_be_no_more_workers():
    site = Site(cores=4, max_workers=1)
    site.submit(FakeCall())
    site.run_all()
    [other] = site.submit(FakeCall(WorkerShape(cores=2)))
    assert (site.told(RetireWorker), site.told(StartWorker)) == (1, 2)
    site.run_all()
    assert other.state == "done"


# ------------------------------------------------------------------ fairness


def test_a_small_call_passes_a_large_one_that_waits():
    site = Site(cores=2)
    running, large, small = site.submit(FakeCall(), FakeCall(WorkerShape(cores=2)), FakeCall())
    site.ready()
    assert site.sent == [running, small]
    assert large.state == "waiting"


def test_a_large_call_is_not_starved_by_endless_small_ones():
    site = Site(cores=3)
    site.submit(FakeCall(), FakeCall())
    site.ready()
    [large] = site.submit(FakeCall(WorkerShape(cores=3)))
    passed = 0
    while site.busy and passed < 1000:
        site.submit(FakeCall(), FakeCall())
        site.ready()
        site.finish(site.busy[0])  # never all at once
        passed += 1
    assert passed <= PATIENCE * 3 + 3
    site.ready()
    assert large.state == "running"


def test_nothing_stands_still_while_a_worker_for_the_first_in_line_starts():
    """Starting may take long, an initializer may import a lot; the place of that call is safe."""
    site = Site(cores=2)
    [other] = site.submit(FakeCall(WorkerShape(environment=(("A", "1"),))))
    [slow] = site.starting
    site.submit(FakeCall())
    site.ready(site.starting[1])
    for _ in range(PATIENCE * 2 + 5):
        [call] = site.submit(FakeCall())
        site.finish(site.busy[0])
        assert call.state == "running"
    site.ready(slow)
    assert other in site.sent


# ------------------------------------------------------------------ ends of workers


def test_a_worker_is_replaced_after_max_tasks():
    site = Site(max_tasks=2)
    calls = site.submit(*(FakeCall(seconds=SHORT) for _ in range(5)))
    site.run_all()
    assert site.sent == calls
    assert site.told(StartWorker) == 3
    assert [len(each.calls) for each in site.log if isinstance(each, SendToWorker)] == [2, 2, 1]


def test_what_a_lost_worker_had_is_given_back_and_its_resources_are_free():
    site = Site(gpus=1, memory=3)
    calls = site.submit(*(FakeCall(WorkerShape(gpus=1, memory=3), seconds=SHORT) for _ in range(3)))
    site.ready()
    [worker] = site.busy
    assert site.pool.lost(worker) == calls
    for call in calls:
        call.state = "waiting"
    site.pool.put_back(reversed(calls[1:]))
    site.decide()
    site.run_all()
    assert site.sent[3:] == calls[1:]


def test_calls_are_given_up_when_their_workers_fail_to_start_three_times():
    site = Site()
    calls = site.submit(FakeCall(), FakeCall())
    assert [site.fail(site.starting[0]) for _ in range(3)] == [[], [], calls]
    assert not site.pool.waiting


def test_a_worker_that_started_forgives_those_that_failed():
    site = Site()
    site.submit(FakeCall())
    for _ in range(2):
        assert site.fail(site.starting[0]) == []
    site.ready()
    site.submit(FakeCall())
    site.gone(*site.busy)
    for _ in range(2):
        assert site.fail(site.starting[0]) == []


def test_calls_are_given_up_at_once_when_the_next_worker_would_fail_too():
    site = Site()
    calls = site.submit(FakeCall(), FakeCall(priority=3), FakeCall(GPU))
    assert set(site.fail(site.starting[0], at_once=True)) == set(calls[:2])


@pytest.mark.parametrize("scarce", [True, False], ids=["no process", "its own fault"])
@pytest.mark.parametrize("ready", [True, False], ids=["ready", "starting"])
def test_calls_wait_for_the_workers_that_could_be_started(scarce: bool, ready: bool):
    site = Site(cores=8)
    calls = site.submit(*(FakeCall() for _ in range(100)))
    if ready:
        site.ready(*site.starting[:5])
    failing = site.starting[-3:]
    assert [site.fail(worker, scarce) for worker in failing] == [[], [], []]
    assert site.told(StartWorker) == 8  # no more are tried for now
    site.run_all()
    assert site.sent == calls
    assert site.told(StartWorker) == 8
    assert site.pool.held_back


@pytest.mark.parametrize("scarce", [True, False], ids=["no process", "its own fault"])
def test_more_workers_are_tried_after_a_while_and_when_one_has_ended(scarce: bool):
    site = Site(cores=3)
    site.submit(*(FakeCall() for _ in range(9)))
    site.ready(*site.starting[:2])
    site.fail(site.starting[0], scarce)
    assert site.told(StartWorker) == 3
    site.gone(site.busy[0])
    assert site.told(StartWorker) == 4
    site.ready()
    site.pool.try_again()
    assert not site.pool.held_back
    site.decide()
    assert site.told(StartWorker) == 5


def test_an_idle_worker_of_another_shape_makes_room_where_there_are_no_more_processes():
    site = Site(cores=3)
    site.submit(FakeCall(), FakeCall())
    site.run_all()
    [other] = site.submit(FakeCall(WorkerShape(environment=(("A", "1"),))))
    assert site.fail(site.starting[0], scarce=True) == []
    assert site.told(RetireWorker) == 1
    assert not site.starting  # until that one has ended
    site.gone()
    assert len(site.starting) == 1
    site.run_all()
    assert other.state == "done"


def test_a_call_waits_for_busy_workers_of_another_shape_where_there_are_no_more_processes():
    site = Site(cores=2)
    [long] = site.submit(FakeCall())
    site.ready()
    [other] = site.submit(FakeCall(WorkerShape(environment=(("A", "1"),))))
    assert site.fail(site.starting[0], scarce=True) == []
    assert site.told(StartWorker) == 2
    site.finish(site.busy[0])
    site.run_all()
    assert long.state == other.state == "done"


def test_calls_are_given_up_when_not_even_one_process_can_be_had():
    site = Site(cores=3)
    site.submit(FakeCall())
    site.run_all()
    [other] = site.submit(FakeCall(WorkerShape(environment=(("A", "1"),))))
    assert site.fail(site.starting[0], scarce=True) == []
    site.gone()
    assert [site.fail(site.starting[0], scarce=True) for _ in range(3)] == [[], [], [other]]


def test_idle_workers_go_once_before_a_shape_is_given_up():
    """What failed may have lacked what they hold, and nobody knows."""
    site = Site(cores=3)
    site.submit(FakeCall(), FakeCall())
    site.run_all()
    [other] = site.submit(FakeCall(WorkerShape(environment=(("A", "1"),))))
    assert [site.fail(site.starting[0]) for _ in range(3)] == [[], [], []]
    assert site.told(RetireWorker) == 2
    site.gone()
    assert [site.fail(site.starting[0]) for _ in range(3)] == [[], [], [other]]


# ------------------------------------------------------------------ how much is looked at


def test_deciding_looks_at_the_lines_not_at_all_calls(monkeypatch):
    looked = count()
    head = CallQueue.head
    monkeypatch.setattr(CallQueue, "head", lambda line: (next(looked), head(line))[1])
    site = Site(cores=4)
    calls = site.submit(*(FakeCall(seconds=SHORT) for _ in range(10_000)))
    site.run_all(10_000)
    assert site.sent == calls
    events = site.told(StartWorker) + site.told(SendToWorker)
    assert next(looked) < 8 * events < 10_000


def test_lines_that_cannot_be_placed_are_looked_at_once_each(monkeypatch):
    looked = count()
    head = CallQueue.head
    monkeypatch.setattr(CallQueue, "head", lambda line: (next(looked), head(line))[1])
    site = Site(cores=2, memory=10_000)
    site.submit(FakeCall(WorkerShape(cores=2)))
    site.ready()
    for i in range(1, 500):
        site.pool.add(FakeCall(WorkerShape(memory=i)))
    before = next(looked)
    site.decide()
    assert next(looked) - before < 1000


def test_a_call_that_only_waits_behind_others_needs_no_decision():
    site = Site()
    site.submit(FakeCall(), FakeCall())
    site.ready()
    assert site.pool.add(FakeCall()) is False
    assert site.pool.add(FakeCall(GPU)) is True
    assert site.pool.add(FakeCall(priority=1)) is True


# ------------------------------------------------------------------ all at once


ENVIRONMENT = (("A", "1"),)
SHAPES = [
    WorkerShape(),
    WorkerShape(environment=ENVIRONMENT),
    WorkerShape(cores=2),
    WorkerShape(cores=4),
    WorkerShape(gpus=1),
    WorkerShape(gpus=1, environment=ENVIRONMENT),
    WorkerShape(gpus=2),
    WorkerShape(cores=2, gpus=1, memory=1),
    WorkerShape(memory=2),
    WorkerShape(memory=3, environment=ENVIRONMENT),
]


def fits(shape: WorkerShape, capacity: NodeCapacity) -> bool:
    return shape.cores <= capacity.cores and shape.gpus <= len(capacity.gpus) and shape.memory <= capacity.memory


class PoolMachine(RuleBasedStateMachine):
    """Workers and calls in any order of events, with accounts of its own."""

    @initialize(
        cores=st.integers(1, 4),
        gpus=st.integers(0, 2),
        memory=st.integers(0, 4),
        max_workers=st.integers(1, 4),
        max_tasks=st.none() | st.integers(1, 3),
    )
    def open(self, cores: int, gpus: int, memory: int, max_workers: int, max_tasks: int | None) -> None:
        self.site = Site(cores, gpus, memory, max_workers, max_tasks)
        self.pool, self.capacity = self.site.pool, self.site.capacity
        self.max_workers, self.max_tasks = max_workers, max_tasks
        self.shapes = [shape for shape in SHAPES if fits(shape, self.capacity)]
        self.calls: list[FakeCall] = []
        self.lines: dict[tuple[int, WorkerShape], list[FakeCall]] = {}
        self.served: dict[int, int] = {}
        self.passes: dict[tuple[int, WorkerShape], int] = {}

    # -- events

    @rule(
        which=st.integers(0, 99),
        priority=st.sampled_from([0, 0, 0, 1]),
        seconds=st.sampled_from([SHORT, SHORT, LONG]),
        alone=st.booleans(),
        number=st.sampled_from([1, 1, 2, 5]),
    )
    def add(self, which: int, priority: int, seconds: float, alone: bool, number: int) -> None:
        shape = self.shapes[which % len(self.shapes)]
        for _ in range(number):
            call = FakeCall(shape, priority, seconds, alone)
            self.calls.append(call)
            self.lines.setdefault(line_of(call), []).append(call)
            changed = self.pool.add(call)
            if not changed:
                self.check_nothing_to_do()
        self.decide()

    def check_nothing_to_do(self) -> None:
        assert self.pool.decide() == []

    @precondition(lambda self: self.site.starting)
    @rule(which=st.integers(0, 99))
    def ready(self, which: int) -> None:
        self.pool.started(pick(self.site.starting, which))
        self.decide()

    @precondition(lambda self: self.site.busy)
    @rule(which=st.integers(0, 99), number=st.integers(1, 4))
    def finish(self, which: int, number: int) -> None:
        self.finish_some(pick(self.site.busy, which), number)

    def finish_some(self, worker: Worker, number: int) -> None:
        number = min(number, len(worker.in_flight))
        for call in list(worker.in_flight)[:number]:
            assert call.state == "running"
            call.state = "done"
        self.pool.finished(worker, number)
        self.decide()

    @precondition(lambda self: self.pool.workers)
    @rule(which=st.integers(0, 99), begun=st.integers(0, 1), again=st.booleans())
    def lose(self, which: int, begun: int, again: bool) -> None:
        worker = pick(list(self.pool.workers.values()), which)
        in_flight = self.pool.lost(worker)
        for call in in_flight[:begun]:
            call.state = "waiting" if again else "failed"
        rest = in_flight if again else in_flight[begun:]
        self.put_back(rest)
        self.pool.put_back(reversed(rest))
        if not worker.ready:
            self.check_given_up(worker.shape, self.pool.not_started(worker.shape))
        self.decide()

    @precondition(lambda self: self.site.starting)
    @rule(which=st.integers(0, 99), scarce=st.booleans(), at_once=st.booleans())
    def fail_to_start(self, which: int, scarce: bool, at_once: bool) -> None:
        worker = pick(self.site.starting, which)
        self.pool.lost(worker)
        given_up = self.pool.not_started(worker.shape, scarce, at_once)
        assert not (scarce and given_up and self.pool.workers)
        self.check_given_up(worker.shape, given_up)
        self.decide()

    def check_given_up(self, shape: WorkerShape, calls: list[FakeCall]) -> None:
        """No call fails while a worker that could run it is there."""
        assert not calls or not any(w.shape == shape and not w.leaving for w in self.pool.workers.values())
        for call in calls:
            assert call.shape == shape
            self.lines[line_of(call)].remove(call)
            call.state = "failed" if call.state == "waiting" else call.state

    @rule()
    def try_again(self) -> None:
        self.pool.try_again()
        self.decide()

    @precondition(lambda self: self.site.leaving)
    @rule(which=st.integers(0, 99))
    def ended(self, which: int) -> None:
        assert self.pool.lost(pick(self.site.leaving, which)) == []
        self.decide()

    @precondition(lambda self: self.waiting())
    @rule(which=st.integers(0, 99))
    def cancel(self, which: int) -> None:
        pick(self.waiting(), which).state = "cancelled"
        self.decide()

    @precondition(lambda self: self.site.busy)
    @rule(which=st.integers(0, 99))
    def begin_to_take_back(self, which: int) -> None:
        worker = pick(self.site.busy, which)
        worker.withdrawing = len(worker.in_flight) > 1 or worker.withdrawing

    @precondition(lambda self: self.withdrawing())
    @rule(which=st.integers(0, 99), begun=st.integers(0, 3))
    def take_back(self, which: int, begun: int) -> None:
        self.take_back_from(pick(self.withdrawing(), which), begun)

    def take_back_from(self, worker: Worker, begun: int) -> None:
        calls = list(worker.in_flight)[begun:]
        self.put_back(calls)
        self.served[worker.number] = self.served.get(worker.number, 0) - len(calls)
        self.pool.withdrawn(worker, calls)
        self.decide()

    # -- what it knows

    def waiting(self) -> list[FakeCall]:
        return [call for call in self.calls if call.state == "waiting"]

    def withdrawing(self) -> list[Worker]:
        return [worker for worker in self.pool.workers.values() if worker.withdrawing]

    def put_back(self, calls: list[FakeCall]) -> None:
        for call in calls:
            call.state = "waiting"
        for call in reversed(calls):
            self.lines.setdefault(line_of(call), []).insert(0, call)

    def heads(self) -> list[FakeCall]:
        """The first of each line, by rank."""
        lines = [[call for call in line if call.state == "waiting"] for line in self.lines.values()]
        return sorted((line[0] for line in lines if line), key=rank)

    def running(self) -> list[Worker]:
        return [w for w in self.pool.workers.values() if w.in_flight or not w.ready]

    def free_cores(self) -> int:
        return self.capacity.cores - sum(worker.shape.cores for worker in self.running())

    def idle_for(self, call: FakeCall) -> bool:
        """Whether a worker is there that could run the call now."""
        return (
            len(self.running()) < self.max_workers
            and self.free_cores() >= call.shape.cores
            and any(w.shape == call.shape and self.usable(w) for w in self.pool.workers.values())
            and not any(w.shape == call.shape and w.withdrawing for w in self.pool.workers.values())
        )

    def usable(self, worker: Worker) -> bool:
        spent = self.max_tasks is not None and self.served.get(worker.number, 0) >= self.max_tasks
        return worker.ready and not (worker.leaving or worker.in_flight or spent)

    def may_start_for(self, call: FakeCall) -> bool:
        """Whether a worker for the call could start without another one ending."""
        workers = list(self.pool.workers.values())
        leaving = len(self.site.leaving)
        return (
            not self.pool.held_back
            and len(self.running()) < self.max_workers
            and self.free_cores() >= call.shape.cores
            and len(workers) - leaving < self.max_workers
            and leaving <= self.max_workers
            and sum(w.shape.memory for w in workers) + call.shape.memory <= self.capacity.memory
            and sum(w.shape.gpus for w in workers) + call.shape.gpus <= len(self.capacity.gpus)
        )

    # -- decisions, and what must hold of each

    def decide(self) -> None:
        heads = self.heads()
        first_could_run = bool(heads) and self.idle_for(heads[0])
        first_could_start = bool(heads) and self.may_start_for(heads[0])
        late = {line for line, passes in self.passes.items() if passes >= PATIENCE * self.capacity.cores}
        had_calls = {w.number for w in self.pool.workers.values() if w.in_flight}
        todo = self.site.decide()
        sent: list[FakeCall] = []
        first: list[FakeCall] = []  # of each message: it alone is chosen, others of its line go with it
        for instruction in todo:
            if isinstance(instruction, SendToWorker):
                sent += self.check_send(instruction, had_calls)
                first.append(instruction.calls[0])  # type: ignore[arg-type]
        self.check_retired([each.worker for each in todo if isinstance(each, RetireWorker)], sent)
        if first_could_run:
            assert heads[0] in sent
        elif first_could_start and len(self.site.leaving) <= self.max_workers:
            starts = [w for w in self.pool.workers.values() if w.shape == heads[0].shape]
            assert starts, f"no worker starts for {heads[0]}"
        self.note_passes(first, late)

    def check_send(self, instruction: SendToWorker, had_calls: set[int]) -> list[FakeCall]:
        worker, calls = instruction
        assert calls
        assert worker.ready
        assert not worker.leaving
        assert not worker.withdrawing
        for call in calls:
            assert call.shape == worker.shape
            assert call.state == "running"
            line = self.lines[line_of(call)]
            while line[0].state == "cancelled":
                line.pop(0)
            assert line.pop(0) is call, "the calls of a line go in their order"
        self.served[worker.number] = self.served.get(worker.number, 0) + len(calls)
        if worker.number not in had_calls:
            had_calls.add(worker.number)
            before = [head for head in self.heads() if head.shape == worker.shape and rank(head) < rank(calls[0])]
            assert all(head.priority == calls[0].priority for head in before), "a higher priority was passed"
        return calls  # type: ignore[return-value]

    def check_retired(self, workers: list[Worker], sent: list[FakeCall]) -> None:
        """Only who has served enough, or whose leaving makes room for a call that waits."""
        wanted = [w for w in workers if self.max_tasks is None or self.served.get(w.number, 0) < self.max_tasks]
        if not wanted:
            return
        staying = [w for w in self.pool.workers.values() if not w.leaving]
        memory = self.capacity.memory - sum(w.shape.memory for w in staying)
        gpus = len(self.capacity.gpus) - sum(w.shape.gpus for w in staying)
        # Perhaps the place is taken by now, or the call went to a busy worker after all.
        served = {worker.shape for worker in self.site.starting} | {call.shape for call in sent}
        assert served or any(head.shape.memory <= memory and head.shape.gpus <= gpus for head in self.heads())

    def note_passes(self, first: list[FakeCall], late: set[tuple[int, WorkerShape]]) -> None:
        heads = self.heads()
        starting = {worker.shape for worker in self.site.starting}
        self.passes = {line_of(head): self.passes.get(line_of(head), 0) for head in heads}
        for head in heads:
            line = line_of(head)
            if any(line_of(call) == line for call in first):
                self.passes[line] = 0
            elif head.shape not in starting:
                passing = [call for call in first if rank(call) > rank(head)]
                assert not (passing and line in late), "it has been passed often enough"
                self.passes[line] += bool(passing)

    # -- what must always hold

    @invariant()
    def cores_are_given_out_once(self) -> None:
        if hasattr(self, "pool"):
            assert self.free_cores() >= 0
            assert len(self.running()) <= self.max_workers

    @invariant()
    def gpus_and_memory_are_held_until_the_worker_has_ended(self) -> None:
        if hasattr(self, "pool"):
            workers = self.pool.workers.values()
            held = [gpu for worker in workers for gpu in worker.gpus]
            assert len(set(held)) == len(held)
            assert all(len(worker.gpus) == worker.shape.gpus for worker in workers)
            assert sum(worker.shape.memory for worker in workers) <= self.capacity.memory

    @invariant()
    def every_call_is_in_one_place(self) -> None:
        if hasattr(self, "pool"):
            in_flight = [call for worker in self.pool.workers.values() for call in worker.in_flight]
            assert len(set(map(id, in_flight))) == len(in_flight)
            assert {id(call) for call in self.calls if call.state == "running"} == set(map(id, in_flight))

    @invariant()
    def nothing_is_with_a_long_call(self) -> None:
        if hasattr(self, "pool"):
            for worker in self.pool.workers.values():
                assert len(worker.in_flight) <= 1 or not any(map(is_long, worker.in_flight))  # type: ignore[arg-type]
                assert self.max_tasks is None or worker.served <= self.max_tasks

    def teardown(self) -> None:
        """When workers do what they are told, everything comes to its end."""
        if not hasattr(self, "pool"):
            return
        for _ in range(3 * len(self.calls) + 10):
            for worker in self.site.starting:
                self.pool.started(worker)
                self.decide()
            for worker in self.site.leaving:
                self.pool.lost(worker)
                self.decide()
            for worker in self.withdrawing():
                self.take_back_from(worker, 1)
            for worker in self.site.busy:
                self.finish_some(worker, len(worker.in_flight))
            if not (self.pool.busy or self.site.leaving):
                break
        assert {call.state for call in self.calls} <= {"done", "failed", "cancelled"}
        assert not self.pool.busy
        assert not self.pool.waiting
        for worker in list(self.pool.workers.values()):
            self.pool.lost(worker)
        assert self.pool.decide() == []
        assert (self.pool._cores, self.pool._memory) == (self.capacity.cores, self.capacity.memory)
        assert tuple(self.pool._gpus) == self.capacity.gpus


def rank(call: FakeCall) -> tuple[int, int]:
    return -call.priority, call.order


def line_of(call: FakeCall) -> tuple[int, WorkerShape]:
    return -call.priority, call.shape


def pick(choices: list, which: int):
    return choices[which % len(choices)]


TestPool = PoolMachine.TestCase
TestPool.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
