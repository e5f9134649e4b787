"""The pool of this machine on another one: runs there, started through the scheduler, for a driver elsewhere.

    driver == transport/curve ==> Agent --> Node --> workers      the same node as for `Local()`
    driver <== transport/curve == Answer <-- Node

One thread does it all: the node's I/O thread also waits for the driver. Nothing of the user's is opened
here: functions, arguments and results pass as they are, between the driver and workers.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import socket
import stat
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from itertools import count
from typing import TYPE_CHECKING, Any, NoReturn

from ..pool.call import Call, CallDurations, CallPlan
from ..pool.call_shape import NodeCapacity, WorkerShape
from ..pool.worker_placement import WorkerPlacement
from ..pool.worker_pool import WorkerPool
from ..serialize.packer import Packed, Packer
from ..serialize.shared_memory import SegmentPool
from ..system.machine import GIB, GPUS, detect
from ..system.processes import default_signals, open_standard_descriptors
from ..transport import agent_protocol
from ..transport.agent_protocol import PLAN_NUMBER, WHOLE, FrameSender, say, unwrap
from ..transport.curve import PeerGone
from ..transport.event_loop import EventLoop
from ..transport.frames import Frame
from ..version import VERSION
from .agent_replies import AgentReply

if TYPE_CHECKING:
    from ..transport.curve import Link

MakeNode = Callable[..., Any]  # what runs the calls, if it is not a node
_CONNECT = 60.0  # s in which the driver must answer
_AGAIN = 20.0  # s in which it must, once it was there: when it is gone, its nodes are to be given back
_LAST_WORDS = 5.0  # s in which the driver must have read what was said last
NAME = "CALLYARD_NODE"  # names the node where the scheduler does not


class SentFunction:
    """A function as the driver sent it: what the node's connections need of a `Definition`."""

    __slots__ = ("__weakref__", "data", "id", "name", "pace")

    def __init__(self, number: int, name: str, data: bytes) -> None:
        self.id, self.name, self.data = number, name, data
        self.pace = CallDurations()


class Agent:
    """One node of a driver's, from its WELCOME to its end."""

    def __init__(
        self,
        driver: DriverConnection,
        welcome: dict[str, Any],
        initializer: bytes | None,
        make_node: MakeNode | None = None,
    ) -> None:
        self._driver, self._link = driver, driver.link
        self._sender = FrameSender()
        self._functions: dict[int, SentFunction] = {}
        self._plans: dict[int, CallPlan] = {}
        self._paces: dict[str, CallDurations] = {}  # of functions that travel with their arguments
        self._orders = count()
        self._gone: PeerGone | None = None  # the driver, or the network between
        cores, gpus, memory = welcome["capacity"]
        self._capacity = NodeCapacity(cores, tuple(gpus), memory)
        self._pool = WorkerPlacement(self._capacity, welcome["workers"] or cores, welcome["max_tasks"])
        segments = SegmentPool()
        self._node: Any = (make_node or WorkerPool)(self._pool, segments, Packer(segments), initializer, beside=self)
        self._actions: dict[int, Callable[[int, bytes], None]] = {
            agent_protocol.SURROUNDINGS: self._surroundings,
            agent_protocol.PLAN: self._plan,
            agent_protocol.DEFINE: self._define,
            agent_protocol.FORGET: self._forget,
            agent_protocol.WORKERS: self._workers,
            agent_protocol.TAKE_BACK: self._take_back,
            agent_protocol.ALONE: self._alone,
            agent_protocol.SIGNAL: self._signal,
            agent_protocol.END: self._end,
        }

    def run(self) -> None:
        """Serve until the driver says that this is the end. Raises Gone if it is gone before."""
        with _warnings_to(self.warn) if type(self._node) is WorkerPool else contextlib.nullcontext():
            self._node.prepare()
            self._node.join()
        if self._gone is not None:
            raise self._gone
        self._sender.add(say(agent_protocol.ENDED))
        self._link.send(self._sender.take())

    def warn(self, words: str) -> None:
        """Tell the user of the driver."""
        self._sender.add(say(agent_protocol.WARNING, words))

    # -- for the node's I/O thread ---------------------------------------------------------------------

    def watch(self, loop: EventLoop) -> None:
        loop.watch(self._link.fileno(), self._driver_speaks)
        self._loop = loop

    def before_waiting(self) -> bool:
        """Say what there is to say."""
        unread, self._driver.unread = self._driver.unread, []
        for message in unread:
            self._hear_message(message)
        if self._sender and self._gone is None:
            try:
                self._link.send(self._sender.take())
            except PeerGone as gone:
                self._driver_gone(gone)
        return bool(unread)

    def _driver_speaks(self, mask: int) -> None:
        try:
            for message in self._link.receive():
                self._hear_message(message)
        except PeerGone as gone:
            self._driver_gone(gone)

    def _driver_gone(self, gone: PeerGone) -> None:
        """Nobody wants the results any more: what runs ends at once."""
        if self._gone is None:
            self._gone = gone
            self._loop.forget(self._link.fileno())
            self._signal(signal.SIGKILL, b"")

    def _hear_message(self, message: list[bytes]) -> None:
        beside = iter(message[1:])
        for frame in agent_protocol.heard(message[0]):
            self._hear(frame, beside)

    def _hear(self, frame: Frame, beside: Iterator[bytes]) -> None:
        kind, sequence, number, flags, body = frame
        if kind == agent_protocol.CALL:
            self._call(sequence, number, flags, body, beside)
        elif kind in self._actions:
            self._actions[kind](number, body)

    # -- what the driver says --------------------------------------------------------------------------

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

    def _workers(self, number: int, body: bytes) -> None:
        self._pool.max_workers = number

    def _call(self, sequence: int, number: int, flags: int, body: bytes, beside: Iterator[bytes]) -> None:
        if flags & WHOLE:
            call = self._whole_call(sequence, number, body, beside)
        else:
            (plan,) = PLAN_NUMBER.unpack_from(body)
            call = self._make(sequence, number, None, plan, Packed(body[PLAN_NUMBER.size :]))
        self._node.start(call)

    def _whole_call(self, sequence: int, number: int, body: bytes, beside: Iterator[bytes]) -> Call:
        head, (arguments, *inputs) = unwrap(body, beside)
        order = inputs.pop().data if head.get("order") else None
        call = self._make(sequence, number, head.get("name"), head["plan"], arguments)
        call.inputs = tuple(inputs)
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
        self._node.cancel_waiting(False)
        self._sender.add(say(agent_protocol.TAKEN_BACK))

    def _alone(self, number: int, body: bytes) -> None:
        self._node.let_idle_workers_go()

    def _signal(self, number: int, body: bytes) -> None:
        self._node.cancel_waiting(True)
        self._node.kill(number)

    def _end(self, number: int, body: bytes) -> None:
        self._node.close()


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
    return CallPlan(shape, said["priority"], said["restarts"], said["run_time"], said["options"])


def adopt(surroundings: dict[str, Any]) -> None:
    """Be as the driver is, because workers are told to be as this process is."""
    sys.path[:] = surroundings["path"]
    if surroundings["key"] is not None:
        import multiprocessing.managers  # here, because few need it

        multiprocessing.current_process().authkey = bytes.fromhex(surroundings["key"])
    if surroundings["argv"] is not None:
        sys.argv[:] = surroundings["argv"]
    with contextlib.suppress(OSError, TypeError):  # it is not there, here
        os.chdir(surroundings["cwd"])
    for name, value in surroundings["environment"].items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


@contextlib.contextmanager
def _warnings_to(warn: Callable[[str], None]) -> Iterator[None]:
    """What this process warns of is for who reads what the driver says."""

    def show(message: Warning | str, *_: Any, **__: Any) -> None:
        warn(str(message))

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = show
        yield


# -- the end of who started it ---------------------------------------------------------------------------


class ParentPipe:
    """Who started this process, if standard input comes from it: its end is the driver's end, or what came between.

    A thread of its own waits for that: nothing that this process is at may delay it.
    """

    def __init__(self) -> None:
        self.all_said = False  # nothing is lost any more

    def watch(self) -> None:
        with contextlib.suppress(OSError):
            kind = os.fstat(0).st_mode
            if stat.S_ISFIFO(kind) or stat.S_ISSOCK(kind):
                threading.Thread(target=self._wait, name="callyard-starter", daemon=True).start()

    def _wait(self) -> None:
        with contextlib.suppress(OSError):
            while os.read(0, 1 << 12):
                pass
        os._exit(0 if self.all_said else 1)  # the zygote sees that, and ends the workers and what they started


# -- the beginning ---------------------------------------------------------------------------------------


def node_name(environ: Mapping[str, str] = os.environ) -> str:
    return environ.get(NAME) or environ.get("SLURMD_NODENAME") or socket.gethostname()


def hello() -> dict[str, Any]:
    machine = detect()
    # In a step of Slurm's a GPU that the job does not have may be seen all the same.
    in_a_step = "SLURM_STEP_ID" in os.environ
    gpus = [] if in_a_step and not any(name in os.environ for name in GPUS) else list(machine.gpus)
    return {
        "node": node_name(),
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "callyard": VERSION,
        "python": list(sys.version_info[:2]),
        "capacity": [machine.cores, gpus, int(machine.memory * GIB)],
    }


class DriverConnection:
    """The driver at the other end, before there is a node and after that has ended."""

    def __init__(
        self, link: Link, starter: ParentPipe, more: dict[str, Any], make_node: MakeNode | None = None
    ) -> None:
        """`more`: what else to say of this process."""
        self.link, self._starter, self._more, self._make_node = link, starter, more, make_node
        self.unread: list[list[bytes]] = []

    def _wait_for(self, wanted: set[int], patience: float) -> tuple[int, bytes]:
        """The first frame of one of these kinds, which is a message of its own. What came after it is unread."""
        until = time.monotonic() + patience
        with selectors.DefaultSelector() as selector:
            selector.register(self.link.fileno(), selectors.EVENT_READ)
            while True:
                self.unread += self.link.receive()
                while self.unread:
                    for kind, _, _, _, body in agent_protocol.heard(self.unread.pop(0)[0]):
                        if kind in wanted:
                            return kind, body
                left = until - time.monotonic()
                if left < 0:
                    raise PeerGone(f"the driver has not answered for {patience:.0f} s")
                selector.select(left)

    def serve(self) -> None:
        """Be its agent until it wants no more."""
        self.link.send([say(agent_protocol.HELLO, {**hello(), **self._more})])
        kind, body = self._wait_for({agent_protocol.WELCOME, agent_protocol.REFUSED}, _CONNECT)
        if kind == agent_protocol.REFUSED:
            _give_up(json.loads(body))
        head, parts = unwrap(body, iter(()))
        adopt(head["surroundings"])
        Agent(self, head, parts[0].data if parts else None, self._make_node).run()
        self._starter.all_said = True
        if self._make_node is None:  # else the driver has heard all that it wants
            self._wait_for_end()

    def _wait_for_end(self) -> None:
        """Until the driver hangs up the last words may be on their way."""
        with contextlib.suppress(PeerGone):
            self._wait_for(set(), _LAST_WORDS)


def main() -> None:
    """`... CONTACT`: connect to the driver that this file tells of, and serve; again if the network fails.

    `... CONTACT TOKEN`: in a job that the driver has asked for, and knows by that.
    """
    default_signals()
    open_standard_descriptors()
    path = os.path.abspath(sys.argv[1])  # now: later the process has the driver's arguments and directory
    more = _of_job(sys.argv[2]) if len(sys.argv) > 2 else {}
    starter = ParentPipe()
    if not more:  # else a job's script has started it, which is not there to say anything
        starter.watch()
    patience = _CONNECT
    while not connect(path, starter, more, patience=patience) and os.path.exists(path):  # the driver removes it at last
        patience = _AGAIN


def _of_job(token: str, environ: Mapping[str, str] = os.environ) -> dict[str, Any]:
    """What the driver has to know of the job: which of its own it is, and what it has on this node."""
    from ..schedulers.slurm.allocation import read_allocation  # here, because other agents need none of it

    allocation = read_allocation(environ)
    has = next((node for node in allocation.nodes if node.name == node_name(environ)), allocation.nodes[0])
    return {
        "block": f"{token}_{environ.get('SLURM_ARRAY_TASK_ID', '0')}",
        "job": allocation.job,
        "allocated": [has.cores, has.gpus, has.memory],
    }


def connect(
    path: str,
    starter: ParentPipe,
    more: dict[str, Any],
    make_node: MakeNode | None = None,
    patience: float = _CONNECT,
) -> bool:
    """Serve the driver that this file tells of; False if it cannot be reached any more."""
    from ..transport.contact_file import Contact
    from ..transport.curve import Link

    try:
        link = Link.connect(Contact.read(path), timeout=patience)
    except (OSError, ValueError) as error:
        _give_up(str(error))
    try:
        DriverConnection(link, starter, more, make_node).serve()
    except PeerGone as error:
        _warn(str(error))
        return False
    finally:
        link.close()
    return True


def _give_up(why: str) -> NoReturn:
    sys.exit(f"{_who()}: {why}")


def _warn(what: str) -> None:
    sys.stderr.write(f"{_who()}: {what}\n")
    sys.stderr.flush()


def _who() -> str:
    return f"callyard agent on {node_name()} (process {os.getpid()})"
