"""How pilot jobs are asked for and looked after, with a scheduler that is only pretended."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from math import inf
from pathlib import Path

import pytest
from test_node_placement import Call

from callyard.backends.batch.scheduler_client import SubmissionRefused
from callyard.backends.failed_nodes import FailedNodes
from callyard.backends.pilot_jobs import PilotJobs
from callyard.cluster import autoscaler
from callyard.cluster.autoscaler import Block
from callyard.cluster.hello import Hello, PilotShare
from callyard.cluster.node_placement import NodePlacement, NodeState
from callyard.errors import SchedulerError
from callyard.pool.call_shape import NodeCapacity, NodeNeed, NodeOffer, WorkerShape
from callyard.resources import Resources
from callyard.schedulers.base import JobRequest, Status
from callyard.transport.event_loop import EventLoop
from callyard.version import VERSION

ONE = NodeNeed(WorkerShape())
LATER = 100.0  # s after which everything is due


class Scheduler:
    """A scheduler client and a description of jobs; what it answers is set from outside."""

    poll = (5.0, 60.0)
    least = 0
    where = ""
    failed_nodes = FailedNodes(wanted=False)

    def __init__(self, logs: Path) -> None:
        self._logs = logs
        self.most: int | None = (
            2  # nodes, as the executor has it; and elements of an array, as a scheduler client has it
        )
        self.most_elements: Callable[[], object] = int
        self.submitted: list[JobRequest] = []
        self.cancelled: list[str] = []
        self.refusal: Exception | None = None
        self.states: dict[str, Status] = {}
        self.trouble: Exception | None = None

    def typical(self) -> NodeCapacity | None:
        return NodeCapacity(4, (), 8)

    def request(self, token: str, size: int, count: int, contact: str) -> JobRequest:
        log = f"{self._logs}/{token}-{{element}}"
        return JobRequest("callyard", token, contact, log, Resources(), count if count > 1 else None)

    @property
    def kinds_of_nodes(self) -> list[Scheduler]:
        return [self]

    def describe(self, there: int) -> str:
        return "pretended nodes"

    def submit(self, request: JobRequest) -> str:
        self.submitted.append(request)
        if self.refusal is not None:
            raise self.refusal
        return str(len(self.submitted))

    def look_up(self, token: str) -> dict[str, str]:
        raise SubmissionRefused("silent", token)

    def statuses(self, jobs: Sequence[str]) -> dict[str, Status]:
        if self.trouble is not None:
            raise self.trouble
        return {job: self.states[job] for job in jobs if job in self.states}

    def times_left(self, jobs: Sequence[str]) -> dict[str, float]:
        return dict.fromkeys(jobs, inf)

    def cancel(self, jobs: Sequence[str]) -> None:
        self.cancelled += jobs

    def stop_asking(self) -> None:
        """Nothing is waited for here."""


class Driver:
    """The driver, as far as pilots are concerned. Time passes when the test says so."""

    def __init__(self, scheduler: Scheduler) -> None:
        self.placement = NodePlacement()
        self.pilots = PilotJobs(scheduler, scheduler, self.placement)  # type: ignore[arg-type]
        self.loop = EventLoop(lambda: None)
        self.now = 1000.0

    def look(self, wanted: bool = True, after: float = 0.0) -> None:
        self.now += after
        self.pilots.look_after(self.loop, lambda: "contact", self.now, wanted)

    def hear(self, wanted: bool = True) -> None:
        """Wait for all answers of the scheduler's."""
        while self.pilots._commands.busy:
            self.loop.step(60)
            self.look(wanted)

    def agent_comes(self, block: Block) -> NodeState:
        pilot = PilotShare(block.name, block.job or "0", NodeOffer(4))
        hello = Hello(f"n{block.number}", "here", 1, VERSION, (3, 11), NodeCapacity(4, (), 8), pilot)
        node = self.pilots.admit(hello, self.now)
        assert isinstance(node, NodeState)
        return node

    @property
    def blocks(self) -> list[Block]:
        return self.pilots._pilots.blocks


@pytest.fixture
def scheduler(tmp_path: Path) -> Scheduler:
    return Scheduler(tmp_path)


@pytest.fixture
def driver(scheduler: Scheduler, monkeypatch: pytest.MonkeyPatch) -> Iterator[Driver]:
    driver = Driver(scheduler)
    monkeypatch.setattr("callyard.backends.pilot_jobs.monotonic", lambda: driver.now)
    yield driver
    driver.pilots.close(driver.loop, 1.0)
    driver.loop.close()


def call(need: NodeNeed = ONE) -> Call:
    return Call(1, need)


def test_nothing_is_due_when_all_nodes_are_gone(driver: Driver, scheduler: Scheduler) -> None:
    driver.placement.add(call())
    driver.look()
    driver.hear()
    (block,) = driver.blocks
    driver.placement.drain()
    scheduler.states["1"] = Status("ended", "failed", "WorkerLost")
    driver.look(wanted=False, after=LATER)
    driver.hear(wanted=False)
    assert not driver.blocks
    assert driver.pilots._pilots.next_look() is None
    driver.look(wanted=True, after=LATER)
    assert driver.blocks
    assert driver.blocks != [block]


def test_a_refusal_is_not_asked_for_over_and_over(driver: Driver, scheduler: Scheduler) -> None:
    driver.placement.add(call())
    driver.look()
    driver.hear()
    node = driver.agent_comes(driver.blocks[0])
    driver.placement.decide(driver.now)
    for number in range(8):
        driver.placement.add(Call(2 + number))
    scheduler.refusal = SubmissionRefused("mistake", "Invalid account")
    driver.look(after=1)
    driver.hear()
    driver.look(after=1)
    assert len(scheduler.submitted) == 2
    driver.look(after=LATER)
    driver.hear()
    assert len(scheduler.submitted) == 3
    scheduler.refusal = None
    driver.look(after=LATER)
    driver.hear()
    assert len(scheduler.submitted) == 4
    assert driver.pilots.give_up([NodeNeed(WorkerShape(9))], False, "") == []  # the mistake is not one any more
    assert node.number in driver.placement.nodes


def test_calls_are_told_why_no_node_can_come(driver: Driver, scheduler: Scheduler) -> None:
    scheduler.refusal = SubmissionRefused("mistake", "Invalid account")
    driver.placement.add(call())
    driver.look()
    driver.hear()
    (given_up,) = driver.pilots.give_up([ONE], False, "")
    assert isinstance(given_up.why, SchedulerError)
    assert "Invalid account" in str(given_up.why)
    assert len(scheduler.submitted) == 1
    scheduler.refusal = None
    driver.look(after=1)  # who comes from now on may have more luck
    driver.hear()
    assert [block.state for block in driver.blocks] == ["waiting"]


def test_an_answer_that_makes_no_sense_is_not_waited_for(driver: Driver, scheduler: Scheduler) -> None:
    scheduler.refusal = SchedulerError("sbatch printed 'hello', which is not the number of a job")
    driver.placement.add(call())
    driver.look()
    driver.hear()
    assert not driver.blocks
    (given_up,) = driver.pilots.give_up([ONE], False, "")
    assert "hello" in str(given_up.why)


def test_a_question_that_goes_wrong_is_asked_again(driver: Driver, scheduler: Scheduler) -> None:
    driver.placement.add(call())
    driver.look()
    driver.hear()
    scheduler.trouble = ValueError("squeue: what?")
    driver.look(after=LATER)
    driver.hear()
    assert driver.pilots.give_up([ONE], False, "") == []  # its node may come all the same
    scheduler.trouble = None
    scheduler.states["1"] = Status("running", "runs")
    driver.look(after=LATER)
    driver.hear()
    assert [block.state for block in driver.blocks] == ["starting"]


def test_an_agent_comes_before_the_answer_to_its_submission(driver: Driver, scheduler: Scheduler) -> None:
    """Which does not come at all, so that it is not known to have been taken."""
    scheduler.refusal = SubmissionRefused("silent", "no answer in time")
    driver.placement.add(call())
    driver.look()
    (block,) = driver.blocks
    driver.agent_comes(block)
    driver.hear()
    assert driver.blocks == [block]


def test_a_node_whose_agent_is_there_is_not_forgotten(driver: Driver, scheduler: Scheduler) -> None:
    """Whatever the scheduler does not know."""
    scheduler.times_left = lambda jobs: {}  # type: ignore[method-assign]
    driver.placement.add(call())
    driver.look()
    driver.hear()
    (block,) = driver.blocks
    driver.agent_comes(block)
    for _ in range(3):
        driver.look(after=LATER)
        driver.hear()
    assert driver.blocks == [block]


def test_more_nodes_together_than_there_may_be(driver: Driver) -> None:
    needs = [NodeNeed(WorkerShape(), exclusive=True, nodes=3), ONE]
    (given_up,) = driver.pilots.give_up(needs, False, "")
    assert given_up.needs == needs[:1]


def test_a_node_with_room_is_used_before_another_is_asked_for(driver: Driver, scheduler: Scheduler) -> None:
    driver.placement.add(call())
    driver.look()
    driver.hear()
    driver.agent_comes(driver.blocks[0])
    driver.placement.decide(driver.now)
    for number in range(3):
        driver.placement.add(Call(2 + number))
    driver.look(after=1)
    driver.placement.decide(driver.now)
    driver.hear()
    assert len(scheduler.submitted) == 1
    driver.placement.add(Call(5))
    driver.placement.decide(driver.now)
    driver.look(after=1)
    driver.hear()
    assert len(scheduler.submitted) == 2


def test_what_has_room_for_one_of_two_is_counted_once(driver: Driver, scheduler: Scheduler) -> None:
    """Until it is known where they are, each of them could be there; then there is another look."""
    driver.placement.add(call())
    driver.look()
    driver.hear()
    driver.agent_comes(driver.blocks[0])
    driver.placement.decide(driver.now)
    driver.placement.add(Call(2, NodeNeed(WorkerShape(cores=2))))
    driver.placement.add(Call(3, NodeNeed(WorkerShape(cores=3))))
    driver.look(after=1)
    driver.placement.decide(driver.now)
    driver.hear()
    assert len(scheduler.submitted) == 1
    again = driver.pilots._pilots.next_look()
    assert again is not None
    driver.look(after=again - driver.now)
    driver.hear()
    assert len(scheduler.submitted) == 2


def test_an_answer_that_comes_while_agents_end_is_not_waited_for_again(driver: Driver, scheduler: Scheduler) -> None:
    """The loop has told of it by then."""
    driver.placement.add(call())
    driver.look()
    driver.loop.step(60)
    driver.pilots.close(driver.loop, 1.0)
    assert scheduler.cancelled == ["1"]


def test_nodes_are_not_asked_for_at_the_end(driver: Driver, scheduler: Scheduler) -> None:
    """The first command asks how large arrays may be; meanwhile the executor is closed."""
    answer = threading.Event()
    scheduler.most, scheduler.most_elements = None, lambda: answer.wait() and 5
    driver.placement.add(call())
    driver.look()
    answer.set()
    driver.pilots.close(driver.loop, 1.0)
    assert not scheduler.submitted


def test_arrays_are_no_larger_than_the_cluster_takes(driver: Driver, scheduler: Scheduler) -> None:
    """`most` is also what the client knows of the cluster: here arrays of two."""
    scheduler.most = 2
    driver.pilots._pilots.states[0].autoscaler = autoscaler.Autoscaler(0, 5)
    for _ in range(20):
        driver.placement.add(call())
    driver.look()
    driver.hear()
    assert [request.elements for request in scheduler.submitted] == [2, 2, None]
    assert [block.job for block in driver.blocks] == ["1_0", "1_1", "2_0", "2_1", "3"]
