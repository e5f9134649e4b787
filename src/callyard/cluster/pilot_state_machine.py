"""The pilot jobs of one kind of nodes: decisions on when to submit, ask about, replace and cancel them.

Events go in with their time (`joined`, `submitted`, `answered`, ...). Some return actions, which
`backends/pilot_jobs.py` carries out through the scheduler. `cluster/autoscaler.py` decides on the number of nodes; this
module decides on the job behind each block of nodes. `cluster/pilot_kinds.py` has one such state for each kind.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import inf
from typing import NamedTuple

from ..errors import CallyardError, NodeFailure, ResourceError, SchedulerError, VersionMismatch
from ..pool.call_shape import NodeCapacity, NodeNeed
from ..schedulers.base import Status
from ..utils.backoff import Backoff
from .autoscaler import AGAIN, Autoscaler, Block, demand
from .base import GivenUpCalls
from .node_placement import NodePlacement
from .placement_state import NodeState
from .static_nodes import CONNECT

_OFTEN = 0.2  # s between two decisions, however much happens
_SOON = 1.0  # s between two questions, where one of them is urgent
_SLOWER = 1.3  # the factor by which the time between two questions grows
_TO_END = 10.0  # s after which a job that was told to end is cancelled
_MOST_FAILURES = 4  # the last ones, for the error message
_LONGEST_PAUSE, _GROWTH = 300.0, 2.0  # s, and a factor: of the pauses after refused submissions


class SubmitJobs(NamedTuple):
    """Submit a job for each of these blocks, all of one size, and report `submitted` or `refused`."""

    size: int
    blocks: list[Block]


class AskStatus(NamedTuple):
    """Ask the scheduler about the jobs of these blocks, and report `answered`."""

    blocks: list[Block]


class CancelJob(NamedTuple):
    """Cancel the job of this block."""

    block: Block


class EndAgent(NamedTuple):
    """Let the agent on this node end, and with it the node's part of the job."""

    node: NodeState


class JobEnded(NamedTuple):
    """Read the log of this ended job; with a reason, report the last words of the log by `failed`."""

    block: Block
    reason: str


class WarnOfPause(NamedTuple):
    """Tell the user that nodes are asked for again only after a pause of so many seconds, and the reason."""

    kind: int  # of nodes
    seconds: float
    reason: str


Action = SubmitJobs | AskStatus | CancelJob | EndAgent | JobEnded | WarnOfPause


class PilotState:
    """The pilot jobs of one kind, from the decision to ask for them to their ends."""

    def __init__(
        self,
        autoscaler: Autoscaler,
        placement: NodePlacement,
        poll: tuple[float, float],
        typical: NodeCapacity | None,
        where: str = "",
    ) -> None:
        """Begin without jobs.

        Args:
            autoscaler: the decisions on the number of nodes.
            placement: the calls and the nodes, of all kinds.
            poll: the shortest and the longest time between two questions (s).
            typical: the resources of most nodes; None while unknown.
            where: the kind, for messages, as " in partition gpu"; empty for the only one.
        """
        self.autoscaler, self.kind = autoscaler, autoscaler.kind
        self._placement, self._typical, self._where = placement, typical, where
        self._by_name: dict[str, Block] = {}  # by the name that the agents know
        self._failures: list[str] = []  # reasons of jobs that ended without an agent
        self._mistake = ""  # the reason why no node can ever come
        self._mismatch: VersionMismatch | None = None  # of the last agent that was refused
        self._changed = True  # something has happened since the last decision
        self._wanted = False  # there were calls at the last look
        self._decided, self._slowest = -inf, 0.0
        self._pauses = Backoff(poll[0], _LONGEST_PAUSE, _GROWTH)  # after refusals
        self._questions, self._asked_at = Backoff(*poll, _SLOWER), -inf
        self._questions.at = inf

    @property
    def blocks(self) -> list[Block]:
        return self.autoscaler.blocks

    @property
    def complete(self) -> bool:
        return all(block.state == "there" for block in self.blocks)

    def job_on(self, node: str) -> Block | None:
        """Return the latest pilot job that brought an agent to this node."""
        return next((block for block in reversed(self.blocks) if node in block.seen_on), None)

    # -- decisions -------------------------------------------------------------------------------------

    def look(self, now: float, wanted: bool) -> list[Action]:
        """Decide on the due actions. `wanted`: there are calls, or calls to come."""
        self._wanted = wanted
        actions: list[Action] = []
        if not wanted and not self.blocks:
            return actions
        if self._changed or wanted or self.kind in self._placement.idled or now >= self._next_decision():
            # Not at each result: a decision looks at all queues and nodes.
            if now >= self._decided + _OFTEN:
                actions += self._decide(now, wanted)
            else:
                self._changed = True  # there may be other calls than at the last decision, so look again in a moment
        return actions

    def next_look(self, asking: bool = False) -> float | None:
        """Return the time of the next look, if no event comes before; None for no time.

        `asking`: a question is under way, so no other is due.
        """
        if not self._wanted and not self.blocks:
            return None  # nothing would be decided
        times = [self._next_decision(), inf if asking else self._questions.at]
        if self._changed:
            times.append(self._decided + _OFTEN)
        when = min(times)
        return None if when == inf else when

    def _next_decision(self) -> float:
        when = self.autoscaler.next_look(self._slowest)
        return inf if when is None else max(when, self._decided + _OFTEN)

    def _decide(self, now: float, wanted: bool) -> list[Action]:
        placement, kind = self._placement, self.kind
        self._changed = placement.unsettled(kind)
        placement.idled.discard(kind)
        self._decided = now
        backlog = placement.backlog(kind)
        needs = demand(backlog, placement.busy_nodes(kind), self._typical, placement.room(kind))
        if wanted and not needs.nodes:
            needs = needs._replace(nodes=1)  # there are only calls that wait for other calls
        self._slowest = max((seconds for need, _, seconds in backlog if not need.time), default=0.0)
        longest = max((need.time for need in placement.unplaceable() if need.kind == kind), default=0.0)
        steps = self.autoscaler.decide(needs, self._slowest, now, longest)
        actions = [action for block in steps.give_back for action in self._give_back(block, now)]
        by_size: dict[int, list[Block]] = {}
        for block in steps.ask:
            by_size.setdefault(block.size, []).append(block)
        return [*actions, *(SubmitJobs(size, blocks) for size, blocks in by_size.items())]

    def _give_back(self, block: Block, now: float) -> list[Action]:
        self._questions.sooner(now + _TO_END)
        if block.connected:
            for node in block.connected:
                node.leaving = True
            return [EndAgent(node) for node in block.connected]
        # Without a name, the job is cancelled after the answer to its submission.
        return [] if block.job is None else [CancelJob(block)]

    # -- agents ----------------------------------------------------------------------------------------

    def joined(self, name: str, node: str, capacity: NodeCapacity, job: str, now: float) -> NodeState | None:
        """Return the node of a new agent of the block with this name; None if the node was given back."""
        block = self._by_name.get(name)
        if block is None or block.state == "leaving":
            return None
        self._typical = capacity
        state = self._placement.join(node, capacity, block, self.kind)
        block.job = job if block.job is None else block.job  # the agent may come before the answer to the submission
        block.step_job = job
        # Unknown so far, so calls with a `run_time` wait for the answer.
        state.until = now if block.until is None else block.until
        self.autoscaler.joined(block, state, now)
        self._ask_soon(now)
        return state

    def gone(self, node: NodeState, now: float) -> None:
        """Note that the agent on this node cannot be reached any more."""
        if isinstance(node.block, Block):
            self.autoscaler.lost(node.block, node, now)
        self._ask_soon(now)

    # -- submissions -----------------------------------------------------------------------------------

    def submitting(self, blocks: Sequence[Block], token: str) -> None:
        """Note the beginning of a submission with this token: from now on agents of the blocks may come."""
        for number, block in enumerate(blocks):
            block.name = f"{token}_{number}"
            self._by_name[block.name] = block

    def submitted(self, blocks: Sequence[Block], jobs: Sequence[str], now: float) -> list[Action]:
        """Note that the scheduler has taken the blocks, under these names."""
        self._changed = True
        self._mistake = ""  # a submission has succeeded after all
        self._pauses.reset()
        actions: list[Action] = []
        for block, job in zip(blocks, jobs, strict=True):
            block.job = job
            if block.state == "asked":
                block.goes("waiting", now)
            elif block.state == "leaving":
                # Given back during the submission: only now the job has a name to cancel.
                actions += self._give_back(block, now)
        self._questions.reset()
        self._questions.sooner(now + self._questions.first)
        return actions

    def refused(self, blocks: Sequence[Block], kind: str, reason: str, now: float) -> list[Action]:
        """Note that the scheduler has refused the blocks: "limit", "silent" or "mistake"."""
        self._changed = True
        blocks = [block for block in blocks if not block.seen_on]  # an agent may have come all the same
        for block in blocks:
            self._by_name.pop(block.name, None)
        if kind == "limit" and len(blocks) > 1:
            self.autoscaler.refused(blocks, now, len(blocks) // 2)  # half of them may be allowed
            return []
        pause = self._pauses.next_pause()
        self.autoscaler.refused(blocks, now + pause)
        if kind == "mistake":
            self._mistake = reason
        if kind == "mistake" and not any(block.connected for block in self.blocks):
            return []  # the waiting calls fail with the reason
        return [WarnOfPause(self.kind, pause, reason)]

    # -- questions -------------------------------------------------------------------------------------

    def _ask_soon(self, now: float) -> None:
        self._changed = True
        self._questions.reset()
        self._questions.sooner(max(now, self._asked_at + _SOON))

    def has_question(self, now: float) -> bool:
        """Return True if it is time to ask about jobs."""
        return now >= self._questions.at and (self._wanted or bool(self.blocks))

    def ask(self, now: float) -> list[Block]:
        """Return all jobs with something to be known, about which the scheduler is asked now."""
        self._asked_at, self._questions.at = now, inf
        return [block for block in self.blocks if block.job is not None and _is_doubtful(block)]

    def answered(
        self, blocks: Sequence[Block], statuses: Mapping[str, Status] | None, ends: Mapping[str, float], now: float
    ) -> list[Action]:
        """Note an answer of the scheduler, or None without one; `ends` has the known ends of the jobs' time."""
        self._changed = True
        actions: list[Action] = []
        # Without an answer no job is judged: a controller that is silent has lost nothing.
        for block in blocks if statuses is not None else ():
            if block in self.blocks:
                actions += self._judge(block, (statuses or {}).get(block.job or ""), now)
        for block in blocks:
            until = ends.get(block.job or "")
            if until is not None:
                self.autoscaler.ends_at(block, until, now)
                for node in block.connected:
                    self._placement.lasts_until(node, until)
        if any(map(_is_doubtful, self.blocks)):
            self._questions.sooner(now + self._questions.next_pause())
        return actions

    def _judge(self, block: Block, status: Status | None, now: float) -> list[Action]:
        block.missed = block.missed + 1 if status is None else 0
        if status is None:
            if block.missed > 1 and not block.connected:  # agents know better, and one answer may be out of date
                return self._ended(block, "is not known to the scheduler any more", now)
        elif status.phase == "ended":
            return self._ended(block, _how_it_ended(status), now)
        elif block.state == "leaving":
            if now - block.since > _TO_END:
                return [CancelJob(block)]
        elif status.phase == "running" and block.state == "waiting":
            block.goes("starting", now)
        elif block.state in ("starting", "lost") and now - block.since > CONNECT:
            # The job may run where the driver cannot be reached, and would keep its node for nothing.
            why = f"runs on {status.node}, from where no agent has connected in {CONNECT:.0f} s"
            return [CancelJob(block), *self._ended(block, why, now)]
        elif status.phase == "waiting":
            return self._judge_waiting(block, status, now)
        return []

    def _judge_waiting(self, block: Block, status: Status, now: float) -> list[Action]:
        """Give up a job that would wait for ever, after two such answers in a row, because the reason may pass."""
        before, block.reason, block.begins = block.reason, status.reason, status.begins
        if not status.hopeless or before != status.reason:
            return []
        self._mistake = f"job {block.job} can never run: it {status.sentence} ({status.reason})"
        return [CancelJob(block), *self._ended(block, "", now)]

    def _ended(self, block: Block, why: str, now: float) -> list[Action]:
        early = block.state in ("waiting", "starting")
        self.autoscaler.ended(block, now)
        self._by_name.pop(block.name, None)
        return [JobEnded(block, why if early else "")]

    # -- failures --------------------------------------------------------------------------------------

    def mismatched(self, mismatch: VersionMismatch) -> None:
        """Note that an agent was refused, because its version is another."""
        self._mismatch = mismatch

    def failed(self, why: str) -> None:
        """Note that a job has ended before any agent came."""
        self._failures = [*self._failures, why][-_MOST_FAILURES:]

    def give_up(self, needs: Sequence[NodeNeed], nobody_came: str) -> GivenUpCalls | None:
        """Return the needs to give up, with the error; None if all may wait. `needs`: those that no node can hold.

        `nobody_came` is the beginning of the message about jobs without an agent.
        """
        if self._mistake:
            error = SchedulerError(f"no nodes{self._where} are to be had from the scheduler: {self._mistake}")
            self._mistake = ""
            self.autoscaler.begin_anew()
            return GivenUpCalls(needs, error)
        impossible = [need for need in needs if self._can_never_hold(need)]
        if impossible:
            what = f"no node{self._where} has what it asks for, or is there for so long as it may take (walltime=)"
            return GivenUpCalls(impossible, ResourceError(f"{what}; ask for less"))
        scaler = self.autoscaler
        expected = any(block.state in ("asked", "waiting", "starting") for block in self.blocks)
        if expected or not self._failures or (scaler.ever and scaler.failures < len(AGAIN)):
            return None
        kind: type[CallyardError] = NodeFailure if scaler.ever else SchedulerError
        why = self._mismatch or kind(f"{nobody_came}; {'; '.join(self._failures)}")
        self._mismatch = None
        self._failures.clear()
        scaler.begin_anew()
        return GivenUpCalls(needs, why)

    def _can_never_hold(self, need: NodeNeed) -> bool:
        """Return True if no nodes can ever hold the need: there may not be enough, or all are there and too small."""
        most = self.autoscaler.most
        if need.nodes > most:
            return True
        if sum(block.size for block in self.blocks if block.connected) < most:
            return False
        if need.time > max(block.lifetime for block in self.blocks):
            return True
        return need.nodes == 1 and not any(n.is_large_enough(need) for block in self.blocks for n in block.connected)

    # -- the end ---------------------------------------------------------------------------------------

    def to_cancel(self, orderly: bool) -> list[str]:
        """Return the jobs to cancel at the end.

        `orderly`: the agents have ended by themselves, and so do their jobs.
        """
        blocks: Iterable[Block] = (block for block in self.blocks if not (orderly and block.state == "there"))
        return [block.job for block in blocks if block.job is not None]


def is_timeless(block: Block) -> bool:
    """Return True if the time left to the job is of use, and unknown."""
    return block.until is None and bool(block.connected)


def _is_doubtful(block: Block) -> bool:
    """Return True if the scheduler knows more about the job than its agents have told."""
    return block.state != "there" or block.until is None or not block.connected


def _how_it_ended(status: Status) -> str:
    how = f"ended with exit code {status.exit_code}" if status.exit_code else status.sentence
    return f"{how} on {status.node}" if status.node else how
