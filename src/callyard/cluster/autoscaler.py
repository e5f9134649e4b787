r"""The autoscaler: how many nodes to ask a scheduler for, and which to give back. Decisions only, without I/O.

Nodes come in *blocks*, the nodes of one job. A block has one node, because many small jobs begin sooner than a large
one; or as many as a waiting call needs together. Its states:

    asked --> waiting --> starting --> there <-> lost --> leaving --> (forgotten)
                                         \-> aging: its time is nearly over, and another one is asked for in its place
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
_LONG = 1.0  # s; calls that take less do not each need a place of their own
_WORTH = 10.0  # s of work for each place, for which it is worth to ask for a node
_AGING = 0.25  # the last part of a block's time, in which it is replaced
_LAST = 0.1  # the last part, in which no call is started there any more
_EARLY, _LATE = 600.0, 60.0  # s that these take at most
_BACK = 5.0  # s in which an agent that was lost may come back, before another node is asked for
AGAIN = (1.0, 5.0, 15.0, 60.0)  # s after which is asked again, when a job has ended before its nodes were there


@dataclass(eq=False)
class Block:
    """One job, or one element of a job array."""

    number: int
    size: int  # how many nodes
    state: str = "asked"
    since: float = 0.0  # when it came into that state
    job: str | None = None  # its name for the scheduler
    until: float | None = None  # when its time is over; None: not known yet
    lifetime: float = inf  # s from when that was first known to the end
    connected: list[NodeState] = field(default_factory=list)  # nodes whose agents are connected
    seen_on: set[str] = field(default_factory=set)  # names of nodes on which it has had agents
    name: str = ""  # its name for its agents
    step_job: str = ""  # its name for commands inside it
    idle: float | None = None  # since when no call runs there
    aging: bool = False
    missed: int = 0  # how often in a row the scheduler did not know its job
    reason: str = ""  # why its job waited, in the scheduler's words, when it was last asked

    def goes(self, state: str, now: float) -> None:
        self.state, self.since = state, now

    @property
    def present(self) -> bool:
        """True if it counts among the nodes that are wanted."""
        return self.state != "leaving" and not self.aging


class Demand(NamedTuple):
    """The nodes that are of use to the calls that wait and run."""

    nodes: int
    together: int = 1  # how many of them a call needs in one block


class ScalingSteps(NamedTuple):
    """The blocks to ask for now, and those to give back."""

    ask: Sequence[Block]
    give_back: Sequence[Block]


def demand(
    backlog: Iterable[tuple[NodeNeed, int, float]], busy: int, typical: NodeCapacity | None, room: int | None = None
) -> Demand:
    """Return how many nodes are of use.

    Args:
        backlog: needs of waiting calls, how many wait, and how long each runs (s).
        busy: nodes that run something.
        typical: what most nodes have; None if that is not known, so that each call may need a node of its own.
        room: how many more calls may run at once; None for any number.
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
    """Return how many such calls a node can have at once."""
    if typical is None or need.exclusive:
        return 1
    shape = need.shape
    pairs = ((typical.cores, shape.cores), (len(typical.gpus), shape.gpus), (typical.memory, shape.memory))
    return max(1, min(there // asked for there, asked in pairs if asked))


class Autoscaler:
    """The blocks of one executor, and the rules by which they come and go."""

    def __init__(self, least: int, most: int) -> None:
        self.least, self.most = least, most
        self.blocks: list[Block] = []
        self.ever = False  # a node has been there since calls were last told of a failure
        self.failures = 0  # in a row: jobs that ended before their nodes were there
        self.not_before = 0.0  # when nodes may be asked for again, after failures
        self._few: int | None = None  # the most jobs to ask for next, after the scheduler has named a limit
        self._used = -inf  # when there was last something to do
        self._now = -inf  # of the last decision
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
        """Note that an agent of the block cannot be reached; it may come back."""
        if node in block.connected:
            block.connected.remove(node)
        if not block.connected and block.state == "there":
            block.goes("lost", now)

    def ends_at(self, block: Block, until: float, now: float) -> None:
        """Note when the time of the block is over."""
        if block.until is None:
            block.lifetime = until - now
        block.until = until

    def ended(self, block: Block, now: float) -> None:
        """Forget a block whose job is over."""
        if block not in self.blocks:
            return
        self.blocks.remove(block)
        if block.state in ("asked", "waiting", "starting"):
            self.failures += 1
            self.not_before = now + AGAIN[min(self.failures, len(AGAIN)) - 1]

    def refused(self, blocks: Iterable[Block], not_before: float, few: int | None = None) -> None:
        """Forget blocks whose jobs the scheduler has not taken. `few`: how many it may take at once."""
        self.blocks = [block for block in self.blocks if block not in blocks]
        self.not_before, self._few = not_before, few

    def begin_anew(self) -> None:
        """Forget the failures, because the calls that waited were told of them; those to come may have more luck."""
        self.failures, self.not_before, self.ever = 0, 0.0, any(block.connected for block in self.blocks)

    # -- decisions -------------------------------------------------------------------------------------

    def decide(self, wanted: Demand, slowest: float, now: float, longest: float = 0.0) -> ScalingSteps:
        """Return what to ask for and what to give back.

        `slowest`: how long calls without a time of their own have lately taken (s); `longest`: the time of a call for
        which no node is there for long enough (s).
        """
        self._now = now
        for block in self.blocks:
            self._look_at_time(block, slowest, now, longest)
            self._look_at_use(block, now)
        if wanted.nodes:
            self._used = now
        least = self.least if wanted.nodes or now - self._used < IDLE else 0
        target = min(self.most, max(wanted.nodes, least))
        back = [*self._done_with(now), *self._idle(max(target, self.least), now)]
        if target:
            back += self._make_room(wanted, back)
        for block in back:
            block.goes("leaving", now)
        return ScalingSteps(self._ask(target, wanted, now), back)

    def next_look(self, slowest: float) -> float | None:
        """Return when there is something to decide although nothing happens; None where that is never."""
        times = [block.idle + IDLE for block in self.blocks if block.idle is not None and block.state == "there"]
        if self.not_before:
            times.append(self.not_before)
        times += [block.since + _BACK for block in self.blocks if block.state == "lost"]
        for block in self.blocks:
            if block.until is not None and block.state == "there":
                before_end = self._last if block.aging else self._lead
                times.append(block.until - before_end(block, slowest))  # the replacement first, then the last use
        return min((when for when in times if when > self._now), default=None)  # what was due then has been decided

    def _look_at_time(self, block: Block, slowest: float, now: float, longest: float) -> None:
        """Replace a block some time before its end, and start no call there shortly before it."""
        if block.state == "lost" and now - block.since >= _BACK:
            block.aging = True  # it is replaced; should it come back, it is used until it is idle
        if any(node.leaving for node in block.connected):
            block.aging = True  # the scheduler ends it, or it is at its end
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
        """Return the blocks that have been replaced and are not used any more."""
        return [
            block
            for block in self.blocks
            if block.state == "there" and block.aging and block.idle is not None
            if now - block.idle >= IDLE or all(node.leaving for node in block.connected)
        ]

    def _idle(self, kept: int, now: float) -> list[Block]:
        """Return blocks that were not used for a while, as long as enough stay: first those that have not come yet."""
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
        asked = [Block(next(self._numbers), size, since=now) for size in sizes]
        self.blocks += asked
        return asked
