"""The driver's end of one agent: calls to frames, frames to ends of calls. Only the driver's I/O thread is here."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import pickle
import sys
import warnings
import weakref
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from .. import errors
from ..errors import CallyardError, WorkerLost
from ..pool.call import Call, CallPlan
from ..pool.mpi_group import RankResults
from ..pool.worker_errors import StartError
from ..serialize.function_registry import FunctionDefinition
from ..serialize.packed import Packed
from ..transport import agent_protocol, frames
from ..transport.agent_protocol import PLAN_NUMBER, WHOLE, FrameSender, say, unwrap, wrap
from .node import NodeState

_MANAGERS = "multiprocessing.managers"
_MOST_BUFFERS = 1000  # large buffers in one message
_MOST_PLANS = 1000


class CallEnd(NamedTuple):
    """How a call ended: "result" or "error", packed; or it is "lost", with an exception, packed or not."""

    call: Call
    how: str
    what: Any


class AgentConnection:
    """What the driver knows of one agent, while that is connected."""

    def __init__(self, peer: bytes, node: NodeState, host: str, pid: int, key: str = "") -> None:
        self.peer, self.node, self.host, self.pid = peer, node, host, pid
        self.key = key  # by which its agent is known
        self.sender = FrameSender()
        self.in_flight: dict[int, Call] = {}  # by number, in the order in which they were sent
        self.returned: list[Call] = []  # have not begun, and will not there
        self.taken_back = False
        self.ending = self.ended = False
        self.last_news = 0.0  # when calls were sent there, or ended there
        self._sequence = 0
        self._surroundings = ProcessContext()
        self._workers = 0
        self._plans: dict[int, tuple[CallPlan, int]] = {}
        self._known: dict[int, weakref.ref[FunctionDefinition]] = {}
        self._forgotten: deque[int] = deque()

    # -- to the agent ----------------------------------------------------------------------------------

    def welcome(self, workers: int | None, max_tasks: int | None, initializer: bytes | None) -> None:
        head = {
            "capacity": self.node.capacity,
            "workers": workers,
            "max_tasks": max_tasks,
            "surroundings": self._surroundings.all(),
        }
        parts = [] if initializer is None else [Packed(initializer)]
        body = wrap(head, parts, [])
        self.sender.add(frames.encode(agent_protocol.WELCOME, 0, 0, WHOLE, body))

    def send(self, calls: Sequence[Call], workers: int | None) -> list[list[bytes | memoryview]]:
        """Add the calls to the message that is being collected; messages that are full."""
        add = self.sender.add
        if workers is not None and workers != self._workers:
            self._workers = workers
            add(frames.encode(agent_protocol.WORKERS, 0, workers))
        news = self._surroundings.news()
        if news is not None:
            add(say(agent_protocol.SURROUNDINGS, news))
        if self._forgotten:
            gone = [self._forgotten.popleft() for _ in range(len(self._forgotten))]
            add(say(agent_protocol.FORGET, gone))
            for number in gone:
                del self._known[number]
        full = []
        for call in calls:
            self._sequence += 1
            self.in_flight[self._sequence] = call
            self._encode(call)
            if len(self.sender.beside) > _MOST_BUFFERS:
                full.append(self.sender.take())
        return full

    def _encode(self, call: Call) -> None:
        number = self._define(call) if call.definition is not None else 0
        plan, packed = self._plan(call.plan), call.arguments
        if number and packed.data is not None and not (call.inputs or packed.memories or call.remember):
            body = PLAN_NUMBER.pack(plan) + packed.data
            self.sender.add(frames.encode(agent_protocol.CALL, self._sequence, number, 0, body))
            return
        head: dict[str, Any] = {"plan": plan}
        if not number:
            head["name"] = call.future.name
        parts = [packed, *call.inputs]
        if call.remember is not None:
            head["order"] = True
            parts.append(Packed(pickle.dumps(call.remember, 5)))
        body = wrap(head, parts, self.sender.beside)
        self.sender.add(frames.encode(agent_protocol.CALL, self._sequence, number, WHOLE, body))

    def _define(self, call: Call) -> int:
        """Make sure that the agent has this version of the function; its number."""
        definition: Any = call.definition
        number: int = definition.id
        if number not in self._known:
            forgotten = self._forgotten
            self._known[number] = weakref.ref(definition, lambda _: forgotten.append(number))
            body = wrap({"name": call.future.name}, [Packed(definition.data)], [])
            self.sender.add(frames.encode(agent_protocol.DEFINE, 0, number, WHOLE, body))
        return number

    def _plan(self, plan: CallPlan) -> int:
        known = self._plans.get(id(plan))
        if known is not None:
            return known[1]
        if len(self._plans) > _MOST_PLANS:  # each call may bring its own; the agent learns the numbers anew
            self._plans.clear()
        number = len(self._plans) + 1
        self._plans[id(plan)] = plan, number
        said = {
            "shape": plan.shape,
            "exclusive": plan.need.exclusive,
            "priority": plan.priority,
            "restarts": plan.restarts,
            "run_time": plan.run_time,
            "options": plan.options,
        }
        self.sender.add(say(agent_protocol.PLAN, said, number))
        return number

    def take_back(self) -> None:
        self.sender.add(say(agent_protocol.TAKE_BACK))

    def release_idle_workers(self) -> None:
        self.sender.add(say(agent_protocol.ALONE))

    def signal(self, signum: int) -> None:
        self.sender.add(frames.encode(agent_protocol.SIGNAL, 0, signum))

    def end(self) -> None:
        self.ending = True
        self.sender.add(say(agent_protocol.END))

    # -- from the agent --------------------------------------------------------------------------------

    def receive(self, message: list[bytes]) -> Iterator[CallEnd]:
        """The ends of calls that a message tells of."""
        beside = iter(message[1:])
        in_flight = self.in_flight
        for kind, sequence, number, flags, body in agent_protocol.heard(message[0]):
            call = in_flight.pop(sequence, None)
            if call is None:
                self._on_notice(kind, body)
                continue
            call.pace.note(number * 1e-6)
            if kind == agent_protocol.RESULT and not flags & WHOLE:
                yield CallEnd(call, "result", Packed(body))
            elif kind == agent_protocol.BACK:
                self.returned.append(call)
            elif kind == agent_protocol.LOST:
                yield CallEnd(call, "lost", _lost(json.loads(body)))
            else:
                yield self._whole(call, kind, *unwrap(body, beside))

    def _whole(self, call: Call, kind: int, head: dict[str, Any], parts: list[Packed]) -> CallEnd:
        if head.get("note"):
            call.note = pickle.loads(parts.pop().data or b"")
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


def _lost(said: dict[str, Any]) -> BaseException:
    kind = getattr(errors, said["kind"], None)
    if not (isinstance(kind, type) and issubclass(kind, CallyardError)):
        return WorkerLost(said["words"])
    error = kind(said["words"])
    if isinstance(error, WorkerLost):
        error.exitcode = said["exitcode"]
    return error


def _warn(words: str) -> None:
    with contextlib.suppress(Warning):  # where warnings are errors there is nobody here to catch one
        warnings.warn(words, stacklevel=2)


class ProcessContext:
    """What workers take over from this process, and whether that has changed since it was last said."""

    def __init__(self) -> None:
        self._path: list[str] = []
        self._has_key = False
        self._environment: dict[str, str] = {}

    def all(self) -> dict[str, Any]:
        self._path, self._has_key = list(sys.path), _MANAGERS in sys.modules
        key = bytes(multiprocessing.current_process().authkey).hex() if self._has_key else None
        return {"path": self._path, "key": key, "argv": sys.argv, "cwd": _directory(), "environment": {}}

    def news(self) -> dict[str, Any] | None:
        changed = sys.path != self._path or (not self._has_key and _MANAGERS in sys.modules)
        return {**self.all(), "argv": None, "cwd": None} if changed else None


def _directory() -> str | None:
    try:
        return os.getcwd()
    except OSError:  # it has been removed
        return None
