"""One rank of a call on several nodes: a worker and an agent in one process.

    driver == transport/channel == Agent --> Bridge == socket pair == RankServer, which runs the function
              (a thread of this process)                         (the main thread, as MPI wants it)

The scheduler's own launcher starts the process, so that MPI finds the other ranks. The process runs one call.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
from functools import partial
from typing import TYPE_CHECKING

from ..pool.call_errors import StartError
from ..pool.call_shape import WorkerShape
from ..pool.mpi_results import words_of_no_mpi
from ..pool.worker import Worker
from ..pool.worker_connection import WorkerConnection
from ..pool.worker_events import finish
from ..pool.worker_placement import WorkerPlacement
from ..schedulers.job_environment import current_job
from ..serialize.packer import Packer
from ..serialize.shared_memory import SegmentPool
from ..system.processes import default_signals, open_standard_descriptors
from ..transport.event_loop import WRITE, EventLoop
from ..transport.frames import NO_MPI, RESULT, Frame
from ..transport.result_log import make_result_log
from ..worker.communicator import join_world
from ..worker.current_call import running
from ..worker.end_sequence import GRACE
from ..worker.mpi_rank import RankServer, gpus_by_local_rank, rank_in
from ..worker.rank_end import TERM, RankEnd
from .agent import Agent
from .hello import Hello, RankPlace, this_hello
from .run_agent import ParentPipe, connect

if TYPE_CHECKING:
    from ..pool.call import Call
    from ..transport.stream import FrameStream


class Bridge:
    """The runner of one call, in the place of a worker pool.

    It hands the call to the main thread, over a socket pair.
    """

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
        self._end: RankEnd | None = None  # of the call, once it has begun

    def prepare(self) -> None:
        connection, loop = self._connection, self._loop
        self._beside.watch(loop)
        loop.watch(connection.stream.sock, self._on_readable)
        # The greeting first: a worker reads the settings before any call.
        connection.greet(self._initializer)
        connection.handed_over()  # the other end is in this same process

    def join(self) -> None:
        """Serve in this thread until the driver sends END."""
        while not self._over:
            if self._end is not None:
                self._end.send_due()
            if not self._beside.before_waiting():
                self._loop.step(None if self._end is None else self._end.patience())
        self._connection.leave()
        self._loop.close()

    def start(self, call: Call) -> None:
        now, job_ends = time.monotonic(), current_job().ends
        if call.plan.run_time is not None:
            call.deadline = now + call.plan.run_time
        ends = [call.deadline, None if job_ends is None else job_ends - time.time() + now]
        until = min((at for at in ends if at is not None), default=None)
        self._end = RankEnd(call.plan.options, call.deadline, until, GRACE)
        self._connection.send([call])
        for end in self._connection.refused():
            finish(*end)

    def cancel_waiting(self, all_of_them: bool) -> None:
        """Do nothing: no call waits here."""

    def let_idle_workers_go(self) -> None:
        """Do nothing: there are no idle workers."""

    def signal(self, signum: int) -> None:
        """End the call: by SIGTERM and in its grace, or at once, and then the launcher ends the other ranks."""
        if signum == signal.SIGTERM and self._end is not None:
            self._end.hear(TERM)
        else:
            os.kill(os.getpid(), signal.SIGKILL)

    def close(self) -> None:
        self._over = True

    def _on_blocked(self, stream: FrameStream) -> None:
        self._loop.also_write(stream.sock, True)

    def _on_readable(self, mask: int) -> None:
        connection = self._connection
        if mask & WRITE and connection.stream.flush():
            self._loop.also_write(connection.stream.sock, False)
        arrived = connection.receive()
        # Before `take_frames`, which takes the call out.
        for call in list(connection.in_flight.values()):
            self._warn_of_no_mpi(call, arrived)
        for call, packed, failed in connection.take_frames(connection, arrived):
            if call.asks_again:
                call.future.pass_again_on(packed, failed)
            else:
                finish(call, packed, failed)
        connection.catch_up()
        if connection.initializer_error is not None:
            for call in connection.take_unfinished()[1]:
                call.future.fail(StartError(call, connection.initializer_error, None, None))
        if connection.ended:
            self._loop.forget(connection.stream.sock)

    def _warn_of_no_mpi(self, call: Call, arrived: list[Frame]) -> None:
        for kind, _, _, flags, _ in arrived:
            if self._first and kind == RESULT and flags & NO_MPI:
                self._beside.warn(words_of_no_mpi(call.future.name, call.plan.shape.ranks))


def main() -> None:
    """Run as `python -c "... main()" CONTACT CALL RANKS GPUS_PER_RANK`, by the launcher, once for each rank."""
    contact, call, ranks, gpus = sys.argv[1:]
    default_signals()
    open_standard_descriptors()
    if gpus:  # else the launcher has bound them
        os.environ.update(gpus_by_local_rank(os.environ, int(gpus)))
    parent = ParentPipe()
    parent.watch()  # before MPI, which may wait for other ranks for ever
    ours, theirs = socket.socketpair()
    world = join_world()  # in this thread, as MPI wants it
    rank = rank_in(world)
    hello = this_hello(rank=RankPlace(int(call), rank, world))
    make_runner = partial(Bridge, ours, rank == 0)
    agent = threading.Thread(target=_serve, args=(os.path.abspath(contact), parent, hello, make_runner), daemon=True)
    agent.start()
    result_log, descriptor = make_result_log()
    os.close(descriptor)  # no other process maps the log of a rank
    running.listen_in_worker(hands_over_later=True)
    with theirs:
        RankServer(theirs, result_log, int(ranks)).run()
    agent.join()  # until the driver has the result


def _serve(contact: str, parent: ParentPipe, hello: Hello, make_runner: partial[Bridge]) -> None:
    try:
        there = connect(contact, parent, hello, make_runner)
    except BaseException as error:
        sys.stderr.write(f"{error}\n")
        there = False
    if not there:  # the main thread would wait for ever; after an exit the launcher ends the other ranks
        sys.stderr.flush()
        os._exit(1)


def _nothing() -> None:
    pass
