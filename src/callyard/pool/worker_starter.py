"""Starts of workers: the zygote, a connection for each worker, and the fate of calls where there is no room."""

from __future__ import annotations

import socket
from collections.abc import Callable
from functools import partial

from ..errors import WorkerLost
from ..serialize.packer import Packer
from ..system.exit_status import ROOM
from ..transport.event_loop import EventLoop, Handler
from .dispatcher import AnyConnection, Dispatcher, decide_again
from .mpi_group import RankGroup
from .worker import Worker
from .worker_connection import WorkerConnection
from .worker_events import WorkerEvents
from .zygote_connection import ZygoteProcess

_START_AGAIN = 5.0  # s after which more workers are tried where some could not be started


class WorkerStarter:
    """The starts of the workers that the placement wants, in the I/O thread; its loop then listens to the workers."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        events: WorkerEvents,
        loop: EventLoop,
        packer: Packer,
        initializer: bytes | None,
        wake: Callable[[], object],
    ) -> None:
        self._dispatcher, self._events, self._loop = dispatcher, events, loop
        self._packer, self._initializer, self._wake = packer, initializer, wake

    def start_all(self) -> None:
        """Start the workers in `starting`. Each stays there until it has a connection, for `_put_in_order` to find."""
        starting = self._dispatcher.starting
        while starting:
            worker = starting[0]
            try:
                self._start(worker)
            except OSError as error:
                self._not_started(worker, error)
            starting.pop(0)

    def _start(self, worker: Worker) -> None:
        dispatcher, streams = self._dispatcher, self._events.streams
        # In this thread: the kernel ends the zygote with the thread of the start, see ZygoteProcess.
        if dispatcher.zygote is None:
            zygote = ZygoteProcess(streams.add)
            self._watch_or_close(zygote.stream.sock, self._events.on_zygote, zygote)
            dispatcher.zygote = zygote
        made: AnyConnection
        if worker.shape.ranks > 1:
            made = group = RankGroup(worker, self._packer, streams.add, self._wake)
            self._watch_or_close(group.listener, partial(self._events.on_rank_connecting, group), group)
        else:
            made = connection = WorkerConnection(worker, self._packer, streams.add, self._wake)
            on_worker = partial(self._events.on_worker, connection, connection)
            self._watch_or_close(connection.stream.sock, on_worker, connection)
        # Under the lock, as all sending; the connection first, for `_put_in_order` to find.
        with dispatcher.lock:
            dispatcher.connections[worker.number] = made
            descriptors = made.greet(self._initializer)
            dispatcher.running_zygote.spawn(worker, descriptors, made.address)

    def _watch_or_close(self, sock: socket.socket, handler: Handler, owner: ZygoteProcess | AnyConnection) -> None:
        try:
            self._loop.watch(sock, handler)
        except OSError:
            owner.close()
            raise

    def _not_started(self, worker: Worker, error: OSError) -> None:
        """Give up a worker without a descriptor or process; fail the calls that have no other worker to wait for."""
        with self._dispatcher.lock:
            self._dispatcher.run_deferred()
            connection = self._dispatcher.lose(worker)
            given_up = self._dispatcher.not_started(worker, scarce=True)
        self._dispatcher.inbox.append(decide_again)
        if connection is not None:
            for sock in connection.sockets():
                self._loop.forget(sock)
            connection.close()
        # Without the lock, because the ends of futures run callbacks.
        for call in given_up:
            broken = WorkerLost(f"no worker could be started for {call.future.name!r}: {error}; {ROOM}")
            broken.__cause__ = error
            call.future.fail_with(broken)

    # -- where there was no room -----------------------------------------------------------------------

    def patience(self) -> float | None:
        """Return the seconds until more workers are tried; None if all wanted ones were started."""
        return _START_AGAIN if self._dispatcher.placement.held_back else None

    def retry(self, now: float) -> None:
        """Want more workers again after a while, because the system may have room for them by now."""
        dispatcher = self._dispatcher
        if dispatcher.placement.held_back and now - dispatcher.start_failed_at >= _START_AGAIN:
            dispatcher.start_failed_at = now
            dispatcher.inbox.append(dispatcher.placement.try_again)
