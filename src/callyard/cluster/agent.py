"""The agent: the process on a node that runs calls there for a driver elsewhere.

    driver == transport/channel ==> Agent --> WorkerPool --> workers      the same worker pool as for `Local()`
    driver <== transport/channel == AgentReply <-- WorkerPool

There is one thread: the I/O thread of the worker pool also waits for the driver. Nothing of the user's is unpickled
here: functions, arguments and results pass unopened between the driver and the workers.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from itertools import count
from typing import TYPE_CHECKING, Any

from ..pool.call import Call, CallDurations, CallPlan
from ..pool.call_shape import NodeCapacity, WorkerShape
from ..pool.mpi_results import RankResults
from ..pool.worker_placement import WorkerPlacement
from ..pool.worker_pool import WorkerPool
from ..serialize.packer import Packed, Packer
from ..serialize.shared_memory import Memory, SegmentPool
from ..transport import agent_protocol
from ..transport.agent_protocol import PLAN_NUMBER, WHOLE, FrameSender, json_frame, unwrap
from ..transport.channel import PeerGone
from ..transport.channel_messages import Message
from ..transport.event_loop import EventLoop
from ..transport.frames import Frame
from ..transport.sent_buffers import KeptBuffers
from .agent_replies import AgentReply, StartTeller

if TYPE_CHECKING:
    from ..transport.channel import Link

MakeRunner = Callable[..., Any]  # makes the runner of calls, in the place of a worker pool


class SentFunction:
    """A function as the driver sent it, in the place of a `FunctionDefinition`."""

    __slots__ = ("__weakref__", "data", "id", "name", "pace")

    def __init__(self, number: int, name: str, data: bytes) -> None:
        self.id, self.name, self.data = number, name, data
        self.pace = CallDurations()


class Agent:
    """One node of a driver, from WELCOME to the end."""

    def __init__(
        self,
        link: Link,
        unread: list[Message],
        welcome: dict[str, Any],
        initializer: bytes | None,
        make_runner: MakeRunner | None = None,
    ) -> None:
        """Make the agent; `unread` has the messages that arrived behind WELCOME."""
        self._link, self._unread = link, unread
        self._sender = FrameSender()
        self._functions: dict[int, SentFunction] = {}
        self._buffers = KeptBuffers()
        self._plans: dict[int, CallPlan] = {}
        self._paces: dict[str, CallDurations] = {}  # of functions packed with their arguments
        self._orders = count()  # of calls, by age
        self._gone: PeerGone | None = None  # set when the driver is gone, or the network between
        self._loop: EventLoop | None = None
        self._told_to_leave = self._leaving = False
        cores, gpus, memory = welcome["capacity"]
        self._capacity = NodeCapacity(cores, tuple(gpus), memory)
        self._placement = WorkerPlacement(self._capacity, welcome["workers"] or cores, welcome["max_tasks"])
        segments = SegmentPool()
        link.keep_in(segments.reserve)
        self._runner: Any = (make_runner or WorkerPool)(
            self._placement, segments, Packer(segments), initializer, beside=self
        )
        if welcome.get("recorded") and isinstance(self._runner, WorkerPool):
            self._runner.record_in(StartTeller(self._sender))
        self._actions = self._frame_actions()

    def _frame_actions(self) -> dict[int, Callable[[int, bytes], None]]:
        """Return what is done with frames of each kind, but calls."""
        return {
            agent_protocol.SURROUNDINGS: self._surroundings,
            agent_protocol.PLAN: self._plan,
            agent_protocol.DEFINE: self._define,
            agent_protocol.FORGET: self._forget,
            agent_protocol.FORGET_BUFFERS: self._forget_buffers,
            agent_protocol.FORGET_PLANS: self._forget_plans,
            agent_protocol.WORKERS: self._workers,
            agent_protocol.TAKE_BACK: self._take_back,
            agent_protocol.ALONE: self._alone,
            agent_protocol.END_CALL: self._end_call,
            agent_protocol.SIGNAL: self._signal,
            agent_protocol.END: self._end,
        }

    def run(self) -> None:
        """Serve until the driver sends END.

        Raises:
            PeerGone: the driver, or the connection, has gone before END.
        """
        with _warnings_to(self.warn) if type(self._runner) is WorkerPool else contextlib.nullcontext():
            self._runner.prepare()
            self._runner.join()
        if self._gone is not None:
            raise self._gone
        # Last, after the end of all workers: no result can follow ENDED.
        self._sender.add(json_frame(agent_protocol.ENDED), bulk=True)
        self._send()

    def leave(self) -> None:
        """End with the node's part of the job. A signal handler calls this, so there is only a note here."""
        self._told_to_leave = True
        if self._loop is not None:
            self._loop.wake()

    def warn(self, words: str) -> None:
        """Send a warning to the user of the driver."""
        self._sender.add(json_frame(agent_protocol.WARNING, words))

    # -- in the I/O thread of the worker pool ----------------------------------------------------------

    def watch(self, loop: EventLoop) -> None:
        loop.watch(self._link.fileno(), self._on_readable)
        self._loop = loop

    def before_waiting(self) -> bool:
        """Send the collected frames; return True after taking in messages that had arrived before."""
        # Messages behind WELCOME came before the loop watched the link.
        unread, self._unread = self._unread, []
        for message in unread:
            self._on_message(message)
        if self._told_to_leave and not self._leaving:
            self._begin_to_leave()
        if self._sender and self._gone is None:
            try:
                self._send()
            except PeerGone as gone:
                self._driver_gone(gone)
        return bool(unread)

    def _send(self) -> None:
        for message in self._sender.take():
            self._link.send(*message)

    def _on_readable(self, mask: int) -> None:
        try:
            for message in self._link.receive():
                self._on_message(message)
        except PeerGone as gone:
            self._driver_gone(gone)

    def _begin_to_leave(self) -> None:
        """Let running calls end by SIGTERM, in their grace, and give the others back.

        END closes the pool: it comes behind all calls already sent by the driver.
        """
        self._leaving = True
        self._sender.add(json_frame(agent_protocol.LEAVING))
        self._runner.terminate()

    def _driver_gone(self, gone: PeerGone) -> None:
        """Kill the workers, because no driver is left to take results."""
        if self._gone is None:
            self._gone = gone
            assert self._loop is not None, "the loop has told of this"
            # A closed connection would be readable for ever, and keep the loop awake.
            self._loop.forget(self._link.fileno())
            self._signal(signal.SIGKILL, b"")
            self._runner.close()

    def _on_message(self, message: Message) -> None:
        beside = iter(message.beside)
        for frame in agent_protocol.split_frames(message.head):
            self._on_frame(frame, beside)

    def _on_frame(self, frame: Frame, beside: Iterator[Memory]) -> None:
        kind, sequence, number, flags, body = frame
        if kind == agent_protocol.CALL:
            self._call(sequence, number, flags, body, beside)
        elif kind in self._actions:
            self._actions[kind](number, body)

    # -- frames of the driver ---------------------------------------------------------------------------

    def _surroundings(self, number: int, body: bytes) -> None:
        adopt(json.loads(body))

    def _plan(self, number: int, body: bytes) -> None:
        self._plans[number] = _read_plan(json.loads(body), self._capacity)

    def _define(self, number: int, body: bytes) -> None:
        head, (packed,) = unwrap(body, iter(()))
        self._functions[number] = SentFunction(number, head["name"], packed.data or b"")

    def _forget(self, number: int, body: bytes) -> None:
        for gone in json.loads(body):
            self._functions.pop(gone, None)

    def _forget_buffers(self, number: int, body: bytes) -> None:
        self._buffers.forget(json.loads(body))

    def _forget_plans(self, number: int, body: bytes) -> None:
        for plan in [each for each in self._plans if each <= number]:
            del self._plans[plan]

    def _workers(self, number: int, body: bytes) -> None:
        self._placement.max_workers = number

    def _call(self, sequence: int, number: int, flags: int, body: bytes, beside: Iterator[Memory]) -> None:
        if flags & WHOLE:
            call = self._whole_call(sequence, number, body, beside)
        else:
            (plan,) = PLAN_NUMBER.unpack_from(body)
            call = self._make(sequence, number, None, plan, Packed(body[PLAN_NUMBER.size :]))
        self._runner.start(call)

    def _whole_call(self, sequence: int, number: int, body: bytes, beside: Iterator[Memory]) -> Call:
        head, (arguments, *inputs) = unwrap(body, beside, self._buffers)
        # In the reverse order of the driver's additions.
        order = inputs.pop().data if head.get("order") else None
        again = [inputs.pop() for _ in range(head.get("again", 0))][::-1]
        call = self._make(sequence, number, head.get("name"), head["plan"], arguments)
        call.inputs, call.attempt = tuple(inputs), head.get("attempt", 1)
        if again:
            call.again = again[0] if len(again) == 1 else RankResults(list(again))
        if order is not None:
            call.remember = order  # type: ignore[assignment]  # opened by the worker
            call.noted = call.future.noted  # type: ignore[attr-defined]
        return call

    def _make(self, sequence: int, number: int, name: str | None, plan: int, arguments: Packed) -> Call:
        function = self._functions.get(number)
        if function is None:
            pace = self._paces.setdefault(name or "", CallDurations())
        else:
            name, pace = function.name, function.pace
        answer: Any = AgentReply(name or "", sequence, pace, self._sender)
        return Call(answer, function, arguments, self._plans[plan], pace, next(self._orders))  # type: ignore[arg-type]

    def _take_back(self, number: int, body: bytes) -> None:
        self._runner.cancel_waiting(False)
        # After the calls: each cancelled one has added BACK before this.
        self._sender.add(json_frame(agent_protocol.TAKEN_BACK))

    def _alone(self, number: int, body: bytes) -> None:
        self._runner.let_idle_workers_go()

    def _end_call(self, number: int, body: bytes) -> None:
        for call in self._runner.placed_calls():
            if call.future.sequence == number:
                self._runner.end_call(call)

    def _signal(self, number: int, body: bytes) -> None:
        # Waiting calls first, so that they are reported as not begun, and only running ones as lost.
        self._runner.cancel_waiting(True)
        self._runner.signal(number)  # calls still on their way are given back until END

    def _end(self, number: int, body: bytes) -> None:
        self._runner.close()


def _read_plan(said: dict[str, Any], capacity: NodeCapacity) -> CallPlan:
    cores, gpus, memory, ranks, cores_per_rank, environment = said["shape"]
    shape = WorkerShape(
        capacity.cores if said["exclusive"] else cores,
        gpus,
        memory,
        ranks,
        cores_per_rank,
        tuple(map(tuple, environment)),
    )
    plan = CallPlan(shape, said["priority"], said["restarts"], said["run_time"], said["options"])
    plan.measured = said["measured"]
    return plan


def adopt(surroundings: dict[str, Any]) -> None:
    """Take over import path, key, directory and variables of the driver: workers inherit those of this process."""
    sys.path[:] = surroundings["path"]
    if surroundings["key"] is not None:
        import multiprocessing.managers  # here, because few need this module, and its imports are many

        multiprocessing.current_process().authkey = bytes.fromhex(surroundings["key"])
    if surroundings["argv"] is not None:
        sys.argv[:] = surroundings["argv"]
    with contextlib.suppress(OSError, TypeError):  # the driver's directory is not on this node
        os.chdir(surroundings["cwd"])
    for name, value in surroundings["environment"].items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


@contextlib.contextmanager
def _warnings_to(warn: Callable[[str], None]) -> Iterator[None]:
    """Send the warnings of this process to the user of the driver."""

    def show(message: Warning | str, *_: Any, **__: Any) -> None:
        warn(str(message))

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = show
        yield
