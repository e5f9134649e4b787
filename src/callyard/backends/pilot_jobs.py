"""Pilot jobs: nodes from a scheduler, by jobs whose only work is an agent on each of their nodes.

    the driver's I/O thread                         the thread of the commands
    ----------------------------------------------- ---------------------------------------
    look_after: PilotKinds decides --> actions -------> submit, ask, cancel: one command at a time
                PilotKinds <---------------- replies <- the answer, or the command's error
    admit: an agent has connected, and PilotKinds knows its job

This module carries out the decisions of `cluster/pilot_kinds.py`. The I/O thread waits for no command: a controller may
take its time, and calls go on meanwhile.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from glob import escape, glob
from time import monotonic
from typing import Protocol

from ..cluster.autoscaler import Autoscaler, Block
from ..cluster.base import GivenUpCalls, StarterTurn
from ..cluster.hello import Hello
from ..cluster.node_placement import NodePlacement
from ..cluster.pilot_kinds import PilotKinds
from ..cluster.pilot_state_machine import (
    Action,
    AskStatus,
    CancelJob,
    EndAgent,
    JobEnded,
    PilotState,
    SubmitJobs,
    WarnOfPause,
    is_timeless,
)
from ..cluster.placement_state import NodeState
from ..errors import CallyardError, VersionMismatch
from ..pool.call_shape import NodeCapacity, NodeNeed
from ..schedulers.base import JobRequest
from ..status.call_status import in_the_queue
from ..transport.event_loop import EventLoop
from ..utils.command_thread import CommandThread, Steps
from .batch.scheduler_client import SchedulerClient, SubmissionRefused
from .failed_nodes import FailedNodes

_log = logging.getLogger("callyard")
_TAIL = 2000  # bytes of a log, for its last words


class KindSettings(Protocol):
    """The making of pilot jobs for one kind of nodes, and the resources of these nodes.

    Attributes:
        least: the fewest nodes.
        most: the most nodes.
        where: the kind, for messages, as " in partition gpu"; empty for the only one.
    """

    least: int
    most: int
    where: str

    def typical(self) -> NodeCapacity | None:
        """Return the resources of most nodes, as far as known."""

    def request(self, token: str, size: int, count: int, contact: str) -> JobRequest:
        """Return the request for `count` jobs of `size` nodes each."""

    def describe(self, there: int) -> str:
        """Return a short description for people; `there`: the number of nodes with connected agents."""


class PilotSettings(Protocol):
    """The settings of pilot jobs."""

    poll: tuple[float, float]
    failed_nodes: FailedNodes

    @property
    def kinds_of_nodes(self) -> Sequence[KindSettings]:
        """The kinds of nodes to ask for."""


class PilotJobs:
    """The pilot jobs of one executor: an `AgentStarter`."""

    def __init__(self, settings: PilotSettings, scheduler: SchedulerClient, placement: NodePlacement) -> None:
        self._settings, self._scheduler = settings, scheduler
        self._kinds = settings.kinds_of_nodes
        states = [
            PilotState(Autoscaler(kind.least, kind.most, number), placement, settings.poll, kind.typical(), kind.where)
            for number, kind in enumerate(self._kinds)
        ]
        self._pilots = PilotKinds(states, placement)
        self._warned: dict[int, str] = {}  # the reason of the last warning, by kind
        self._commands = CommandThread(self._post)
        self._replies: deque[Callable[[], object]] = deque()  # from the thread of the commands, for the I/O thread
        self._logs: dict[Block, str] = {}  # paths
        self._to_end: list[NodeState] = []
        self._loop: EventLoop | None = None
        self._contact: Callable[[], str] = str
        self._closing = False
        self._pid = os.getpid()

    # -- for the driver --------------------------------------------------------------------------------

    @property
    def complete(self) -> bool:
        return self._pilots.complete

    def look_after(self, loop: EventLoop, contact: Callable[[], str], now: float, wanted: bool) -> StarterTurn:
        self._loop, self._contact = loop, contact
        self._take_replies()
        self._carry_out(self._pilots.look(now, wanted))
        ending, self._to_end = self._to_end, []
        return StarterTurn(ending, self._pilots.next_look())

    def admit(self, hello: Hello, now: float, mismatch: VersionMismatch | None = None) -> NodeState | str:
        share = hello.pilot
        if share is None:
            return f"node {hello.node} belongs to none of this driver's jobs"
        if mismatch is not None:
            self._pilots.mismatched(share.block, mismatch)
            return str(mismatch)
        node = self._pilots.joined(share.block, hello.node, share.offer.of(hello.capacity), share.job, now)
        return f"node {hello.node} was given back" if node is None else node

    def gone(self, node: NodeState, now: float) -> None:
        self._pilots.gone(node, now)

    def give_up(self, needs: Sequence[NodeNeed], long: bool, where: str) -> Sequence[GivenUpCalls]:
        words = [f"{kind.describe(self.count(number))}: none came{where}" for number, kind in enumerate(self._kinds)]
        return self._pilots.give_up(needs, words)

    def count(self, kind: int) -> int:
        """Return the number of nodes of a kind with connected agents. Any thread may ask."""
        return sum(len(block.connected) for block in list(self._pilots.states[kind].blocks))

    def nodes_to_come(self, kind: int) -> str:
        coming = [block for block in list(self._pilots.states[kind].blocks) if not block.connected]
        said = [words for block in coming if (words := _what_becomes_of(block, self._scheduler.name))]
        refusal = self._warned.get(kind)
        return said[0] if said else f"the scheduler refuses more of them for now: {refusal}" if refusal else ""

    def job_on(self, node: str) -> Block | None:
        """Return the pilot job that brought an agent to this node."""
        return self._pilots.job_on(node)

    # -- carrying out ----------------------------------------------------------------------------------

    def _carry_out(self, actions: Iterable[Action]) -> None:
        for action in actions:
            match action:
                case SubmitJobs(size, blocks):
                    self._begin(self._submissions(size, blocks))
                case AskStatus(blocks):
                    self._begin(self._question(blocks))
                case CancelJob(block):
                    self._begin(self._cancellation(block))
                case EndAgent(node):
                    self._to_end.append(node)
                case JobEnded(block, reason):
                    self._job_ended(block, reason)
                case WarnOfPause(kind, seconds, reason):
                    self._warn_of_pause(kind, seconds, reason)

    def _warn_of_pause(self, kind: int, seconds: float, reason: str) -> None:
        """Warn the user, once for each kind and reason: refusals may go on for hours."""
        level = logging.INFO if self._warned.get(kind) == reason else logging.WARNING
        self._warned[kind] = reason
        where = self._kinds[kind].where
        _log.log(level, "callyard: nodes%s are asked for again in %.0f s: %s", where, seconds, reason)

    def _job_ended(self, block: Block, reason: str) -> None:
        logs = _with_those_of_nodes(self._logs.pop(block))
        tail = "; ".join(filter(None, map(_tail, logs)))[-_TAIL // 2 :]
        for log in logs:
            _remove_if_empty(log)
        if reason:
            self._pilots.of(block).failed(f"job {block.job} {reason}" + (f", and said: {tail}" if tail else ""))

    def _begin(self, steps: Steps) -> None:
        self._commands.run(self._carefully(steps))

    def _carefully(self, steps: Steps) -> Steps:
        """Log an error in one task, so that others go on; each task has told its result, good or bad, before."""
        try:
            yield from steps
        except Exception:
            _log.exception("callyard: nodes cannot be looked after")

    def _post(self, reply: Callable[[], object]) -> None:
        """Hand a reply from the thread of the commands to the I/O thread."""
        self._replies.append(reply)  # first: once woken, the loop looks for it
        if self._loop is not None:
            self._loop.wake()

    def _take_replies(self) -> None:
        while self._replies:
            self._replies.popleft()()

    # -- submitting ------------------------------------------------------------------------------------

    def _submissions(self, size: int, blocks: list[Block]) -> Steps:
        """Submit jobs for these blocks, in arrays as large as the cluster takes."""
        scheduler = self._scheduler
        try:
            most = scheduler.most if scheduler.most is not None else (yield scheduler.most_elements)
        except Exception as error:
            self._not_submitted(blocks, error)
            return
        most = max(1, most)
        for first in range(0, len(blocks), most):
            if self._closing:  # no driver is left for the agents
                return
            yield from self._submit(size, blocks[first : first + most])

    def _submit(self, size: int, blocks: list[Block]) -> Steps:
        token = os.urandom(8).hex()
        # Before the command: an agent may connect before the answer to its submission.
        self._pilots.of(blocks[0]).submitting(blocks, token)
        try:
            request = self._kinds[blocks[0].kind].request(token, size, len(blocks), self._contact())
        except (OSError, ValueError, CallyardError) as error:
            self._refused(blocks, "mistake", str(error))
            return
        for number, block in enumerate(blocks):
            self._logs[block] = request.log.replace("{element}", str(number))
        yield from self._submission(request, blocks)

    def _submission(self, request: JobRequest, blocks: list[Block]) -> Steps:
        """Submit a job, and look for the job after a submission without an answer: the scheduler may have taken it."""
        try:
            try:
                job = yield partial(self._scheduler.submit, request)
            except SubmissionRefused as refused:
                known = (yield partial(self._scheduler.look_up, request.token)) if refused.kind == "silent" else {}
                found = _found(request, known)
                if found is None:
                    raise
                job = found
        except Exception as error:
            self._not_submitted(blocks, error)
        else:
            self._warned.pop(blocks[0].kind, None)
            self._carry_out(self._pilots.of(blocks[0]).submitted(blocks, _each(request, job), monotonic()))

    def _not_submitted(self, blocks: list[Block], error: Exception) -> None:
        if isinstance(error, SubmissionRefused):
            self._refused(blocks, error.kind, str(error))
        else:  # so that no call waits for the blocks
            self._refused(blocks, "mistake", str(error))
            raise error

    def _refused(self, blocks: list[Block], kind: str, reason: str) -> None:
        self._carry_out(self._pilots.of(blocks[0]).refused(blocks, kind, reason, monotonic()))

    def _cancellation(self, block: Block) -> Steps:
        yield partial(self._scheduler.cancel, [block.job or ""])

    # -- asking ----------------------------------------------------------------------------------------

    def _question(self, blocks: list[Block]) -> Steps:
        """Ask for the states of the jobs, and the time left to them; a senseless answer counts as none."""
        ends: dict[str, float] = {}
        try:
            statuses = yield partial(self._scheduler.statuses, [block.job or "" for block in blocks])
            timeless = [block.job or "" for block in blocks if is_timeless(block)]
            asked_at = monotonic()  # before the command: a slow answer makes the time shorter, never longer
            if timeless:
                left = yield partial(self._scheduler.times_left, timeless)
                ends = {job: asked_at + seconds for job, seconds in left.items()}
        except Exception:
            self._carry_out(self._pilots.answered(blocks, None, {}, monotonic()))
            raise
        known = [status for block in blocks if (status := (statuses or {}).get(block.job or "")) is not None]
        self._commands.run(self._settings.failed_nodes.learn(self._scheduler, known))
        self._carry_out(self._pilots.answered(blocks, statuses, ends, monotonic()))

    # -- the end ---------------------------------------------------------------------------------------

    def close(self, loop: EventLoop, grace: float) -> None:
        """Cancel the jobs that have not ended by themselves, and those under submission."""
        if os.getpid() != self._pid:  # a fork in a callback has copied the I/O thread, but the jobs are not the copy's
            return
        self._closing = True
        self._scheduler.stop_asking()
        self._take_replies()  # first: the loop has told of these replies already, and does not tell again
        while self._commands.busy:
            loop.step(None)
            self._take_replies()
        jobs = self._pilots.to_cancel(orderly=grace >= 1)
        if jobs:
            self._scheduler.cancel(jobs)
        for path in self._logs.values():
            for log in _with_those_of_nodes(path):
                _remove_if_empty(log)


def _what_becomes_of(block: Block, scheduler: str) -> str:
    """Return in words what becomes of a job whose agents have not come yet; "" for one that is not wanted any more."""
    if block.state == "asked":
        return f"a pilot job is being submitted to {scheduler}"
    if block.state == "waiting":
        return f"pilot job {block.job} is {in_the_queue(scheduler, block.reason, block.begins)}"
    if block.state == "starting":
        return f"pilot job {block.job} has begun, and its agent has not come yet"
    return f"the agent of pilot job {block.job} cannot be reached" if block.state == "lost" else ""


def _with_those_of_nodes(log: str) -> list[str]:
    """Return the log of a job, and those of its nodes beside it."""
    return [log, *glob(f"{escape(log.removesuffix('.log'))}.*.log")]


def _found(request: JobRequest, known: Mapping[str, str]) -> str | None:
    """Return the job of a request, as `submit` would, from jobs by their tokens; None unless all of it is there."""
    if request.token in known:
        return known[request.token]
    jobs = [known[token] for token in request.tokens() if token in known]
    return "".join(f"{job}," for job in jobs) if jobs and len(jobs) == len(request.tokens()) else None


def _each(request: JobRequest, job: str) -> list[str]:
    """Return the job of each element; where elements are jobs of their own, `job` is a list with commas."""
    if job.endswith(","):
        return job[:-1].split(",")
    count = request.elements if isinstance(request.elements, int) else len(request.elements or ())
    return [job] if request.elements is None else [f"{job}_{number}" for number in range(count)]


def _remove_if_empty(path: str) -> None:
    with contextlib.suppress(OSError):
        if os.path.getsize(path) == 0:
            os.unlink(path)


def _tail(path: str) -> str:
    """Return the last lines of a log as one line; nothing if the log cannot be read."""
    try:
        with open(path, "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - _TAIL))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        return ""
    return "; ".join(line.strip() for line in lines if line.strip())
