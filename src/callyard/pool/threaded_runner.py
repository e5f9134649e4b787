"""The base of runners: their operations, and their life cycle with a thread, the interpreter's end and forks."""

from __future__ import annotations

import contextlib
import os
import socket
import weakref
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from ..events.recorder import Recorder
from ..futures import Future
from ..status.call_status import CallStatus, unfinished
from ..status.ended_calls import EndedCalls
from ..status.executor_status import ExecutorStatus
from ..transport.event_loop import IoThread
from ..utils import interpreter_exit
from .call import Call


class ThreadedRunner:
    """A runner of packed calls through an I/O thread: a worker pool, or the driver of several nodes.

    Any thread may use a runner at any moment. Subclasses define how calls run, and when the runner is done.

    The interpreter waits for the runner's calls before its end. A forked child has no I/O thread, so a copy of a runner
    can do nothing there; the copy must not hold connections open either, because their other ends would not notice the
    end of the original.

    Attributes:
        inputs_of: returns the futures among the arguments of a call that waits for them; None for any other call.
        recorder: is told where calls begin; None where nobody asks.
    """

    def __init__(self) -> None:
        self.forked = False  # True in a copy in a forked process
        self.ended_calls = EndedCalls()  # that failed or were cancelled; those with results are in `CallDurations`
        self.inputs_of: Callable[[Future[Any]], Sequence[Any] | None] = lambda future: None  # noqa: ARG005
        self.recorder: Recorder | None = None
        self._io = IoThread()

    def record_in(self, recorder: Recorder) -> None:
        """Tell this recorder where calls begin; before the first call."""
        self.recorder = recorder

    def _register(self) -> None:
        """Take part in forks and in the interpreter's end. The last step of a constructor: both may come at once."""
        _runners.add(self)
        interpreter_exit.register(self)

    def prepare(self) -> None:
        """Start the thread now, because a call is going to come."""
        raise NotImplementedError

    def start(self, call: Call) -> None:
        """Run the call once there is room.

        Raises:
            RuntimeError: no thread can be started.
        """
        raise NotImplementedError

    def look_again(self) -> None:
        """Decide again, because a call was cancelled or has ended elsewhere."""
        raise NotImplementedError

    def cancel_waiting(self, all_of_them: bool) -> None:
        """Cancel the calls that have not been sent; without `all_of_them`, spare calls with a starting worker."""
        raise NotImplementedError

    def close(self) -> None:
        """Take the present and the expected calls to their ends; then end."""
        raise NotImplementedError

    def kill(self, signum: int) -> None:
        """End the workers by a signal, and the runner. Running calls fail; the caller cancels waiting ones before."""
        raise NotImplementedError

    def status_of(self, future: Future[Any]) -> CallStatus | None:
        """Return the status of a call that has not ended; None if it is nowhere to be found. Any thread may ask."""
        status = self.placed(future)
        inputs = None if status is not None else self.inputs_of(future)
        if inputs is None:
            return status
        pending = unfinished(tuple(inputs))
        return CallStatus("waiting", "for a look into the cache" if not inputs else "for its turn", awaits=pending)

    def placed(self, future: Future[Any]) -> CallStatus | None:
        """Return the status of a call that waits for room, or runs; None for any other."""
        raise NotImplementedError

    def add_status(self, status: ExecutorStatus) -> None:
        """Add the calls that wait for room, or run, and the resources in use. Any thread may ask."""
        raise NotImplementedError

    def placed_calls(self) -> list[Call]:
        """Return the calls that wait for room, or run. Any thread may ask."""
        raise NotImplementedError

    def can_end(self, call: Call) -> bool:
        """Return True if this call can be ended alone while it runs."""
        return False

    def end_call(self, call: Call) -> bool:
        """End a running call, and cancel its future; return False if the call has ended. Only if `can_end`."""
        raise NotImplementedError

    def begin_end(self) -> None:
        """Begin to end with the interpreter, which waits for live calls."""
        if not self.forked:
            self.close()

    def wait_for_end(self) -> None:
        if not self.forked:
            self.join()

    def join(self) -> None:
        """Wait until everything has ended: processes, thread, sockets."""
        self._io.join()

    def after_fork(self) -> None:
        """Close this copy, in a forked child."""
        self.forked = True
        # Only closed, without any message: the sockets are shared with the original.
        loop = self._io.loop
        for sock in (*self.open_sockets(), *(() if loop is None else loop.sockets())):
            with contextlib.suppress(OSError):
                sock.close()

    def open_sockets(self) -> Iterable[socket.socket]:
        """Return the sockets of this runner, without the loop's."""
        return ()


_runners: weakref.WeakSet[ThreadedRunner] = weakref.WeakSet()


def _in_forked_child() -> None:
    for runner in list(_runners):
        runner.after_fork()


os.register_at_fork(after_in_child=_in_forked_child)
