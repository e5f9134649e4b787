"""The start of a worker: in a fork of the zygote, or as a fresh interpreter in the process of such a fork."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
from struct import Struct
from typing import NoReturn

from ..system.process_title import set_title
from ..system.processes import die_with_parent, leave_quickly
from ..transport.result_log import ResultLog
from .current_call import running
from .guard import get_guard
from .serve import Server

BIRTH = Struct("<II")  # the number of a worker and its process id


class BecomeWorker(BaseException):
    """Raised in a forked worker, to leave the zygote's frames behind before the worker begins."""

    def __init__(self, stream: socket.socket, log_fd: int, guard: socket.socket | None) -> None:
        self.stream, self.log_fd, self.guard = stream, log_fd, guard


def begin_worker(
    zygote: int,
    number: int,
    births: int,
    descriptors: list[int],
    environment: dict[str, str],
    argv: list[str] | None,
) -> NoReturn:
    """In a fork of the zygote, become a worker, and report this to `births`.

    The worker serves the stream and the result log in `descriptors`. With `argv`, the process becomes a fresh
    interpreter.
    """
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for signum in (signal.SIGTERM, signal.SIGHUP):  # before a fresh start: an ignored signal would stay ignored
        signal.signal(signum, signal.SIG_DFL)
    guard = get_guard(zygote, [*descriptors, births])
    # On Linux `get_guard` has forked: the parent is the guard, and this process the worker, whose number it tells.
    os.write(births, BIRTH.pack(number, os.getpid()))
    set_title("worker")
    os.close(births)
    os.environ.clear()
    os.environ.update(environment)
    if argv is not None:
        if descriptors and guard is not None:  # ranks get none, as a launcher stands between
            descriptors = [guard.fileno(), *descriptors]
        for fd in descriptors:
            os.set_inheritable(fd, True)  # otherwise closed by the fresh start
        try:
            os.execvpe(argv[0], [*argv, *map(str, descriptors)], environment)
        except OSError as error:
            os.write(2, f"callyard: cannot start {argv[0]}: {error}\n".encode())
            os._exit(127)
    raise BecomeWorker(socket.socket(fileno=descriptors[0]), descriptors[1], guard)


def serve(stream: socket.socket, log_fd: int, guard: socket.socket | None) -> None:
    """Be a worker until the driver closes the stream; then end as any program does."""
    if guard is not None:
        from .call_output import listen  # here, as a process that starts with an exec may have no guard

        listen(guard)
    result_log = ResultLog(log_fd)
    os.close(log_fd)
    running.listen_in_worker(result_log.stopped)
    with stream, contextlib.suppress(BrokenPipeError, ConnectionResetError):
        Server(stream, result_log).run()
    leave_quickly()


def serve_alone() -> None:
    """Run as `python -c "... serve_alone()" SCRIPT [GUARD] STREAM LOG`: a worker that was started, not forked."""
    die_with_parent(os.getppid())
    set_title("worker", sys.argv.pop(1))
    guard = socket.socket(fileno=int(sys.argv[1])) if len(sys.argv) > 3 else None
    log_fd, stream_fd = int(sys.argv.pop()), int(sys.argv.pop())
    del sys.argv[1:]
    serve(socket.socket(fileno=stream_fd), log_fd, guard)
