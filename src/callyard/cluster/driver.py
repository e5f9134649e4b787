"""The nodes of an executor, from the driver's side: the fleet's decisions carried out through agents.

    any thread                      the I/O thread of the crew
    ------------------------------- ----------------------------------------------------------------
    start(call) -> inbox            inbox --> fleet (decides) --> outpost of each agent --> channel
                                    channel --> outpost --> fleet; then the futures end

All but the inbox belongs to the I/O thread, so there is no lock; what is submitted while it is busy goes out together.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, cast

from ..errors import NodeFailure, WorkerLost
from ..futures import ends_futures
from ..pool.call import Call, refuse
from ..pool.runner import ThreadedRunner
from ..pool.worker_events import finish
from ..serialize.shared_memory import SegmentPool
from ..transport.event_loop import EventLoop
from .agent_connection import CallEnd
from .agents import Agents
from .launch import Launch
from .node import NodeState, SendToNode, StartOnNodes
from .node_placement import NodePlacement

_log = logging.getLogger("callyard")
_HOPE = 60.0  # s that calls wait for a node that could hold them
_GRACE = 5.0  # s that agents have to end by themselves


class ClusterDriver(ThreadedRunner):
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
        super().__init__()
        self._segments = segments
        self._fleet = NodePlacement(max_workers)
        self._stations = Agents(launch, self._fleet, max_workers, max_tasks, initializer)
        self._expecting = expecting  # whether calls may still come after closing
        self._inbox: deque[Any] = deque()
        self._asleep = False
        self._ends: deque[CallEnd] = deque()
        self._hopeless_since: float | None = None
        self._killed_at: float | None = None
        self._prepared = False  # a call is going to come
        self._closing = False
        self._over = False  # the I/O thread takes no more calls
        self._register()

    # -- from any thread -------------------------------------------------------------------------------

    def start(self, call: Call) -> None:
        """Run the call when there is room for it."""
        self._tell(call)

    def look_again(self) -> None:
        """Something was cancelled, or ended elsewhere: perhaps the crew can end."""
        if self._io.started:
            self._tell(_nothing)

    def cancel_waiting(self, all_of_them: bool) -> None:
        """Cancel the calls that have not been sent to a node."""
        for event in [*tuple(self._inbox), *self._fleet.line_up()]:
            if type(event) is Call:
                event.future.cancel()
        if self._io.started:
            self._tell(self._drop_waiting)  # one may have been on its way from the one to the other

    def prepare(self) -> None:
        """A call is going to come, so that there must be somebody to wait for it."""
        self._tell(self._prepare)

    def close(self) -> None:
        self._closing = True
        self._io.wake()

    def kill(self, signum: int) -> None:
        """End the workers by a signal, and the crew. What runs fails; what waits must be cancelled before."""
        self._closing = True
        if self._io.started:
            self._tell(partial(self._kill, signum))

    def _tell(self, event: Any) -> None:
        """Raises RuntimeError where no thread is to be had for it."""
        if not self._io.started:
            self._io.start_with(self._run, partial(EventLoop, _nothing))
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
                if self._inbox or self._fleet.undecided:
                    loop.step(0.0)  # however much is submitted, the agents are heard
                    continue
                self._asleep = True  # first: who leaves something in the inbox from now on wakes this thread
                if self._is_over():
                    break
                if not self._inbox:
                    loop.step(self._patience(time.monotonic()))
                self._asleep = False
        except BaseException as error:  # no descriptors left, a callback that exits, or a fault of ours
            self._give_up(error)
        finally:
            self._over = True
            refuse(self._inbox)
            self._stations.close(loop, _GRACE if self._killed_at is None else 1.0)
            loop.close()
            self._segments.close()

    def _take_in(self) -> None:
        inbox, add = self._inbox, self._fleet.add
        while inbox:
            event = inbox.popleft()
            if type(event) is Call:
                add(event)
            else:
                event()

    def _act(self, loop: EventLoop) -> None:
        """Do what the fleet decides."""
        if self._killed_at is None:
            sends: dict[NodeState, list[Call]] = {}  # what goes to one node is one message
            for instruction in self._fleet.decide(time.monotonic()):
                if type(instruction) is SendToNode:
                    sends.setdefault(instruction.member, []).extend(cast("list[Call]", instruction.calls))
                else:
                    self._stations.spread(loop, cast(StartOnNodes, instruction))
            for member, calls in sends.items():
                self._stations.send(member, calls)
        self._stations.flush()

    def _drop_waiting(self) -> None:
        for call in cast("list[Call]", self._fleet.drain()):
            call.future.cancel()

    def _prepare(self) -> None:
        self._prepared = True

    def _kill(self, signum: int) -> None:
        self._killed_at = time.monotonic()
        self._drop_waiting()
        self._stations.signal(signum)

    def _end_calls(self) -> None:
        """End the futures. Callbacks run, which may do anything; that is why this comes last."""
        ends = self._stations.ends
        while ends:
            call, how, what = ends.popleft()
            if how == "lost":
                call.future.fail_with(what) if isinstance(what, BaseException) else call.future.fail(what)
            else:
                finish(call, what, how == "error")

    # -- what is not as it should be -------------------------------------------------------------------

    def _look_after(self, loop: EventLoop, now: float) -> None:
        if self._killed_at is None:
            self._stations.look_after(loop, now, self._prepared or self._fleet.waiting or self._expecting())
            self._prepared = False
        self._stations.take_back_stalled(now)
        self._take_back()
        self._look_for_hope(now)
        if self._killed_at is not None and now > self._killed_at + _GRACE:
            self._stations.abandon()

    def _patience(self, now: float) -> float | None:
        """How long nothing need be done."""
        if self._killed_at is not None:  # nobody is looked after any more
            return max(0.0, self._killed_at + _GRACE - now)
        times = [self._stations.next_look()]
        if self._hopeless_since is not None:
            times.append(self._hopeless_since + _HOPE)
        known = [when for when in times if when is not None]
        return max(0.0, min(known) - now) if known else None

    def _take_back(self) -> None:
        """Calls that are not on their node any more, and have not begun there or may be run again."""
        for lost in self._stations.lost:
            self._lost(*lost)
        self._stations.lost.clear()
        back, self._stations.back = self._stations.back, []
        for call in back:
            call.future.again()
            if self._killed_at is not None:
                call.future.cancel()
        if self._killed_at is None:
            self._fleet.put_back(reversed(back))

    def _lost(self, call: Call, words: str) -> None:
        """Its node is gone."""
        if call.restarted < call.plan.restarts and self._killed_at is None:
            call.restarted += 1
            self._stations.back.append(call)
            return
        runs = f" (run {call.restarted + 1} of {call.plan.restarts + 1})" if call.plan.restarts else ""
        advice = "" if call.plan.restarts else "; restart_limit=1 would run such a call again"
        error = NodeFailure(f"{call.future.name!r} lost its node{runs}: {words}{advice}")
        self._stations.ends.append(CallEnd(call, "lost", error))

    def _look_for_hope(self, now: float) -> None:
        """Calls that no node can hold wait for one that is to come, but not for ever."""
        hopeless = self._fleet.hopeless()
        if not hopeless:
            self._hopeless_since = None
            return
        if self._hopeless_since is None:
            self._hopeless_since = now
        long = now > self._hopeless_since + _HOPE
        given_up = self._stations.why_hopeless(hopeless, long)
        if long or given_up is not None:
            self._hopeless_since = None
        if given_up is not None:
            why = given_up.why
            for call in cast("list[Call]", [call for need in given_up.needs for call in self._fleet.drop(need)]):
                self._stations.ends.append(CallEnd(call, "lost", type(why)(f"{call.future.name!r} was not run: {why}")))

    def _give_up(self, error: BaseException) -> None:
        """This crew can do no more. Nobody shall wait for it for ever."""
        _log.exception("this executor cannot go on")
        self._over = True
        self._take_in()
        calls = [*self._fleet.drain(), *(call for m in self._fleet.members.values() for call in m.flight)]
        for call in cast("list[Call]", calls):
            name = call.future.name
            broken = WorkerLost(f"{name!r} has no result, because its executor cannot go on: {error}; make a new one")
            broken.__cause__ = error
            call.future.fail_with(broken)

    # -- the end ---------------------------------------------------------------------------------------

    def _is_over(self) -> bool:
        if not self._closing or self._inbox or self._stations.ends:
            return False
        # In this order: what is expected no longer has been put into the inbox before.
        self._over = not (self._expecting() or self._inbox or self._fleet.waiting or self._fleet.busy)
        return self._over

    def after_fork(self) -> None:
        super().after_fork()
        self._stations.after_fork()


def _nothing() -> None:
    """An event that only makes the thread look around."""
