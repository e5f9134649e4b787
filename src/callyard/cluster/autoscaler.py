r"""The autoscaler: decisions on the number of nodes to ask a scheduler for, and the nodes to give back, without I/O.

Nodes come in *blocks*, the nodes of one job. A block has one node, because many small jobs begin sooner than a large
one; or as many nodes as a waiting call needs together. The states of a block:

    asked --> waiting --> starting --> there <-> lost --> leaving --> (forgotten)
                                         \-> aging: its time is nearly over, and another block is asked for instead
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import count
from math import ceil, inf
from typing import NamedTuple

from ..pool.call_shape import NodeCapacity, NodeNeed
from .placement_state import NodeState

IDLE = 30.0  # s without a call after which a node is given back
_LONG = 1.0  # s; shorter calls need no place of their own
_WORTH = 10.0  # s of work for each place that make another node worth asking for
_AGING = 0.25  # the last part of a block's time, for its replacement
_LAST = 0.1  # the last part of a block's time, without new calls
_EARLY, _LATE = 600.0, 60.0  # s, at most, of the two parts
_BACK = 5.0  # s for a lost agent to come back, before another node is asked for
AGAIN = (1.0, 5.0, 15.0, 60.0)  # s to wait after jobs that ended before their nodes were there: after one, two, ...


@dataclass(eq=False)
class Block:
    """One job, or one element of a job array."""

    number: int
    size: int  # number of nodes
    state: str = "asked"
    since: float = 0.0  # the time of the change to this state
    job: str | None = None  # the scheduler's name of the job
    until: float | None = None  # the end of its time; None: not known yet
    lifetime: float = inf  # s from the first knowledge of `until` to that time
    connected: list[NodeState] = field(default_factory=list)  # nodes with connected agents
    seen_on: set[str] = field(default_factory=set)  # names of nodes that have had an agent of the block
    name: str = ""  # the agents' name of the block
    step_job: str = ""  # the job's name for commands inside the job
    idle: float | None = None  # the time of the last call's end there; None while calls run
    aging: bool = False
    missed: int = 0  # questions in a row that the scheduler answered without the job
    kind: int = 0  # the number of the kind of its nodes
    reason: str = ""  # the scheduler's reason for the wait, at the last question
    begins: float | None = None  # the time of the start that the scheduler expected then (s since 1970)

    def goes(self, state: str, now: float) -> None:
        self.state, self.since = state, now

    @property
    def present(self) -> bool:
        """True if the block counts among the wanted nodes."""
        return self.state != "leaving" and not self.aging


class Demand(NamedTuple):
    """The number of nodes that are of use to the waiting and running calls."""

    nodes: int
    together: int = 1  # the most nodes that one call needs in one block


class ScalingSteps(NamedTuple):
    """The blocks to ask for now, and those to give back."""

    ask: Sequence[Block]
    give_back: Sequence[Block]


def demand(
    backlog: Iterable[tuple[NodeNeed, int, float]], busy: int, typical: NodeCapacity | None, room: int | None = None
) -> Demand:
    """Return the number of useful nodes.

    Args:
        backlog: needs of waiting calls, the number of calls of each, and their duration (s).
        busy: nodes with running calls.
        typical: the resources of most nodes; None if unknown: then each call may need a node of its own.
        room: the number of further calls allowed to run at once; None for any number.
    """
    nodes, together = busy, 1
    for need, waiting, seconds in backlog:
        calls = waiting if room is None else min(waiting, room)
        room = None if room is None else room - calls
        if not calls:
            continue
        if need.nodes > 1:
            nodes, together = nodes + need.nodes, max(together, need.nodes)
        else:
            places = _places(need, typical)
            useful = calls / places if seconds >= _LONG else min(calls / places, calls * seconds / (places * _WORTH))
            nodes += ceil(useful)
    return Demand(nodes, together)


def _places(need: NodeNeed, typical: NodeCapacity | None) -> int:
    """Return the number of such calls that fit on a node at once."""
    if typical is None or need.exclusive:
        return 1
    shape = need.shape
    pairs = ((typical.cores, shape.cores), (len(typical.gpus), shape.gpus), (typical.memory, shape.memory))
    return max(1, min(there // asked for there, asked in pairs if asked))


class Autoscaler:
    """The blocks of one kind of nodes, and the rules of their coming and going."""

    def __init__(self, least: int, most: int, kind: int = 0) -> None:
        self.least, self.most, self.kind = least, most, kind
        self.blocks: list[Block] = []
        self.ever = False  # a node has been there since calls last failed for lack of one
        self.failures = 0  # in a row: jobs that ended before their nodes were there
        self.not_before = 0.0  # the earliest time to ask for nodes again, after failures
        self._few: int | None = None  # the most jobs to ask for next, after the scheduler has named a limit
        self._used = -inf  # the last time with calls
        self._now = -inf  # the time of the last decision
        self._numbers = count(1)

    # -- events ----------------------------------------------------------------------------------------

    def joined(self, block: Block, node: NodeState, now: float) -> None:
        """Note that an agent of the block has connected."""
        block.connected.append(node)
        block.seen_on.add(node.name)
        block.idle = now
        block.goes("there", now)
        self.ever, self.failures = True, 0

    def lost(self, block: Block, node: NodeState, now: float) -> None:
        """Note that an agent of the block is out of reach; the agent may come back."""
        if node in block.connected:
            block.connected.remove(node)
        if not block.connected and block.state == "there":
            block.goes("lost", now)

    def ends_at(self, block: Block, until: float, now: float) -> None:
        """Note the end of the block's time."""
        if block.until is None:
            block.lifetime = until - now
        block.until = until

    def ended(self, block: Block, now: float) -> None:
        """Forget a block whose job is over."""
        if block not in self.blocks:
            return
        self.blocks.remove(block)
        # The job has ended without a node: wait longer before each further attempt.
        if block.state in ("asked", "waiting", "starting"):
            self.failures += 1
            self.not_before = now + AGAIN[min(self.failures, len(AGAIN)) - 1]

    def refused(self, blocks: Iterable[Block], not_before: float, few: int | None = None) -> None:
        """Forget blocks with jobs that the scheduler has refused; `few` is the number to ask for next."""
        self.blocks = [block for block in self.blocks if block not in blocks]
        self.not_before, self._few = not_before, few

    def begin_anew(self) -> None:
        """Forget the failures, after the waiting calls were told of them; later calls may have more luck."""
        self.failures, self.not_before, self.ever = 0, 0.0, any(block.connected for block in self.blocks)

    # -- decisions -------------------------------------------------------------------------------------

    def decide(self, wanted: Demand, slowest: float, now: float, longest: float = 0.0) -> ScalingSteps:
        """Return the blocks to ask for, and those to give back.

        Args:
            wanted: the nodes of use.
            slowest: the recent duration of calls without a `run_time` (s).
            now: the present time (s).
            longest: the `run_time` of a call for which no present node lasts long enough (s).
        """
        self._now = now
        for block in self.blocks:
            self._look_at_time(block, slowest, now, longest)
            self._look_at_use(block, now)
        if wanted.nodes:
            self._used = now
        least = self.least if wanted.nodes or now - self._used < IDLE else 0
        target = min(self.most, max(wanted.nodes, least))
        # In this order: replaced blocks go first, then idle ones, and only then the room for a larger block is counted.
        back = [*self._done_with(now), *self._idle(max(target, self.least), now)]
        if target:
            back += self._make_room(wanted, back)
        for block in back:
            block.goes("leaving", now)
        return ScalingSteps(self._ask(target, wanted, now), back)

    def next_look(self, slowest: float) -> float | None:
        """Return the time of the next decision that no event brings about; None if there is none."""
        times = [block.idle + IDLE for block in self.blocks if block.idle is not None and block.state == "there"]
        if self.not_before:
            times.append(self.not_before)
        times += [block.since + _BACK for block in self.blocks if block.state == "lost"]
        for block in self.blocks:
            if block.until is not None and block.state == "there":
                before_end = self._last if block.aging else self._lead
                # The time of replacement first, then that of the last call.
                times.append(block.until - before_end(block, slowest))
        return min((when for when in times if when > self._now), default=None)  # times up to now have been decided on

    def _look_at_time(self, block: Block, slowest: float, now: float, longest: float) -> None:
        """Replace a block some time before its end, and start no call there shortly before the end."""
        if block.state == "lost" and now - block.since >= _BACK:
            block.aging = True  # replaced; a block that comes back is used until idle
        if any(node.leaving for node in block.connected):
            block.aging = True  # ended by the scheduler, or at its end
        if block.until is None or block.state != "there":
            return
        left = block.until - now
        block.aging = block.aging or left < self._lead(block, slowest) or left < longest <= block.lifetime
        if left < self._last(block, slowest):
            for node in block.connected:
                node.leaving = True

    def _last(self, block: Block, slowest: float) -> float:
        return min(block.lifetime / 2, max(slowest, min(block.lifetime * _LAST, _LATE)))

    def _lead(self, block: Block, slowest: float) -> float:
        last = self._last(block, slowest)
        return last + min(block.lifetime * _AGING, _EARLY, block.lifetime - last)

    def _look_at_use(self, block: Block, now: float) -> None:
        if any(node.in_flight for node in block.connected):
            block.idle = None
        elif block.connected and block.idle is None:
            block.idle = now

    def _done_with(self, now: float) -> list[Block]:
        """Return the blocks that have been replaced and are no longer used."""
        return [
            block
            for block in self.blocks
            if block.state == "there" and block.aging and block.idle is not None
            if now - block.idle >= IDLE or all(node.leaving for node in block.connected)
        ]

    def _idle(self, kept: int, now: float) -> list[Block]:
        """Return long unused blocks, as long as enough stay: those that have not come yet go first."""
        back = []
        present = self._present()
        for block in sorted(self.blocks, key=lambda block: (block.state == "there", -block.number)):
            since = block.idle if block.state == "there" else block.since
            if not block.present or since is None or now - since < IDLE or block.state == "asked":
                continue
            if present - block.size >= kept:
                present -= block.size
                back.append(block)
        return back

    def _make_room(self, wanted: Demand, back: Sequence[Block]) -> list[Block]:
        """Return idle blocks to give back, so that a call on several nodes can have a block within the limit."""
        if wanted.together > self.most or self._has(wanted.together):
            return []
        room = self.most - self._present() + sum(block.size for block in back)
        found: list[Block] = []
        for block in self.blocks:
            if room >= wanted.together:
                break
            unused = block.idle is not None or not block.connected
            if block.present and block not in back and block.state != "asked" and unused:
                room += block.size
                found.append(block)
        return found if room >= wanted.together else []

    def _has(self, together: int) -> bool:
        return together == 1 or any(block.present and block.size >= together for block in self.blocks)

    def _present(self) -> int:
        return sum(block.size for block in self.blocks if block.present)

    def _ask(self, target: int, wanted: Demand, now: float) -> list[Block]:
        if now < self.not_before:
            return []
        sizes = []
        missing = target - self._present()
        if not self._has(wanted.together) and self.most - self._present() >= wanted.together:
            sizes.append(wanted.together)
            missing -= wanted.together
        sizes += [1] * missing
        self.not_before, few, self._few = 0.0, self._few, None
        sizes = sizes[:few]
        asked = [Block(next(self._numbers), size, since=now, kind=self.kind) for size in sizes]
        self.blocks += asked
        return asked
