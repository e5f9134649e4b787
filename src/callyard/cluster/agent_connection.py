"""The driver's end of one agent: calls become frames here, and frames become ends of calls.

Only the I/O thread of the driver uses a connection, so there is no lock.
"""

from __future__ import annotations

import contextlib
import json
import pickle
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, cast

from .. import errors
from ..cache.messages import RunAgain
from ..errors import CallyardError, WorkerLost
from ..events.recorder import Recorder
from ..events.usage import Usage
from ..pool.call import Call, CallPlan
from ..pool.call_errors import StartError
from ..pool.mpi_results import RankResults
from ..serialize.function_registry import FunctionDefinition
from ..serialize.packed import Packed
from ..transport import agent_protocol, frames
from ..transport.agent_protocol import PLAN_NUMBER, WHOLE, FrameSender, Outgoing, json_frame, unwrap, wrap
from ..transport.channel_messages import Message
from ..transport.sent_buffers import SentBuffers
from ..transport.sent_functions import SentFunctions, SentImports, working_directory
from .hello import Hello
from .placement_state import NodeState

_MOST_BUFFERS = 1000  # large buffers in one message
_MOST_PLANS = 1000


class CallEnd(NamedTuple):
    """The end of a call: a packed "result" or "error"; or "lost", with an exception, packed or not."""

    call: Call
    how: str
    what: Any


class AgentConnection:
    """The connection to one agent, and the driver's knowledge of the agent while the connection lasts."""

    def __init__(
        self, peer: int, node: NodeState, hello: Hello, on_drop: Callable[[AgentConnection], object] = lambda _: None
    ) -> None:
        """Make a connection; `on_drop` is called with it in any thread when the agent may forget a buffer."""
        self.peer, self.node = peer, node
        self.host, self.pid, self.key = hello.host, hello.pid, hello.key
        self.sender = FrameSender()
        self.in_flight: dict[int, Call] = {}  # by number, in the order of sending
        self.returned: list[Call] = []  # calls that have not begun there and never will
        self.taken_back = False  # True after the last of the returned calls
        self.ending = self.ended = False
        self.leaving = False  # told to end by the scheduler, not by the driver
        self.told_to_kill = False
        self.rank: int | None = None  # in a call on several nodes
        self.last_activity = 0.0  # when calls were last sent there, or ended there
        self._sequence = 0
        self._recorder: Recorder | None = None
        self._functions, self._imports = SentFunctions(), SentImports()
        self._buffers = SentBuffers(lambda: on_drop(self))
        self._workers = 0
        self._plans: dict[int, tuple[CallPlan, int]] = {}
        self._last_plan = 0

    # -- to the agent ----------------------------------------------------------------------------------

    def welcome(
        self,
        workers: int | None,
        max_tasks: int | None,
        initializer: bytes | None,
        recorder: Recorder | None = None,
    ) -> None:
        """Tell the agent the resources to give out, and the settings of the workers; a recorder is told of starts."""
        self._recorder = recorder
        head = {
            "capacity": self.node.capacity,
            "workers": workers,
            "max_tasks": max_tasks,
            "recorded": recorder is not None,
            "surroundings": {**self._import_settings(), "argv": sys.argv, "cwd": working_directory()},
        }
        parts = [] if initializer is None else [Packed(initializer)]
        body = wrap(head, parts, [])
        self.sender.add(frames.encode(agent_protocol.WELCOME, 0, 0, WHOLE, body))

    def send(self, calls: Sequence[Call], workers: int | None) -> list[Outgoing]:
        """Add the calls to the message under way; return messages that are full."""
        # Settings first: the agent handles the frames of a message in order, and the calls need them.
        add = self.sender.add
        if workers is not None and workers != self._workers:
            self._workers = workers
            add(frames.encode(agent_protocol.WORKERS, 0, workers))
        if self._imports.changed():
            add(json_frame(agent_protocol.SURROUNDINGS, self._import_settings()))
        if self._functions:
            add(json_frame(agent_protocol.FORGET, list(self._functions.take_dropped())))
        full: list[Outgoing] = []
        for call in calls:
            self._sequence += 1
            self.in_flight[self._sequence] = call
            self._encode(call)
            # The frames of one message are limited.
            if len(self.sender.beside) > _MOST_BUFFERS:
                full += self.sender.take()
        return full

    def forget_buffers(self) -> bool:
        """Let the agent forget buffers that no call here can use any more; return True if there are any."""
        numbers = self._buffers.take_dropped()
        if numbers:
            self.sender.add(json_frame(agent_protocol.FORGET_BUFFERS, numbers), bulk=True)
        return bool(numbers)

    def _encode(self, call: Call) -> None:
        number = self._define(call.definition, call.future.name) if call.definition is not None else 0
        plan, packed = self._plan(call.plan), call.arguments
        more = call.inputs or packed.memories or call.remember or call.attempt > 1
        if number and packed.data is not None and not more:
            body = PLAN_NUMBER.pack(plan) + packed.data
            self.sender.add(frames.encode(agent_protocol.CALL, self._sequence, number, 0, body))
            return
        head: dict[str, Any] = {"plan": plan}
        if not number:
            head["name"] = call.future.name
        parts = [packed, *call.inputs]
        if call.attempt > 1:
            head["attempt"] = call.attempt
        if call.again is not None:
            again = self._again(call)
            head["again"] = len(again)
            parts += again
        if call.remember is not None:
            head["order"] = True
            parts.append(Packed(pickle.dumps(call.remember, 5)))
        body = wrap(head, parts, self.sender.beside, self._buffers)
        frame = frames.encode(agent_protocol.CALL, self._sequence, number, WHOLE, body)
        self.sender.add(frame, bulk=any(part.memories for part in parts))

    def _again(self, call: Call) -> list[Packed]:
        """Return the packed arguments of the next run: those of each rank behind this connection."""
        if not isinstance(call.again, RankResults):
            return [call.again]
        every = cast("list[Packed]", call.again.parts)
        return every if self.rank is None else [every[self.rank]]

    def _define(self, definition: FunctionDefinition, name: str) -> int:
        """Send the function unless the agent has this version; return its number."""
        if self._functions.add(definition):
            body = wrap({"name": name}, [Packed(definition.data)], [])
            self.sender.add(frames.encode(agent_protocol.DEFINE, 0, definition.id, WHOLE, body))
        return definition.id

    def _import_settings(self) -> dict[str, Any]:
        """Return the import path and the key of managers; all other settings of the workers stay."""
        path, key = self._imports.take()
        return {"path": path, "key": None if key is None else key.hex(), "argv": None, "cwd": None, "environment": {}}

    def _plan(self, plan: CallPlan) -> int:
        known = self._plans.get(id(plan))
        if known is not None:
            return known[1]
        if len(self._plans) > _MOST_PLANS:  # calls may each bring a plan of their own
            self._plans.clear()
            self.sender.add(frames.encode(agent_protocol.FORGET_PLANS, 0, self._last_plan), bulk=True)
        self._last_plan = number = self._last_plan + 1  # never twice: a call on its way may still name an old one
        # With the plan itself, so that no other plan gets the same id.
        self._plans[id(plan)] = plan, number
        said = {
            "shape": plan.shape,
            "exclusive": plan.need.exclusive,
            "priority": plan.priority,
            "restarts": plan.restarts,
            "run_time": plan.run_time,
            "options": plan.options,
            "measured": plan.measured,
        }
        self.sender.add(json_frame(agent_protocol.PLAN, said, number))
        return number

    def take_back(self) -> None:
        """Ask for the calls that have not begun there."""
        self.sender.add(json_frame(agent_protocol.TAKE_BACK))

    def end_call(self, call: Call) -> bool:
        """Let a call that was sent there be ended; return False if it was not."""
        for sequence, each in self.in_flight.items():
            if each is call:
                # Bulk: it must not pass the call itself, which may wait behind large buffers.
                self.sender.add(frames.encode(agent_protocol.END_CALL, 0, sequence), bulk=True)
                return True
        return False

    def release_idle_workers(self) -> None:
        """Let idle workers end: their GPUs and memory may be needed by ranks of an MPI call."""
        self.sender.add(json_frame(agent_protocol.ALONE))

    def signal(self, signum: int) -> None:
        self.told_to_kill = True
        self.sender.add(frames.encode(agent_protocol.SIGNAL, 0, signum))

    def end(self) -> None:
        self.ending = True
        self.sender.add(json_frame(agent_protocol.END), bulk=True)

    # -- from the agent --------------------------------------------------------------------------------

    def receive(self, message: Message) -> Iterator[CallEnd]:
        """Return the ends of calls in a message."""
        beside = iter(message.beside)
        in_flight = self.in_flight
        for kind, sequence, number, flags, body in agent_protocol.split_frames(message.head):
            call = in_flight.pop(sequence, None)
            if call is None:
                self._on_notice(kind, body)
                continue
            # The number of an answer is the call's duration at the agent (us).
            call.pace.note(number * 1e-6)
            if kind == agent_protocol.RESULT and not flags & WHOLE:
                yield CallEnd(call, "result", Packed(body))
            elif kind == agent_protocol.BACK:
                if flags & WHOLE:
                    _note_restarts(call, unwrap(body, beside)[0])
                self.returned.append(call)
            elif kind == agent_protocol.LOST:
                said = json.loads(body)
                _note_restarts(call, said)
                _note_usage(call, said)
                yield CallEnd(call, "lost", _lost(said))
            else:
                yield self._whole(call, kind, *unwrap(body, beside))

    def _whole(self, call: Call, kind: int, head: dict[str, Any], parts: list[Packed]) -> CallEnd:
        _note_restarts(call, head)
        _note_usage(call, head)
        if head.get("note"):
            note = pickle.loads(parts.pop().data or b"")
            if type(note) is RunAgain:
                call.asks_again = True
            else:
                call.note = note
        if kind == agent_protocol.ERROR:
            return CallEnd(call, "error", parts[0])
        if kind == agent_protocol.NOT_STARTED:
            initializer_error = parts[0] if parts[0].data else None
            lost = StartError(call, initializer_error, head["exitcode"], head["reason"], self.host)
            return CallEnd(call, "lost", lost)
        return CallEnd(call, "result", RankResults(list(parts)) if "ranks" in head else parts[0])

    def _on_notice(self, kind: int, body: bytes) -> None:
        if kind == agent_protocol.WARNING:
            _warn(json.loads(body))
        elif kind == agent_protocol.TAKEN_BACK:
            self.taken_back = True
        elif kind == agent_protocol.ENDED:
            self.ended = True
        elif kind == agent_protocol.LEAVING:
            self.leaving = True
        elif kind == agent_protocol.STARTED:
            self._started(json.loads(body))

    def _started(self, said: dict[str, Any]) -> None:
        call = self.in_flight.get(said["call"])
        if call is not None and self._recorder is not None:
            self._recorder.started(call.future, self.host, said["worker"], said["attempt"], time=said["at"])


def _note_restarts(call: Call, said: dict[str, Any]) -> None:
    """Take in that the agent has run the call again, after the loss of its worker."""
    attempts = said.get("attempts", call.attempt)
    if attempts > call.attempt:
        call.restarted += attempts - call.attempt
        call.attempt = call.future.attempts = attempts


def _note_usage(call: Call, said: dict[str, Any]) -> None:
    if "usage" in said:
        call.used(Usage.of(said["usage"]))


def _lost(said: dict[str, Any]) -> BaseException:
    kind = getattr(errors, said["kind"], None)
    if not (isinstance(kind, type) and issubclass(kind, CallyardError)):
        return WorkerLost(said["words"])
    error = kind(said["words"])
    if isinstance(error, WorkerLost):
        error.exitcode = said["exitcode"]
    error._run = said["run"]
    return error


def _warn(words: str) -> None:
    with contextlib.suppress(Warning):  # an I/O thread has no caller to catch a warning that is an error
        warnings.warn(words, stacklevel=2)
