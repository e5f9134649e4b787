"""The driver of a cluster: the calls of one executor on the nodes of a launch.

    any thread                      the I/O thread of the driver
    ------------------------------- ----------------------------------------------------------------------------
    start(call) -> inbox            inbox --> NodePlacement (decides) --> Agents --> encrypted channel --> nodes
                                    nodes --> channel --> Agents --> NodePlacement; then the futures end

All but the inbox belongs to the I/O thread, so there is no lock. Calls submitted while this thread is busy are sent
together.
"""

from __future__ import annotations

import logging
import signal
import time
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from typing import Any, cast

from ..errors import NodeFailure, WorkerLost
from ..events.recorder import Recorder
from ..futures import Future, ends_futures
from ..pool.call import Call, refuse
from ..pool.threaded_runner import ThreadedRunner
from ..pool.worker_events import cancel_unwanted, finish, prepare_next_run, words_of_more
from ..serialize.shared_memory import SegmentPool
from ..status.call_status import CallStatus
from ..status.executor_status import ExecutorStatus
from ..transport.event_loop import EventLoop
from . import cluster_status
from .agent_connection import CallEnd
from .base import Launch
from .connected_agents import Agents
from .node_placement import NodePlacement
from .placement_state import NodeState, SendToNode, StartOnNodes

_log = logging.getLogger("callyard")
_WAIT_FOR_NODE = 60.0  # s for calls to wait for a suitable node
_GRACE = 5.0  # s for agents to end by themselves


class ClusterDriver(ThreadedRunner):
    """The runner of calls on the nodes of a launch. It is made idle: the first call starts thread and agents."""

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
        self._placement = NodePlacement(max_workers)
        self._agents = Agents(launch, self._placement, max_workers, max_tasks, initializer, segments.reserve)
        self._expecting = expecting  # returns True if calls may still come after `close`
        # Appended by any thread and emptied by the I/O thread; both are atomic.
        self._inbox: deque[Any] = deque()
        self._asleep = False
        self._ends: deque[CallEnd] = deque()
        self._unplaceable_since: float | None = None
        self._killed_at: float | None = None
        self._prepared = False  # a call is going to come, so agents may be started
        self._closing = False
        self._over = False  # the I/O thread takes no more calls
        self._register()

    # -- from any thread -------------------------------------------------------------------------------

    def start(self, call: Call) -> None:
        """Run the call when a node has a slot for it."""
        self._tell(call)

    def look_again(self) -> None:
        """Wake the I/O thread, because a call was cancelled or has ended elsewhere: perhaps the driver can end."""
        if self._io.started:
            self._tell(_look_around)

    def cancel_waiting(self, all_of_them: bool) -> None:
        """Cancel the calls that have not been sent to a node."""
        # Copies, because the I/O thread changes both; a call that has begun meanwhile is not cancelled.
        for event in [*tuple(self._inbox), *self._placement.waiting_calls()]:
            if type(event) is Call:
                event.future.cancel()
        if self._io.started:
            self._tell(self._drop_waiting)  # a call may have been on its way from the inbox to the placement

    def can_end(self, call: Call) -> bool:
        return not call.need.by_scheduler  # the ranks of such a call are on several nodes

    def end_call(self, call: Call) -> bool:
        call.unwanted = True
        self._tell(partial(self._end_call, call))
        return not call.future.done()

    def prepare(self) -> None:
        """Start the thread and the agents now, because a call is going to come."""
        self._tell(self._prepare)

    def record_in(self, recorder: Recorder) -> None:
        super().record_in(recorder)
        self._agents.recorder = recorder

    def _wait_again(self, calls: Iterable[Call], reason: str = "") -> None:
        for call in calls:
            call.future.again()
            if self.recorder is not None:
                self.recorder.waiting(call.future, reason)

    def close(self) -> None:
        self._closing = True
        self._io.wake()

    def kill(self, signum: int) -> None:
        """End the workers by a signal, and the driver. Running calls fail; the caller cancels waiting ones before."""
        self._closing = True
        if self._io.started:
            self._tell(partial(self._kill, signum))

    def placed(self, future: Future[Any]) -> CallStatus | None:
        return cluster_status.placed(self._placement, self._inbox, self._agents.nodes_to_come, future)

    def add_status(self, status: ExecutorStatus) -> None:
        cluster_status.add_status(self._placement, self._inbox, self._agents.nodes_to_come, status)

    def placed_calls(self) -> list[Call]:
        return cluster_status.placed_calls(self._placement, self._inbox)

    def _tell(self, event: Any) -> None:
        """Hand an event to the I/O thread.

        Raises:
            RuntimeError: no thread can be started.
        """
        if not self._io.started:
            self._io.start_with(self._run, partial(EventLoop, _look_around))
        try:
            # The event first, then the flags: the I/O thread sets its flag first, and then looks at the inbox.
            self._inbox.append(event)
            if self._over:
                refuse(self._inbox)
            elif self._asleep:
                self._io.wake()
        except BaseException:  # Ctrl-C, perhaps before the thread was woken for the event in the inbox
            self._io.wake()
            raise

    # -- the I/O thread --------------------------------------------------------------------------------

    def _run(self, loop: EventLoop) -> None:
        ends_futures(self.look_again)
        try:
            while True:
                # In this order: events, then decisions on all of them, then the ends of futures.
                self._take_in()
                self._look_after(loop, time.monotonic())
                self._act(loop)
                self._end_calls()
                self._agents.forget_buffers()
                if self._inbox or self._placement.undecided:
                    loop.step(0.0)  # without waiting, but agents are read however much is submitted
                    continue
                # Before another look at the inbox: an event put there from now on wakes this thread.
                self._asleep = True
                if self._is_over():
                    break
                if not self._inbox:
                    loop.step(self._time_to_wait(time.monotonic()))
                self._asleep = False
        except BaseException as error:  # no descriptors left, a callback that exits, or a bug
            self._fail_all(error)
        finally:
            self._over = True
            # After the flag: a thread with a later call sees the flag, and refuses the call itself.
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
        """Carry out the decisions of the placement."""
        if self._killed_at is None:
            sends: dict[NodeState, list[Call]] = {}  # so that all calls for one node are one message
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

    def _end_call(self, call: Call) -> None:
        if not self._agents.end_call(call):  # it waits again, or has ended
            call.future.cancel()

    def _kill(self, signum: int) -> None:
        running = [call for node in self._placement.nodes.values() for call in cast("list[Call]", node.in_flight)]
        # Calls with a grace of their own may take so long; the agents' own end comes on top.
        grace = max((call.plan.grace or 0.0 for call in running), default=0.0)
        self._killed_at = time.monotonic() + (grace if signum == signal.SIGTERM else 0.0)
        self._drop_waiting()
        self._agents.signal(signum)

    def _end_calls(self) -> None:
        """End the futures, last in each round: their callbacks may do anything, even submit and cancel calls."""
        ends = self._agents.ends
        while ends:
            call, how, what = ends.popleft()
            if how == "lost" and hasattr(call, "unwanted"):
                cancel_unwanted(call)
            elif how == "lost":
                self._fail_or_run_with_more(call, what)
            elif call.asks_again and (
                words := prepare_next_run(call, what, how == "error", self._killed_at is not None)
            ):
                self._run_again(call, words)
            else:
                finish(call, what, how == "error")

    def _fail_or_run_with_more(self, call: Call, error: Any) -> None:
        name = type(error).__name__
        if self._killed_at is None and call.run_with_more(name):
            self._run_again(call, words_of_more(name))
        elif isinstance(error, BaseException):
            call.future.fail_with(error)
        else:
            call.future.fail(error)

    def _run_again(self, call: Call, words: str) -> None:
        """Put a call that is to run again behind all others, unless the driver is being killed."""
        self._wait_again([call], words)
        if self._killed_at is None:
            self._inbox.append(call)
        else:
            call.future.cancel()

    # -- losses and time limits ------------------------------------------------------------------------

    def _look_after(self, loop: EventLoop, now: float) -> None:
        if self._killed_at is None:
            self._agents.look_after(loop, now, self._prepared or self._placement.waiting or self._expecting())
            self._prepared = False
        elif now > self._killed_at + _GRACE:
            self._agents.abandon()  # before the lost calls are ended: no turn may come after this one
        self._agents.take_back_stalled(now)
        self._agents.judge_doubtful(now)
        self._take_back()
        self._give_up_unplaceable(now)

    def _time_to_wait(self, now: float) -> float | None:
        """Return the time for which nothing is due (s); None for any time."""
        if self._killed_at is not None:  # no agent is started any more
            return max(0.0, self._killed_at + _GRACE - now)
        times = [self._agents.next_look()]
        if self._unplaceable_since is not None:
            times.append(self._unplaceable_since + _WAIT_FOR_NODE)
        known = [when for when in times if when is not None]
        return max(0.0, min(known) - now) if known else None

    def _take_back(self) -> None:
        """Put back the calls that have not begun on their node or may be run again; end the lost ones."""
        for lost in self._agents.lost:
            self._lost(*lost)
        self._agents.lost.clear()
        back, self._agents.returned = self._agents.returned, []
        self._wait_again(back)
        ends = [call for call in back if self._killed_at is not None or hasattr(call, "unwanted")]
        for call in ends:
            call.future.cancel()
        self._placement.put_back(call for call in reversed(back) if not call.future.done())

    def _lost(self, call: Call, words: str) -> None:
        """Run a call of a lost node again, if permitted; otherwise end it."""
        if call.restarted < call.plan.restarts and self._killed_at is None and not hasattr(call, "unwanted"):
            call.restarted += 1
            call.next_attempt()
            self._agents.returned.append(call)
            return
        runs = f" (run {call.restarted + 1} of {call.plan.restarts + 1})" if call.plan.restarts else ""
        advice = "" if call.plan.restarts else "; restart_limit=1 would run such a call again"
        error = NodeFailure(f"{call.future.name!r} lost its node{runs}: {words}{advice}")
        self._agents.ends.append(CallEnd(call, "lost", error))

    def _give_up_unplaceable(self, now: float) -> None:
        """Give up calls that no node can hold: a suitable node may come, but the calls do not wait for ever."""
        unplaceable = self._placement.unplaceable()
        if not unplaceable:
            self._unplaceable_since = None
            return
        if self._unplaceable_since is None:
            self._unplaceable_since = now
        long = now > self._unplaceable_since + _WAIT_FOR_NODE
        given_up = self._agents.give_up(unplaceable, long)
        if long or given_up:
            self._unplaceable_since = None
        for needs, why in given_up:
            for call in cast("list[Call]", [call for need in needs for call in self._placement.drop(need)]):
                self._agents.ends.append(CallEnd(call, "lost", type(why)(f"{call.future.name!r} was not run: {why}")))

    def _fail_all(self, error: BaseException) -> None:
        """Fail all calls, because this thread cannot go on; otherwise their callers would wait for ever."""
        _log.exception("this executor cannot go on")
        self._over = True
        ended = [end.call for end in self._agents.ends]
        while self._agents.ends:  # a known end counts, whatever the callback of another future does
            with suppress(BaseException):
                self._end_calls()
        self._take_in()
        calls = [
            *ended,
            *self._placement.drain(),
            *(call for node in self._placement.nodes.values() for call in node.in_flight),
            *(each.end.call for each in self._agents.doubtful),
            *(call for call, _ in self._agents.lost),
            *self._agents.returned,
            *self._agents.ranks_leave,
        ]
        for call in cast("list[Call]", calls):
            name = call.future.name
            broken = WorkerLost(f"{name!r} has no result, because its executor cannot go on: {error}; make a new one")
            broken.__cause__ = error
            call.future.fail_with(broken)

    # -- the end ---------------------------------------------------------------------------------------

    def _is_over(self) -> bool:
        if not self._closing or self._inbox or self._agents.ends or self._agents.doubtful or self._agents.ranks_leave:
            return False
        # In this order: an expected call is put into the inbox before it ceases to be expected.
        self._over = not (self._expecting() or self._inbox or self._placement.waiting or self._placement.busy)
        return self._over


def _look_around() -> None:
    """Do nothing: as an event, this only wakes the thread, which then looks at everything."""
