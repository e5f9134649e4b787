"""One rank of a call that runs on several nodes: a worker, and what speaks for it with the driver, in one process.

    driver == transport/curve == Agent --> Bridge == socket pair == RankServer, which runs the function
              (a thread of this process)                         (its main thread, as MPI wants it)

The scheduler's own launcher starts it, so that MPI finds the other ranks. It makes one call.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from ..pool.call_shape import WorkerShape
from ..pool.mpi_group import words_of_no_mpi
from ..pool.worker import Worker
from ..pool.worker_connection import WorkerConnection
from ..pool.worker_errors import StartError
from ..pool.worker_events import finish
from ..pool.worker_placement import WorkerPlacement
from ..serialize.packer import Packer
from ..serialize.shared_memory import SegmentPool
from ..system.machine import GPUS
from ..system.processes import default_signals, open_standard_descriptors
from ..transport.event_loop import WRITE, EventLoop
from ..transport.frames import NO_MPI, RESULT, Frame
from ..transport.result_log import make_result_log
from ..worker.communicator import join_world
from ..worker.mpi_rank import RankServer, rank_in
from .agent import Agent, ParentPipe, connect

if TYPE_CHECKING:
    from ..pool.call import Call
    from ..transport.stream import FrameStream

# How launchers tell a process its rank among those of its machine.
_LOCAL_RANK_VARIABLES = ("OMPI_COMM_WORLD_LOCAL_RANK", "MPI_LOCALRANKID", "PMI_LOCAL_RANK", "SLURM_LOCALID")


class Bridge:
    """In the place of a node: hands the call to the main thread of this process, over a socket pair."""

    def __init__(
        self,
        sock: socket.socket,
        first: bool,
        pool: WorkerPlacement,
        segments: SegmentPool,
        packer: Packer,
        initializer: bytes | None,
        beside: Agent,
    ) -> None:
        worker = Worker(1, WorkerShape(), ())
        self._connection = WorkerConnection(worker, packer, self._on_blocked, _nothing, sock)
        self._loop = EventLoop(_nothing)
        self._initializer, self._beside, self._first = initializer, beside, first
        self._over = False

    def prepare(self) -> None:
        connection, loop = self._connection, self._loop
        self._beside.watch(loop)
        loop.watch(connection.stream.sock, self._worker_speaks)
        connection.greet(self._initializer)
        connection.handed_over()

    def join(self) -> None:
        """Serve in this thread until the driver wants no more."""
        while not self._over:
            if not self._beside.before_waiting():
                self._loop.step(None)
        self._connection.leave()
        self._loop.close()

    def start(self, call: Call) -> None:
        self._connection.send([call])
        for end in self._connection.refused():
            finish(*end)

    def cancel_waiting(self, all_of_them: bool) -> None:
        """Nothing waits here."""

    def let_idle_workers_go(self) -> None:
        """There is none."""

    def kill(self, signum: int) -> None:
        os.kill(os.getpid(), signal.SIGKILL)  # the launcher ends the other ranks

    def close(self) -> None:
        self._over = True

    def _on_blocked(self, stream: FrameStream) -> None:
        self._loop.also_write(stream.sock, True)

    def _worker_speaks(self, mask: int) -> None:
        connection = self._connection
        if mask & WRITE and connection.stream.flush():
            self._loop.also_write(connection.stream.sock, False)
        arrived = connection.receive()
        for call in list(connection.in_flight.values()):
            self._say_if_meant_otherwise(call, arrived)
        for end in connection.hear(connection, arrived):
            finish(*end)
        connection.catch_up()
        if connection.initializer_error is not None:
            for call in connection.take_unfinished()[1]:
                call.future.fail(StartError(call, connection.initializer_error, None, None))
        if connection.ended:
            self._loop.forget(connection.stream.sock)

    def _say_if_meant_otherwise(self, call: Call, arrived: list[Frame]) -> None:
        for kind, _, _, flags, _ in arrived:
            if self._first and kind == RESULT and flags & NO_MPI:
                self._beside.warn(words_of_no_mpi(call.future.name, call.plan.shape.ranks))


def main() -> None:
    """Run as `python -c "... main()" CONTACT CALL RANKS GPUS_PER_RANK`, by the launcher, once for each rank."""
    contact, call, ranks, gpus = sys.argv[1:]
    default_signals()
    open_standard_descriptors()
    os.environ.update(own_gpus(os.environ, int(gpus)))
    starter = ParentPipe()
    starter.watch()
    ours, theirs = socket.socketpair()
    world = join_world()  # in this thread, as MPI wants it
    rank = rank_in(world)
    more = {"call": int(call), "rank": rank, "world": world}
    make = partial(Bridge, ours, rank == 0)
    speaker = threading.Thread(target=_speak, args=(os.path.abspath(contact), starter, more, make), daemon=True)
    speaker.start()
    result_log, descriptor = make_result_log()
    os.close(descriptor)
    with theirs:
        RankServer(theirs, result_log, int(ranks)).run()
    speaker.join()


def _speak(contact: str, starter: ParentPipe, more: dict[str, Any], make: partial[Bridge]) -> None:
    try:
        there = connect(contact, starter, more, make)
    except BaseException as error:
        sys.stderr.write(f"{error}\n")
        there = False
    if not there:  # nobody else would end this process, and the launcher ends the other ranks
        sys.stderr.flush()
        os._exit(1)


def own_gpus(environ: Mapping[str, str], each: int) -> dict[str, str]:
    """The variables by which a rank sees its own GPUs alone, of those that all ranks on its machine see."""
    local = next((int(environ[name]) for name in _LOCAL_RANK_VARIABLES if name in environ), 0)
    seen = {name: environ[name].split(",") for name in GPUS if environ.get(name)}
    return {name: ",".join(gpus[local * each : (local + 1) * each]) for name, gpus in seen.items()}


def _nothing() -> None:
    pass
