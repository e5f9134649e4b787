"""Pilot jobs under random events: jobs, agents, calls and answers of the scheduler come and go in any order."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from test_node_placement import Call

from callyard.cluster.autoscaler import Autoscaler, Block
from callyard.cluster.node_placement import NodePlacement
from callyard.cluster.pilot_kinds import PilotKinds
from callyard.cluster.pilot_state_machine import (
    Action,
    AskStatus,
    CancelJob,
    EndAgent,
    JobEnded,
    PilotState,
    SubmitJobs,
    is_timeless,
)
from callyard.cluster.placement_state import NodeState, SendToNode
from callyard.errors import NodeFailure, SchedulerError
from callyard.pool.call_shape import NodeCapacity, NodeNeed, WorkerShape
from callyard.schedulers.base import Status

ONE = NodeNeed(WorkerShape())
CAPACITY = NodeCapacity(4, (), 8)
POLL = (5.0, 60.0)


@dataclass(eq=False)
class Job:
    """A job as the scheduler has it."""

    block: Block
    name: str
    state: str = "waiting"
    reason: str = ""
    nodes: list[NodeState] = field(default_factory=list)  # on which its agents are connected


def status_of(job: Job) -> Status:
    """Say what a scheduler would; what a job waits for here never comes."""
    return Status(job.state, "waits", "SchedulerError" if job.reason else None, job.reason, "n")


class Cluster:
    """A scheduler, its jobs and their agents, which carry out what is decided. Nodes are of one kind or of several."""

    def __init__(self, *limits: tuple[int, int], max_workers: int | None = None) -> None:
        self.placement = NodePlacement(max_workers)
        states = [
            PilotState(
                Autoscaler(least, most, kind), self.placement, POLL, CAPACITY, "" if len(limits) == 1 else f" {kind}"
            )
            for kind, (least, most) in enumerate(limits)
        ]
        self.pilots = PilotKinds(states, self.placement)
        self.now = 1000.0
        self.submissions: list[SubmitJobs] = []  # that have not been answered
        self.question: AskStatus | None = None  # that has not been answered
        self.jobs: list[Job] = []  # that wait or run
        self.numbers = 0
        self.given_up: list[BaseException] = []
        self.kinds_given_up: set[int] = set()
        self.troubled: set[int] = set()  # kinds for which something went wrong
        self.broken: set[int] = set()  # kinds that the scheduler refuses for ever
        self.ran: list[Any] = []  # calls that have ended

    # -- actions ---------------------------------------------------------------------------------------

    def look(self, wanted: bool) -> None:
        actions = self.pilots.look(self.now, wanted)
        when = self.pilots.next_look()
        assert when is None or when > self.now, "what is due has been decided"
        self.carry_out(actions)

    def carry_out(self, actions: Iterable[Action]) -> None:
        for action in actions:
            match action:
                case SubmitJobs(size, blocks):
                    assert {block.size for block in blocks} == {size}
                    assert len({block.kind for block in blocks}) == 1
                    self.numbers += 1
                    self.pilots.of(blocks[0]).submitting(blocks, f"t{self.numbers}")
                    self.submissions.append(action)
                case AskStatus():
                    assert self.question is None, "one question at a time"
                    self.question = action
                case CancelJob(block):
                    assert block.job is not None
                    for job in [job for job in self.jobs if job.name == block.job]:
                        self.job_ends(job)
                case EndAgent(node):
                    assert not node.in_flight, "what runs is not taken away"
                    self.agent_goes(node)
                case JobEnded(block, reason):
                    assert block not in self.pilots.blocks
                    if reason:
                        self.pilots.of(block).failed(f"job {block.job} {reason}")

    # -- the scheduler ---------------------------------------------------------------------------------

    def take(self, submission: SubmitJobs) -> None:
        self.submissions.remove(submission)
        made = []
        for block in submission.blocks:
            self.numbers += 1
            made.append(Job(block, str(self.numbers)))
        self.jobs += made
        state = self.pilots.of(submission.blocks[0])
        self.carry_out(state.submitted(submission.blocks, [job.name for job in made], self.now))

    def refuse(self, submission: SubmitJobs, kind: str) -> None:
        self.submissions.remove(submission)
        self.troubled.add(submission.blocks[0].kind)
        self.carry_out(self.pilots.of(submission.blocks[0]).refused(submission.blocks, kind, "no", self.now))

    def answer(self, silent: bool = False, left: float | None = None) -> None:
        assert self.question is not None
        blocks, self.question = self.question.blocks, None
        known = {job.name: status_of(job) for job in self.jobs}
        ends: dict[str, float] = {}
        if left is not None:
            ends = {block.job or "": self.now + left for block in blocks if is_timeless(block)}
        self.carry_out(self.pilots.answered(blocks, None if silent else known, {} if silent else ends, self.now))

    def job_ends(self, job: Job) -> None:
        self.jobs.remove(job)
        self.troubled.add(job.block.kind)
        for node in list(job.nodes):
            self.agent_goes(node)

    # -- agents and calls ------------------------------------------------------------------------------

    def agent_comes(self, job: Job) -> None:
        name = f"n{job.name}-{len(job.nodes)}"
        node = self.pilots.joined(job.block.name, name, CAPACITY, job.name, self.now)
        if node is not None:
            job.nodes.append(node)

    def agent_goes(self, node: NodeState) -> None:
        """It cannot be reached any more; its job goes on until somebody ends it."""
        for job in self.jobs:
            if node in job.nodes:
                job.nodes.remove(node)
        self.pilots.gone(node, self.now)
        self.placement.leave(node)

    def end_calls(self, node: NodeState) -> None:
        for call in list(node.in_flight):
            self.ran.append(call)
            if call.need.nodes > 1:
                self.placement.finished_everywhere(call)
            else:
                self.placement.finished(node, [call])

    def give_up(self) -> None:
        """As the driver does with calls that no node can hold."""
        needs = self.placement.unplaceable()
        for given_up in self.pilots.give_up(needs, ["none came"] * len(self.pilots.states)) if needs else ():
            self.given_up.append(given_up.why)
            for need in given_up.needs:
                self.kinds_given_up.add(need.kind)
                self.placement.drop(need)

    def send_calls(self) -> None:
        for instruction in self.placement.decide(self.now):
            calls = instruction.calls if isinstance(instruction, SendToNode) else [instruction.call]
            nodes = [instruction.node] if isinstance(instruction, SendToNode) else instruction.nodes
            assert {call.need.kind for call in calls} == {node.kind for node in nodes}, "each on a node of its kind"

    # -- a scheduler that does what it should ----------------------------------------------------------

    def begin_jobs(self) -> None:
        """Let all jobs that are asked for begin, and their agents come."""
        self.look(self.placement.waiting)
        for submission in list(self.submissions):
            broken = submission.blocks[0].kind in self.broken
            self.refuse(submission, "mistake") if broken else self.take(submission)
        for job in list(self.jobs):
            if job.block in self.pilots.blocks and len(job.nodes) < job.block.size and job.block.state != "leaving":
                job.state = "running"
                self.agent_comes(job)

    def work(self) -> None:
        """Let everything that is under way happen."""
        self.begin_jobs()
        if self.question is not None:
            self.answer(left=5000.0)
        self.give_up()
        self.send_calls()
        for node in list(self.placement.nodes.values()):
            self.end_calls(node)
        when = self.pilots.next_look()
        self.now = self.now + 1.0 if when is None else max(when, self.now + 0.1)


class Pilots(RuleBasedStateMachine):
    @initialize(
        limits=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 3)), min_size=1, max_size=3),
        max_workers=st.sampled_from([None, None, 1, 3]),
        broken=st.sampled_from([None, None, 0, 1]),
    )
    def begin(self, limits: list[tuple[int, int]], max_workers: int | None, broken: int | None) -> None:
        """`broken`: a kind that the scheduler refuses to the end."""
        ranges = [(least, max(1, least + more)) for least, more in limits]
        self.cluster = Cluster(*ranges, max_workers=max_workers)
        self.cluster.broken = set() if broken is None else {broken}
        self.calls = 0

    @rule(
        nodes=st.sampled_from([1, 1, 1, 2]),
        time=st.sampled_from([0.0, 0.0, 100.0]),
        count=st.integers(1, 6),
        data=st.data(),
    )
    def calls_come(self, nodes: int, time: float, count: int, data: Any) -> None:
        kind = data.draw(st.integers(0, len(self.cluster.pilots.states) - 1))
        need = NodeNeed(WorkerShape(), exclusive=nodes > 1, nodes=nodes, time=time, kind=kind)
        for _ in range(count):
            self.calls += 1
            self.cluster.placement.add(Call(self.calls, need))

    @rule(seconds=st.sampled_from([0.1, 1.0, 20.0, 70.0, 500.0]))
    def time_passes(self, seconds: float) -> None:
        self.cluster.now += seconds

    @rule()
    def look(self) -> None:
        self.cluster.look(self.cluster.placement.waiting)

    @rule()
    def calls_are_sent(self) -> None:
        self.cluster.send_calls()

    @rule()
    def calls_are_given_up(self) -> None:
        self.cluster.give_up()

    @precondition(lambda self: self.cluster.submissions)
    @rule(kind=st.sampled_from(["taken", "taken", "taken", "limit", "silent", "mistake"]), data=st.data())
    def submission_is_answered(self, kind: str, data: Any) -> None:
        submission = data.draw(st.sampled_from(self.cluster.submissions))
        kind = "mistake" if submission.blocks[0].kind in self.cluster.broken else kind
        self.cluster.take(submission) if kind == "taken" else self.cluster.refuse(submission, kind)

    @precondition(lambda self: self.cluster.question)
    @rule(silent=st.booleans(), left=st.sampled_from([None, 0.0, 50.0, 5000.0]))
    def question_is_answered(self, silent: bool, left: float | None) -> None:
        self.cluster.answer(silent, left)

    @precondition(lambda self: self.cluster.jobs)
    @rule(what=st.sampled_from(["runs", "comes", "comes", "goes", "ends", "held"]), data=st.data())
    def job_changes(self, what: str, data: Any) -> None:
        job = data.draw(st.sampled_from(self.cluster.jobs))
        if what == "runs":
            job.state, job.reason = "running", ""
        elif what == "held" and job.state == "waiting":
            job.reason = "PartitionNodeLimit"  # it can never run
            self.cluster.troubled.add(job.block.kind)
        elif what == "comes" and job.state == "running" and len(job.nodes) < job.block.size:
            self.cluster.agent_comes(job)
        elif what == "goes" and job.nodes:
            self.cluster.agent_goes(job.nodes[0])
        elif what == "ends":
            self.cluster.job_ends(job)

    @rule(data=st.data())
    def calls_end(self, data: Any) -> None:
        nodes = list(self.cluster.placement.nodes.values())
        if nodes:
            self.cluster.end_calls(data.draw(st.sampled_from(nodes)))

    @invariant()
    def never_more_nodes_than_allowed(self) -> None:
        if hasattr(self, "cluster"):
            for state in self.cluster.pilots.states:
                assert {block.kind for block in state.blocks} <= {state.kind}
                assert sum(block.size for block in state.blocks if block.present) <= state.autoscaler.most

    @invariant()
    def only_calls_of_a_kind_in_trouble_are_given_up(self) -> None:
        """A call that asks for more nodes than there may be is given up, too, for a reason of its own."""
        if hasattr(self, "cluster"):
            too_few = {state.kind for state in self.cluster.pilots.states if state.autoscaler.most < 2}
            assert self.cluster.kinds_given_up <= self.cluster.troubled | too_few

    @invariant()
    def no_job_is_forgotten(self) -> None:
        """Each job that waits or runs is one of those that are looked after, and is cancelled at the end."""
        if hasattr(self, "cluster"):
            known = {block.job for block in self.cluster.pilots.blocks}
            assert {job.name for job in self.cluster.jobs} <= known
            assert {job.name for job in self.cluster.jobs} <= set(self.cluster.pilots.to_cancel(orderly=False))

    def teardown(self) -> None:
        """Whatever has happened, calls run once the scheduler works, or are told why they do not."""
        if not hasattr(self, "cluster"):
            return
        cluster = self.cluster
        for job in cluster.jobs:
            job.reason = ""
        for _ in range(300):
            if not cluster.placement.waiting:
                return
            cluster.work()
        raise AssertionError(f"{self.cluster.placement.waiting_calls()} wait for ever")


TestPilots = Pilots.TestCase


@pytest.fixture
def cluster() -> Cluster:
    return Cluster((0, 2))


def test_a_job_without_agents_is_cancelled_and_told_of(cluster: Cluster) -> None:
    cluster.placement.add(Call(1))
    cluster.look(True)
    cluster.take(cluster.submissions[0])
    cluster.jobs[0].state = "running"
    while cluster.jobs:
        cluster.now += 30.0
        cluster.look(True)
        if cluster.question is not None:
            cluster.answer()
    cluster.give_up()
    assert [type(why) for why in cluster.given_up] == [SchedulerError]
    assert "from where no agent has connected in 60 s" in str(cluster.given_up[0])


def test_a_node_that_is_given_back_and_stays_is_cancelled(cluster: Cluster) -> None:
    cluster.placement.add(Call(1))
    cluster.look(True)
    cluster.take(cluster.submissions[0])
    (job,) = cluster.jobs
    job.state = "running"
    cluster.agent_comes(job)
    cluster.placement.decide(cluster.now)
    cluster.end_calls(job.nodes[0])
    while cluster.jobs:
        cluster.now += 10.0
        cluster.look(False)
        if cluster.question is not None:
            cluster.answer()
    assert not cluster.placement.nodes
    assert not cluster.given_up


def test_after_a_node_that_was_there_its_loss_is_told(cluster: Cluster) -> None:
    cluster.placement.add(Call(1))
    cluster.look(True)
    cluster.take(cluster.submissions[0])
    cluster.jobs[0].state = "running"
    cluster.agent_comes(cluster.jobs[0])
    cluster.job_ends(cluster.jobs[0])
    while not cluster.given_up:
        cluster.now += 10.0
        cluster.look(True)
        if cluster.question is not None:
            cluster.answer()
        for submission in list(cluster.submissions):
            cluster.take(submission)
        for job in list(cluster.jobs):
            cluster.job_ends(job)
        cluster.give_up()
    assert isinstance(cluster.given_up[0], NodeFailure)


# -- several kinds ---------------------------------------------------------------------------------------


def of_kind(kind: int) -> NodeNeed:
    return ONE._replace(kind=kind)


def test_a_kind_is_asked_for_by_the_calls_that_need_it() -> None:
    cluster = Cluster((2, 3), (1, 2), (1, 1))
    cluster.placement.add(Call(1, of_kind(1)))
    cluster.look(True)
    assert [(action.blocks[0].kind, len(action.blocks)) for action in cluster.submissions] == [(1, 1)]
    cluster.now += 1.0
    cluster.placement.add(Call(2, of_kind(0)))
    cluster.look(True)
    assert [(action.blocks[0].kind, len(action.blocks)) for action in cluster.submissions] == [(1, 1), (0, 2)]


def test_a_kind_that_is_refused_for_ever_fails_its_own_calls_alone() -> None:
    cluster = Cluster((0, 2), (0, 2))
    cluster.broken = {1}
    calls = [Call(number, of_kind(number % 2)) for number in range(8)]
    for call in calls:
        cluster.placement.add(call)
    while cluster.placement.waiting:
        cluster.work()
    assert [str(why) for why in cluster.given_up] == ["no nodes 1 are to be had from the scheduler: no"]
    assert sorted(call.order for call in cluster.ran) == [0, 2, 4, 6]


def test_idle_nodes_are_given_back_by_kind() -> None:
    cluster = Cluster((0, 1), (1, 1))
    for kind in (0, 1):
        cluster.placement.add(Call(kind, of_kind(kind)))
    while cluster.placement.waiting or cluster.placement.busy:
        cluster.work()
    for _ in range(20):
        cluster.now += 10.0
        cluster.look(False)
    assert [node.kind for node in cluster.placement.nodes.values()] == [1]  # its fewest


def test_calls_of_one_kind_without_end_do_not_starve_another() -> None:
    """Though one call may run at once, and at any moment one of the others does."""
    cluster = Cluster((0, 1), (0, 1), max_workers=1)
    for number in range(4):
        cluster.placement.add(Call(number, of_kind(0)))
    cluster.begin_jobs()
    cluster.send_calls()
    rare = Call(4, of_kind(1))
    cluster.placement.add(rare)
    for number in range(5, 30):
        cluster.placement.add(Call(number, of_kind(0)))
        assert cluster.placement.busy
        cluster.begin_jobs()
        for node in list(cluster.placement.nodes.values()):
            cluster.end_calls(node)
        cluster.send_calls()
        cluster.now += 1.0
    assert rare in cluster.ran[:6]


def test_a_kind_grows_though_another_has_all_places() -> None:
    """For `max_workers` nodes may be there in vain, but their calls would otherwise come one by one."""
    cluster = Cluster((0, 1), (0, 3), max_workers=3)
    for number in range(3):
        cluster.placement.add(Call(number, of_kind(0)))
    cluster.begin_jobs()
    cluster.send_calls()
    for number in range(3, 9):
        cluster.placement.add(Call(number, NodeNeed(WorkerShape(cores=4), kind=1)))
    cluster.now += 1.0
    cluster.look(True)
    assert [(action.blocks[0].kind, len(action.blocks)) for action in cluster.submissions] == [(1, 3)]


def test_busy_nodes_of_one_kind_ask_for_none_of_another() -> None:
    cluster = Cluster((0, 3), (0, 3))
    for number in range(9):
        cluster.placement.add(Call(number, of_kind(0)))
    cluster.begin_jobs()
    cluster.send_calls()
    assert cluster.placement.busy_nodes(0) == 3
    cluster.placement.add(Call(9, of_kind(1)))
    cluster.now += 1.0
    cluster.look(True)
    assert [(action.blocks[0].kind, len(action.blocks)) for action in cluster.submissions] == [(1, 1)]


def test_one_question_is_about_all_kinds() -> None:
    cluster = Cluster((0, 1), (0, 1))
    for kind in (0, 1):
        cluster.placement.add(Call(kind, of_kind(kind)))
    cluster.look(True)
    for submission in list(cluster.submissions):
        cluster.take(submission)
    cluster.now += POLL[0]
    cluster.look(True)
    assert cluster.question is not None
    assert {block.kind for block in cluster.question.blocks} == {0, 1}


def test_a_call_to_come_keeps_no_node_of_an_unknown_kind() -> None:
    several = Cluster((0, 1), (0, 1))
    several.look(True)
    assert not several.submissions
    alone = Cluster((0, 1))
    alone.look(True)
    assert len(alone.submissions) == 1
