"""Live calls on nodes that an executor asks a scheduler for: pilot jobs, each of which brings an agent to its nodes.

    the I/O thread of the crew                      the thread of the clerk
    ----------------------------------------------- ---------------------------------------
    look_after: cluster/autoscaler decides --> steps ----> submit, ask, cancel: one command at a time
                news <----------------------------- what came of it
    admit: an agent has connected; whose pilot is it?

No command is waited for in the I/O thread: a controller may take its time, and calls go on meanwhile.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from math import inf
from time import monotonic
from typing import Any, Protocol

from ..cluster.autoscaler import AGAIN, Autoscaler, Block, demand
from ..cluster.launch import GivenUpCalls, NodeOffer
from ..cluster.node import NodeState
from ..cluster.node_placement import NodePlacement
from ..cluster.static_nodes import CONNECT
from ..errors import CallyardError, NodeFailure, ResourceError, SchedulerError
from ..pool.call_shape import NodeCapacity, NodeNeed
from ..schedulers.base import JobRequest, Status
from ..transport.event_loop import EventLoop
from ..utils.command_thread import CommandThread, Steps
from .batch.scheduler_client import SchedulerClient, SubmissionRefused

_log = logging.getLogger("callyard")
_OFTEN = 0.2  # s between two decisions, however much happens
_SOON = 1.0  # s between two questions, where one of them is urgent
_SLOWER = 1.3  # how the time between two questions grows
_TO_END = 10.0  # s after which a job that was told to end is cancelled
_TAIL = 2000  # bytes of a log that are told


class PilotSettings(Protocol):
    """How pilot jobs are made, and what nodes of theirs have."""

    poll: tuple[float, float]
    least: int
    most: int

    def typical(self) -> NodeCapacity | None:
        """What most nodes have, as far as that is known."""

    def request(self, token: str, size: int, count: int, contact: str) -> JobRequest:
        """So many jobs of so many nodes each."""

    def describe(self) -> str:
        """For people: what this is."""


class PilotJobs:
    """The pilot jobs of one executor: a `Muster`."""

    def __init__(self, jobs: PilotSettings, desk: SchedulerClient, fleet: NodePlacement) -> None:
        self._jobs, self._desk, self._fleet = jobs, desk, fleet
        self._supply = Autoscaler(jobs.least, jobs.most)
        self._clerk = CommandThread(self._tell)
        self._news: deque[Callable[[], object]] = deque()  # for the I/O thread
        self._blocks: dict[str, Block] = {}  # by the name that their agents know
        self._logs: dict[Block, str] = {}
        self._missed: dict[Block, int] = {}  # how often in a row the scheduler did not know their jobs
        self._reasons: dict[Block, str] = {}  # why they waited when it was last asked
        self._words: list[str] = []  # why jobs have ended without an agent
        self._mistake = ""  # why none can ever come
        self._to_end: list[NodeState] = []
        self._changed = True
        self._wanted = False  # there were calls when it was last looked at
        self._decided, self._slowest, self._typical = -inf, 0.0, jobs.typical()
        self._asking = False
        self._ask_pause = jobs.poll[0]
        self._ask_at, self._asked_at = inf, -inf
        self._loop: EventLoop | None = None
        self._closing = False
        self._forked = False

    # -- the muster ------------------------------------------------------------------------------------

    @property
    def complete(self) -> bool:
        return all(block.state == "there" for block in self._supply.blocks)

    def look_after(self, loop: EventLoop, contact: Callable[[], str], now: float, wanted: bool) -> Sequence[NodeState]:
        self._loop, self._wanted = loop, wanted
        self._hear_news()
        if not wanted and not self._supply.blocks:
            return ()
        if self._changed or wanted or self._fleet.idled or now >= self._next_decision():
            if now >= self._decided + _OFTEN:
                self._decide(contact, now, wanted)
            else:
                self._changed = True  # there may be other calls than there were; it is looked at in a moment
        if now >= self._ask_at and not self._asking:
            self._ask(now)
        ending, self._to_end = self._to_end, []
        return ending

    def _hear_news(self) -> None:
        while self._news:
            self._news.popleft()()
            self._changed = True

    def next_look(self) -> float | None:
        if not self._wanted and not self._supply.blocks:
            return None  # whatever was due: nothing would be decided
        times = [self._next_decision(), inf if self._asking else self._ask_at]
        if self._changed:
            times.append(self._decided + _OFTEN)
        when = min(times)
        return None if when == inf else when

    def _next_decision(self) -> float:
        when = self._supply.next_look(self._slowest)
        return inf if when is None else max(when, self._decided + _OFTEN)

    def admit(self, said: dict[str, Any], now: float) -> NodeState | str:
        block = self._blocks.get(said.get("block", ""))
        if block is None or block.state == "leaving":
            return f"node {said['node']} was given back"
        cores, gpus, memory = said["capacity"]
        offer = NodeOffer(*said["allocated"])
        self._typical = capacity = offer.of(NodeCapacity(cores, tuple(gpus), memory))
        member = self._fleet.join(said["node"], capacity, block)
        block.job = said["job"] if block.job is None else block.job
        block.step_job = said["job"]
        member.until = now if block.until is None else block.until  # calls with a time of their own wait for that
        self._supply.joined(block, member, now)
        self._ask_soon(now)
        self._changed = True
        return member

    def gone(self, member: NodeState, now: float) -> None:
        if isinstance(member.block, Block):
            self._supply.lost(member.block, member, now)
        self._ask_soon(now)
        self._changed = True

    def job_of(self, node: str) -> Block | None:
        """The pilot that brought an agent there."""
        return next((block for block in reversed(self._supply.blocks) if node in block.nodes), None)

    # -- decisions -------------------------------------------------------------------------------------

    def _decide(self, contact: Callable[[], str], now: float, wanted: bool) -> None:
        self._changed, self._fleet.idled = self._fleet.unsettled, False
        self._decided = now
        backlog = self._fleet.backlog()
        busy = sum(1 for member in self._fleet.members.values() if member.flight)
        needs = demand(backlog, busy, self._typical, self._fleet.room)
        if wanted and not needs.nodes:
            needs = needs._replace(nodes=1)  # calls that wait for others
        self._slowest = max((seconds for need, _, seconds in backlog if not need.time), default=0.0)
        longest = max((need.time for need in self._fleet.hopeless()), default=0.0)
        steps = self._supply.decide(needs, self._slowest, now, longest)
        for block in steps.give_back:
            self._give_back(block)
        by_size: dict[int, list[Block]] = {}
        for block in steps.ask:
            by_size.setdefault(block.size, []).append(block)
        for size, blocks in by_size.items():
            self._begin(self._submissions(size, blocks, contact))

    def _give_back(self, block: Block) -> None:
        for member in block.members:
            member.leaving = True
        if block.members:
            self._to_end.extend(block.members)
        elif block.job is not None:
            self._cancel(block)
        self._ask_at = min(self._ask_at, monotonic() + _TO_END)

    # -- submitting ------------------------------------------------------------------------------------

    def _submissions(self, size: int, blocks: list[Block], contact: Callable[[], str]) -> Steps:
        """Submit them, in arrays as large as the cluster takes."""
        try:
            most = self._desk.most if self._desk.most is not None else (yield self._desk.most_elements)
        except Exception as error:
            self._not_asked_for(blocks, error)
            return
        most = max(1, most)
        for first in range(0, len(blocks), most):
            if self._closing:  # a moment too late: there is nobody to whom agents could come
                return
            yield from self._submit(size, blocks[first : first + most], contact)

    def _submit(self, size: int, blocks: list[Block], contact: Callable[[], str]) -> Steps:
        token = os.urandom(8).hex()
        for number, block in enumerate(blocks):
            block.name = f"{token}_{number}"
            self._blocks[block.name] = block
        try:
            request = self._jobs.request(token, size, len(blocks), contact())
        except (OSError, ValueError, CallyardError) as error:
            self._refused(blocks, "mistake", str(error))
            return
        for number, block in enumerate(blocks):
            self._logs[block] = request.log.replace("{element}", str(number))
        yield from self._submission(request, blocks)

    def _submission(self, request: JobRequest, blocks: list[Block]) -> Steps:
        """Submit, and look it up where that was not answered."""
        try:
            try:
                job = yield partial(self._desk.submit, request)
            except SubmissionRefused as refused:
                known = (yield partial(self._desk.look_up, request.token)) if refused.kind == "silent" else {}
                if request.token not in known:
                    raise
                job = known[request.token]
        except Exception as error:
            self._not_asked_for(blocks, error)
        else:
            self._submitted(blocks, job, request.elements is not None)

    def _submitted(self, blocks: list[Block], job: str, array: bool) -> None:
        now = monotonic()
        self._mistake = ""  # it is none any more
        for number, block in enumerate(blocks):
            block.job = f"{job}_{number}" if array else job
            if block.state == "asked":
                block.goes("waiting", now)
            elif block.state == "leaving":
                self._give_back(block)
        self._ask_pause = self._jobs.poll[0]
        self._ask_at = min(self._ask_at, now + self._ask_pause)

    def _not_asked_for(self, blocks: list[Block], error: Exception) -> None:
        if isinstance(error, SubmissionRefused):
            self._refused(blocks, error.kind, str(error))
        else:  # nobody shall wait for these blocks
            self._refused(blocks, "mistake", str(error))
            raise error

    def _refused(self, blocks: list[Block], kind: str, words: str) -> None:
        now = monotonic()
        blocks = [block for block in blocks if not block.nodes]  # an agent may have come all the same
        for block in blocks:
            self._blocks.pop(block.name, None)
        if kind == "limit" and len(blocks) > 1:
            self._supply.refused(blocks, now, len(blocks) // 2)  # some of them may be allowed
            return
        pause = self._desk.pause()
        self._supply.refused(blocks, now + pause)
        if kind == "mistake":
            self._mistake = words
        if kind != "mistake" or self._fleet.members:  # otherwise the calls are told
            _log.warning("callyard: nodes are asked for again in %.0f s: %s", pause, words)

    # -- asking ----------------------------------------------------------------------------------------

    def _ask_soon(self, now: float) -> None:
        self._ask_pause = self._jobs.poll[0]
        self._ask_at = min(self._ask_at, max(now, self._asked_at + _SOON))

    def _ask(self, now: float) -> None:
        """One question about all jobs of which there is something to be known."""
        doubtful = [block for block in self._supply.blocks if block.job is not None and _is_doubtful(block)]
        self._asked_at, self._ask_at = now, inf
        if doubtful:
            self._asking = True
            self._begin(self._question(doubtful))

    def _question(self, blocks: list[Block]) -> Steps:
        """What makes no sense counts as no answer."""
        left: dict[str, float] = {}
        try:
            statuses = yield partial(self._desk.statuses, [block.job or "" for block in blocks])
            timeless = [block.job or "" for block in blocks if block.until is None and block.members]
            then = monotonic()
            if timeless:
                left = yield partial(self._desk.times_left, timeless)
        except Exception:
            self._heard(blocks, None, {}, monotonic())
            raise
        self._heard(blocks, statuses, left, then)

    def _heard(
        self, blocks: list[Block], statuses: dict[str, Status] | None, left: dict[str, float], then: float
    ) -> None:
        self._asking = False
        now = monotonic()
        for block in blocks if statuses is not None else ():
            if block in self._supply.blocks:
                self._judge(block, (statuses or {}).get(block.job or ""), now)
        for block in blocks:
            if (block.job or "") in left:
                self._supply.ends_at(block, then + left[block.job or ""], now)
                for member in block.members:
                    self._fleet.lasts_until(member, then + left[block.job or ""])
        if any(_is_doubtful(block) for block in self._supply.blocks):
            self._ask_at = min(self._ask_at, now + self._ask_pause)
            self._ask_pause = min(self._ask_pause * _SLOWER, self._jobs.poll[1])

    def _judge(self, block: Block, status: Status | None, now: float) -> None:
        self._missed[block] = self._missed.get(block, 0) + 1 if status is None else 0
        if status is None:
            if self._missed[block] > 1 and not block.members:  # agents know better
                self._ended(block, "is not known to the scheduler any more", now)
        elif status.phase == "ended":
            self._ended(block, _how(status), now)
        elif block.state == "leaving":
            if now - block.since > _TO_END:
                self._cancel(block)
        elif status.phase == "running" and block.state == "waiting":
            block.goes("starting", now)
        elif block.state in ("starting", "lost") and now - block.since > CONNECT:
            self._cancel(block)
            self._ended(block, f"runs on {status.node}, from where no agent has connected in {CONNECT:.0f} s", now)
        elif status.phase == "waiting":
            self._judge_waiting(block, status, now)

    def _judge_waiting(self, block: Block, status: Status, now: float) -> None:
        if status.hopeless and self._reasons.get(block) == status.reason:  # twice: it may pass
            self._cancel(block)
            self._mistake = f"job {block.job} can never run: it {status.sentence} ({status.reason})"
            self._ended(block, "", now)
        self._reasons[block] = status.reason

    def _ended(self, block: Block, words: str, now: float) -> None:
        early = block.state in ("waiting", "starting")
        self._supply.ended(block, now)
        self._blocks.pop(block.name, None)
        self._reasons.pop(block, None)
        self._missed.pop(block, None)
        log = self._logs.pop(block)
        said = _tail(log)
        _remove_if_empty(log)
        if early and words:
            self._words = [*self._words, f"job {block.job} {words}" + (f", and said: {said}" if said else "")][-4:]

    # -- why there is nothing --------------------------------------------------------------------------

    def why_hopeless(self, needs: Sequence[NodeNeed], long: bool, where: str) -> GivenUpCalls | None:
        if self._mistake:
            error = SchedulerError(f"no nodes are to be had from the scheduler: {self._mistake}")
            self._mistake = ""
            self._supply.begin_anew()
            return GivenUpCalls(needs, error)
        impossible = [need for need in needs if self._can_never(need)]
        if impossible:
            what = "no node has what it asks for, or is there for so long as it may take (walltime=)"
            return GivenUpCalls(impossible, ResourceError(f"{what}; ask for less"))
        supply = self._supply
        expected = any(block.state in ("asked", "waiting", "starting") for block in supply.blocks)
        if expected or not self._words or (supply.ever and supply.failures < len(AGAIN)):
            return None
        kind: type[CallyardError] = NodeFailure if supply.ever else SchedulerError
        why = kind(f"{self._jobs.describe()}: none came{where}; {'; '.join(self._words)}")
        self._words.clear()
        supply.begin_anew()
        return GivenUpCalls(needs, why)

    def _can_never(self, need: NodeNeed) -> bool:
        """Whether it needs more nodes than there may be; or they are all there, and none could ever have held it."""
        blocks = self._supply.blocks
        if need.nodes > self._jobs.most:
            return True
        if sum(block.size for block in blocks if block.members) < self._jobs.most:
            return False
        if need.time > max(block.lifetime for block in blocks):
            return True
        return need.nodes == 1 and not any(m.is_large_enough(need) for block in blocks for m in block.members)

    # -- commands --------------------------------------------------------------------------------------

    def _begin(self, steps: Steps) -> None:
        self._clerk.run(self._carefully(steps))

    def _carefully(self, steps: Steps) -> Steps:
        """A fault in one must not end the others; who waits for an answer has been told."""
        try:
            yield from steps
        except Exception:
            _log.exception("callyard: nodes cannot be looked after")

    def _cancel(self, block: Block) -> None:
        self._clerk.do(partial(self._desk.cancel, [block.job or ""]))

    def _tell(self, news: Callable[[], object]) -> None:
        """From the clerk's thread."""
        self._news.append(news)
        if self._loop is not None:
            self._loop.wake()

    # -- the end ---------------------------------------------------------------------------------------

    def close(self, loop: EventLoop, grace: float) -> None:
        """Cancel what has not ended by itself: also what is just being submitted."""
        if self._forked:
            return
        self._closing = True
        self._desk.stop_asking()
        self._hear_news()  # first: that there are some may have been heard of before
        while self._clerk.busy:
            loop.step(None)
            self._hear_news()
        # The agents of those that are there have ended as they should, and so do their jobs.
        blocks = [block for block in self._supply.blocks if not (grace >= 1 and block.state == "there")]
        jobs = [block.job for block in blocks if block.job is not None]
        if jobs:
            self._desk.cancel(jobs)
        for log in self._logs.values():
            _remove_if_empty(log)

    def after_fork(self) -> None:
        self._forked = True


def _is_doubtful(block: Block) -> bool:
    """Whether the scheduler knows more of it than its agents have told."""
    return block.state != "there" or block.until is None or not block.members


def _how(status: Status) -> str:
    said = f"ended with exit code {status.exit_code}" if status.exit_code else status.sentence
    return f"{said} on {status.node}" if status.node else said


def _remove_if_empty(path: str) -> None:
    with contextlib.suppress(OSError):
        if os.path.getsize(path) == 0:
            os.unlink(path)


def _tail(path: str) -> str:
    try:
        with open(path, "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - _TAIL))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        return ""
    return "; ".join(line.strip() for line in lines if line.strip())[-_TAIL // 2 :]
