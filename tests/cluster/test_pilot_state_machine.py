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
from callyard.cluster.placement_state import NodeState
from callyard.errors import NodeFailure, SchedulerError
from callyard.pool.call_shape import NodeCapacity, NodeNeed, WorkerShape
from callyard.schedulers.base import Status

ONE = NodeNeed(WorkerShape())
CAPACITY = NodeCapacity(4, (), 8)
POLL = (5.0, 60.0)
PAUSE = 30.0


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
    """A scheduler, its jobs and their agents, which carry out what is decided."""

    def __init__(self, least: int, most: int) -> None:
        self.placement = NodePlacement()
        self.state = PilotState(Autoscaler(least, most), self.placement, POLL, CAPACITY, lambda: PAUSE)
        self.now = 1000.0
        self.submissions: list[SubmitJobs] = []  # that have not been answered
        self.question: AskStatus | None = None  # that has not been answered
        self.jobs: list[Job] = []  # that wait or run
        self.numbers = 0
        self.given_up: list[BaseException] = []

    # -- actions ---------------------------------------------------------------------------------------

    def look(self, wanted: bool) -> None:
        actions = self.state.look(self.now, wanted)
        when = self.state.next_look()
        assert when is None or when > self.now, "what is due has been decided"
        self.carry_out(actions)

    def carry_out(self, actions: Iterable[Action]) -> None:
        for action in actions:
            match action:
                case SubmitJobs(size, blocks):
                    assert {block.size for block in blocks} == {size}
                    self.numbers += 1
                    self.state.submitting(blocks, f"t{self.numbers}")
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
                    assert block not in self.state.blocks
                    if reason:
                        self.state.failed(f"job {block.job} {reason}")

    # -- the scheduler ---------------------------------------------------------------------------------

    def take(self, submission: SubmitJobs) -> None:
        self.submissions.remove(submission)
        made = []
        for block in submission.blocks:
            self.numbers += 1
            made.append(Job(block, str(self.numbers)))
        self.jobs += made
        self.carry_out(self.state.submitted(submission.blocks, [job.name for job in made], self.now))

    def refuse(self, submission: SubmitJobs, kind: str) -> None:
        self.submissions.remove(submission)
        self.carry_out(self.state.refused(submission.blocks, kind, "no", self.now))

    def answer(self, silent: bool = False, left: float | None = None) -> None:
        assert self.question is not None
        blocks, self.question = self.question.blocks, None
        known = {job.name: status_of(job) for job in self.jobs}
        ends: dict[str, float] = {}
        if left is not None:
            ends = {block.job or "": self.now + left for block in blocks if is_timeless(block)}
        self.carry_out(self.state.answered(blocks, None if silent else known, {} if silent else ends, self.now))

    def job_ends(self, job: Job) -> None:
        self.jobs.remove(job)
        for node in list(job.nodes):
            self.agent_goes(node)

    # -- agents and calls ------------------------------------------------------------------------------

    def agent_comes(self, job: Job) -> None:
        name = f"n{job.name}-{len(job.nodes)}"
        node = self.state.joined(job.block.name, name, CAPACITY, job.name, self.now)
        if node is not None:
            job.nodes.append(node)

    def agent_goes(self, node: NodeState) -> None:
        """It cannot be reached any more; its job goes on until somebody ends it."""
        for job in self.jobs:
            if node in job.nodes:
                job.nodes.remove(node)
        self.state.gone(node, self.now)
        self.placement.leave(node)

    def end_calls(self, node: NodeState) -> None:
        for call in list(node.in_flight):
            if call.need.nodes > 1:
                self.placement.finished_everywhere(call)
            else:
                self.placement.finished(node, [call])

    def give_up(self) -> None:
        """As the driver does with calls that no node can hold."""
        needs = self.placement.unplaceable()
        given_up = self.state.give_up(needs, "none came") if needs else None
        if given_up is not None:
            self.given_up.append(given_up.why)
            for need in given_up.needs:
                self.placement.drop(need)

    # -- a scheduler that does what it should ----------------------------------------------------------

    def work(self) -> None:
        """Let everything that is under way happen."""
        self.look(self.placement.waiting)
        for submission in list(self.submissions):
            self.take(submission)
        for job in list(self.jobs):
            if job.block in self.state.blocks and len(job.nodes) < job.block.size and job.block.state != "leaving":
                job.state = "running"
                self.agent_comes(job)
        if self.question is not None:
            self.answer(left=5000.0)
        self.give_up()
        self.placement.decide(self.now)
        for node in list(self.placement.nodes.values()):
            self.end_calls(node)
        when = self.state.next_look()
        self.now = self.now + 1.0 if when is None else max(when, self.now + 0.1)


class Pilots(RuleBasedStateMachine):
    @initialize(least=st.integers(0, 2), more=st.integers(0, 3))
    def begin(self, least: int, more: int) -> None:
        self.cluster = Cluster(least, max(1, least + more))
        self.calls = 0

    @rule(nodes=st.sampled_from([1, 1, 1, 2]), time=st.sampled_from([0.0, 0.0, 100.0]), count=st.integers(1, 6))
    def calls_come(self, nodes: int, time: float, count: int) -> None:
        need = NodeNeed(WorkerShape(), exclusive=nodes > 1, nodes=nodes, time=time)
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
        self.cluster.placement.decide(self.cluster.now)

    @rule()
    def calls_are_given_up(self) -> None:
        self.cluster.give_up()

    @precondition(lambda self: self.cluster.submissions)
    @rule(kind=st.sampled_from(["taken", "taken", "taken", "limit", "silent", "mistake"]), data=st.data())
    def submission_is_answered(self, kind: str, data: Any) -> None:
        submission = data.draw(st.sampled_from(self.cluster.submissions))
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
            state = self.cluster.state
            assert sum(block.size for block in state.blocks if block.present) <= state.autoscaler.most

    @invariant()
    def no_job_is_forgotten(self) -> None:
        """Each job that waits or runs is one of those that are looked after, and is cancelled at the end."""
        if hasattr(self, "cluster"):
            known = {block.job for block in self.cluster.state.blocks}
            assert {job.name for job in self.cluster.jobs} <= known
            assert {job.name for job in self.cluster.jobs} <= set(self.cluster.state.to_cancel(orderly=False))

    def teardown(self) -> None:
        """Whatever has happened, calls run once the scheduler works, or are told why they do not."""
        if not hasattr(self, "cluster"):
            return
        for job in self.cluster.jobs:
            job.reason = ""
        for _ in range(300):
            if not self.cluster.placement.waiting:
                return
            self.cluster.work()
        raise AssertionError(f"{self.cluster.placement.waiting_calls()} wait for ever")


TestPilots = Pilots.TestCase


@pytest.fixture
def cluster() -> Cluster:
    return Cluster(0, 2)


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
