"""The nodes of an executor, from the driver's side: the placement's decisions carried out through agents.

    any thread                      the I/O thread of the crew
    ------------------------------- ----------------------------------------------------------------
    start(call) -> inbox            inbox --> placement (decides) --> outpost of each agent --> channel
                                    channel --> outpost --> placement; then the futures end

All but the inbox belongs to the I/O thread, so there is no lock; what is submitted while it is busy goes out together.
"""

from __future__ import annotations

import logging
import os
import time
import weakref
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, cast

from ..errors import NodeFailure, WorkerLost
from ..futures import ends_futures
from ..pool.call import Call, refuse
from ..pool.worker_events import finish
from ..serialize.shared_memory import SegmentPool
from ..transport.event_loop import EventLoop, IoThread
from ..utils import interpreter_exit
from .agent_connection import CallEnd
from .agents import Agents
from .launch import Launch
from .node import NodeState, SendToNode, StartOnNodes
from .node_placement import NodePlacement

_log = logging.getLogger("callyard")
_WAIT_FOR_NODE = 60.0  # s that calls wait for a node that could hold them
_GRACE = 5.0  # s that agents have to end by themselves

_drivers: weakref.WeakSet[ClusterDriver] = weakref.WeakSet()


class ClusterDriver:
    """Runs calls on the nodes of a launch. Made idle: the first call starts thread and agents."""

    def __init__(
        self,
        launch: Launch,
        segments: SegmentPool,
        max_workers: int | None = None,
        max_tasks: int | None = None,
        initializer: bytes | None = None,
        expecting: Callable[[], bool] = lambda: False,
    ) -> None:
        self._segments = segments
        self._placement = NodePlacement(max_workers)
        self._agents = Agents(launch, self._placement, max_workers, max_tasks, initializer)
        self._expecting = expecting  # whether calls may still come after closing
        self._inbox: deque[Any] = deque()
        self._io = IoThread()
        self._asleep = False
        self._ends: deque[CallEnd] = deque()
        self._unplaceable_since: float | None = None
        self._killed_at: float | None = None
        self._prepared = False  # a call is going to come
        self._closing = False
        self._over = False  # the I/O thread takes no more calls
        self.forked = False  # this is a copy in a forked process
        _drivers.add(self)
        interpreter_exit.register(self)

    # -- from any thread -------------------------------------------------------------------------------

    def start(self, call: Call) -> None:
        """Run the call when there is room for it."""
        self._tell(call)

    def look_again(self) -> None:
        """Something was cancelled, or ended elsewhere: perhaps the crew can end."""
        if self._io.started:
            self._tell(_look_around)

    def cancel_waiting(self, all_of_them: bool) -> None:
        """Cancel the calls that have not been sent to a node."""
        for event in [*tuple(self._inbox), *self._placement.waiting_calls()]:
            if type(event) is Call:
                event.future.cancel()
        if self._io.started:
            self._tell(self._drop_waiting)  # one may have been on its way from the one to the other

    def prepare(self) -> None:
        """A call is going to come, so that there must be somebody to wait for it."""
        self._tell(self._prepare)

    def close(self) -> None:
        """Take the calls that are there to their ends, and those that are expected; then end."""
        self._closing = True
        self._io.wake()

    def kill(self, signum: int) -> None:
        """End the workers by a signal, and the crew. What runs fails; what waits must be cancelled before."""
        self._closing = True
        if self._io.started:
            self._tell(partial(self._kill, signum))

    def begin_end(self) -> None:
        """At the interpreter's end: live calls are waited for."""
        if not self.forked:
            self.close()

    def wait_for_end(self) -> None:
        if not self.forked:
            self.join()

    def join(self) -> None:
        """Wait until everything has ended: agents, thread, sockets."""
        self._io.join()

    def _tell(self, event: Any) -> None:
        """Raises RuntimeError where no thread is to be had for it."""
        if not self._io.started:
            self._io.start_with(self._run, partial(EventLoop, _look_around))
        try:
            self._inbox.append(event)
            if self._over:
                refuse(self._inbox)
            elif self._asleep:
                self._io.wake()
        except BaseException:  # Ctrl-C, before the thread was woken for what is in the inbox now
            self._io.wake()
            raise

    # -- the I/O thread --------------------------------------------------------------------------------

    def _run(self, loop: EventLoop) -> None:
        ends_futures(self.look_again)
        try:
            while True:
                self._take_in()
                self._look_after(loop, time.monotonic())
                self._act(loop)
                self._end_calls()
                if self._inbox or self._placement.undecided:
                    loop.step(0.0)  # however much is submitted, the agents are heard
                    continue
                self._asleep = True  # first: who leaves something in the inbox from now on wakes this thread
                if self._is_over():
                    break
                if not self._inbox:
                    loop.step(self._time_to_wait(time.monotonic()))
                self._asleep = False
        except BaseException as error:  # no descriptors left, a callback that exits, or a fault of ours
            self._fail_all(error)
        finally:
            self._over = True
            refuse(self._inbox)
            self._agents.close(loop, _GRACE if self._killed_at is None else 1.0)
            loop.close()
            self._segments.close()

    def _take_in(self) -> None:
        inbox, add = self._inbox, self._placement.add
        while inbox:
            event = inbox.popleft()
            if type(event) is Call:
                add(event)
            else:
                event()

    def _act(self, loop: EventLoop) -> None:
        """Do what the placement decides."""
        if self._killed_at is None:
            sends: dict[NodeState, list[Call]] = {}  # what goes to one node is one message
            for instruction in self._placement.decide(time.monotonic()):
                if type(instruction) is SendToNode:
                    sends.setdefault(instruction.node, []).extend(cast("list[Call]", instruction.calls))
                else:
                    self._agents.start_on_nodes(loop, cast(StartOnNodes, instruction))
            for node, calls in sends.items():
                self._agents.send(node, calls)
        self._agents.flush()

    def _drop_waiting(self) -> None:
        for call in cast("list[Call]", self._placement.drain()):
            call.future.cancel()

    def _prepare(self) -> None:
        self._prepared = True

    def _kill(self, signum: int) -> None:
        self._killed_at = time.monotonic()
        self._drop_waiting()
        self._agents.signal(signum)

    def _end_calls(self) -> None:
        """End the futures. Callbacks run, which may do anything; that is why this comes last."""
        ends = self._agents.ends
        while ends:
            call, how, what = ends.popleft()
            if how == "lost":
                call.future.fail_with(what) if isinstance(what, BaseException) else call.future.fail(what)
            else:
                finish(call, what, how == "error")

    # -- what is not as it should be -------------------------------------------------------------------

    def _look_after(self, loop: EventLoop, now: float) -> None:
        if self._killed_at is None:
            self._agents.look_after(loop, now, self._prepared or self._placement.waiting or self._expecting())
            self._prepared = False
        self._agents.take_back_stalled(now)
        self._take_back()
        self._give_up_unplaceable(now)
        if self._killed_at is not None and now > self._killed_at + _GRACE:
            self._agents.abandon()

    def _time_to_wait(self, now: float) -> float | None:
        """How long nothing need be done."""
        if self._killed_at is not None:  # nobody is looked after any more
            return max(0.0, self._killed_at + _GRACE - now)
        times = [self._agents.next_look()]
        if self._unplaceable_since is not None:
            times.append(self._unplaceable_since + _WAIT_FOR_NODE)
        known = [when for when in times if when is not None]
        return max(0.0, min(known) - now) if known else None

    def _take_back(self) -> None:
        """Calls that are not on their node any more, and have not begun there or may be run again."""
        for lost in self._agents.lost:
            self._lost(*lost)
        self._agents.lost.clear()
        back, self._agents.returned = self._agents.returned, []
        for call in back:
            call.future.again()
            if self._killed_at is not None:
                call.future.cancel()
        if self._killed_at is None:
            self._placement.put_back(reversed(back))

    def _lost(self, call: Call, words: str) -> None:
        """Its node is gone."""
        if call.restarted < call.plan.restarts and self._killed_at is None:
            call.restarted += 1
            self._agents.returned.append(call)
            return
        runs = f" (run {call.restarted + 1} of {call.plan.restarts + 1})" if call.plan.restarts else ""
        advice = "" if call.plan.restarts else "; restart_limit=1 would run such a call again"
        error = NodeFailure(f"{call.future.name!r} lost its node{runs}: {words}{advice}")
        self._agents.ends.append(CallEnd(call, "lost", error))

    def _give_up_unplaceable(self, now: float) -> None:
        """Calls that no node can hold wait for one that is to come, but not for ever."""
        unplaceable = self._placement.unplaceable()
        if not unplaceable:
            self._unplaceable_since = None
            return
        if self._unplaceable_since is None:
            self._unplaceable_since = now
        long = now > self._unplaceable_since + _WAIT_FOR_NODE
        given_up = self._agents.give_up(unplaceable, long)
        if long or given_up is not None:
            self._unplaceable_since = None
        if given_up is not None:
            why = given_up.why
            for call in cast("list[Call]", [call for need in given_up.needs for call in self._placement.drop(need)]):
                self._agents.ends.append(CallEnd(call, "lost", type(why)(f"{call.future.name!r} was not run: {why}")))

    def _fail_all(self, error: BaseException) -> None:
        """This crew can do no more. Nobody shall wait for it for ever."""
        _log.exception("this executor cannot go on")
        self._over = True
        self._take_in()
        calls = [
            *self._placement.drain(),
            *(call for node in self._placement.nodes.values() for call in node.in_flight),
        ]
        for call in cast("list[Call]", calls):
            name = call.future.name
            broken = WorkerLost(f"{name!r} has no result, because its executor cannot go on: {error}; make a new one")
            broken.__cause__ = error
            call.future.fail_with(broken)

    # -- the end ---------------------------------------------------------------------------------------

    def _is_over(self) -> bool:
        if not self._closing or self._inbox or self._agents.ends:
            return False
        # In this order: what is expected no longer has been put into the inbox before.
        self._over = not (self._expecting() or self._inbox or self._placement.waiting or self._placement.busy)
        return self._over

    def after_fork(self) -> None:
        """In a forked child: this copy can do nothing, and must hold nothing of the original open."""
        self.forked = True
        self._agents.after_fork()
        if self._io.loop is not None:
            for sock in self._io.loop.sockets():
                sock.close()


def _look_around() -> None:
    """An event that only makes the thread look around."""


def _in_forked_child() -> None:
    for crew in list(_drivers):
        crew.after_fork()


os.register_at_fork(after_in_child=_in_forked_child)
