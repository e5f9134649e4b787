"""The zygote: forks the workers of one node, watches over them, and ends them when the driver is gone.

It is started once, imports what every worker needs and nothing of the user's, has one thread, and forks a worker
in a millisecond or two. Being beside the workers and free of user code, it also keeps their limits: a slow callback
in the driver delays no time limit.

All ends are watched twice. The zygote sees the driver's end by a pidfd and by the end of the stream (a fork of the
user's may hold the other end open). A worker sees it by its own stream, and dies with the zygote (PDEATHSIG).
"""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import pickle
import selectors
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any, NoReturn

from ..system.processes import become_subreaper, children, die_with_parent, exit_code, leave_quickly, watch_end
from ..wire import frames
from ..wire.ledger import Ledger
from .endings import ROOM
from .limits import Limits
from .messages import END, EXITED, KILL, SPAWN, SPAWNED, UNWATCH, UNWATCHED, WATCH, WITHDRAW, WITHDRAWN
from .serve import Server

_AGAIN = 1.0  # s after which what was killed at the end is killed again


class _Become(BaseException):
    """Raised in a forked worker, so that it leaves the zygote's frames behind before it begins."""

    def __init__(self, sock: socket.socket, ledger_fd: int) -> None:
        self.sock, self.ledger_fd = sock, ledger_fd


class _Worker:
    """What the zygote knows of a worker."""

    __slots__ = ("directory", "ledger", "number", "pid", "reason")

    def __init__(self, number: int, pid: int, ledger: Ledger | None, directory: str) -> None:
        self.number, self.pid, self.ledger, self.directory = number, pid, ledger, directory
        self.reason: str | None = None  # why it was killed here


class Zygote:
    def __init__(self, sock: socket.socket, driver: int, watched: int | None) -> None:
        """`watched`: a descriptor that is readable when the process `driver` has ended."""
        sock.setblocking(True)  # whoever made it may have changed the default, or how sockets work
        self.sock = sock
        self.limits = Limits(driver)
        self.reader = frames.FrameReader()
        self.workers: dict[int, _Worker] = {}  # by number
        self.by_pid: dict[int, _Worker] = {}
        self.ending: float | None = None  # when to end what is left
        self.selector = selectors.DefaultSelector()
        self.selector.register(sock, selectors.EVENT_READ, self.listen)
        self.driver = watched
        if self.driver is not None:
            self.selector.register(self.driver, selectors.EVENT_READ, self.driver_gone)
        self.wake_read, self.wake_write = os.pipe()
        for fd in (self.wake_read, self.wake_write):
            os.set_blocking(fd, False)
        self.selector.register(self.wake_read, selectors.EVENT_READ, self.child_changed)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self.wake_write, warn_on_full_buffer=False)
        self._actions: dict[int, Callable[..., None]] = {
            SPAWN: self.spawn,
            WATCH: self.watch,
            UNWATCH: self.unwatch,
            KILL: self.kill,
            WITHDRAW: self.withdraw,
            END: self.end,
        }

    def run(self) -> NoReturn:
        loaded = False
        while True:
            first = bool(self.by_pid) and not loaded
            ready = self.selector.select(0 if first else self.patience())
            if first and not ready:  # the first workers are on their way
                loaded = _load_for_the_next()
            for key, _ in ready:
                key.data()
            self.keep_limits(time.monotonic())
            if self.ending is not None and not self.by_pid:
                self.leave()

    # -- what the driver says --------------------------------------------------------------------------

    def listen(self) -> None:
        try:
            data = frames.receive(self.sock, self.reader)
        except OSError as error:
            if error.errno in frames.SCARCE:  # it can be read later
                return
            data = b""
        if not data:
            self.driver_gone()
        for kind, _, _, _, body in self.reader.feed(data):
            self._actions[kind](*pickle.loads(body))

    def say(self, kind: int, *content: Any) -> None:
        with contextlib.suppress(OSError):  # the driver has gone; the selector will say so
            self.sock.sendall(frames.encode_object(kind, content))

    def spawn(self, number: int, environment: dict[str, str], argv: list[str] | None, directory: str) -> None:
        """Fork a worker. With `argv` it starts afresh.

        The stream and the ledger came as descriptors. Ranks have none: they find their socket in `directory`, which
        must not be left behind.
        """
        descriptors = self.reader.take(0 if directory else 2)
        zygote = os.getpid()
        try:
            if descriptors is None:
                raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
            ledger = Ledger(descriptors[1]) if descriptors else None  # first: nothing may fail beside a worker
            pid = os.fork()
        except OSError as error:  # no more processes, memory or descriptors: it is not to be had, the others go on
            for fd in descriptors or ():
                os.close(fd)
            if directory:
                _remove(directory)
            self.say(EXITED, number, None, f"it cannot be forked: {error}; {ROOM}")
            return
        if pid == 0:
            self.become(zygote, descriptors, environment, argv)
        for fd in descriptors:
            os.close(fd)
        self.workers[number] = self.by_pid[pid] = _Worker(number, pid, ledger, directory)
        self.say(SPAWNED, number, pid)

    def become(
        self, zygote: int, descriptors: list[int], environment: dict[str, str], argv: list[str] | None
    ) -> NoReturn:
        """In the fork: be a worker, with nothing of the zygote's."""
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for signum in (signal.SIGTERM, signal.SIGHUP):  # before it starts afresh: what is ignored stays so
            signal.signal(signum, signal.SIG_DFL)
        os.setsid()
        die_with_parent(zygote)
        self.selector.close()
        self.sock.close()
        for fd in (self.wake_read, self.wake_write, self.driver):
            if fd is not None:
                os.close(fd)
        os.environ.clear()
        os.environ.update(environment)
        if argv is not None:
            for fd in descriptors:
                os.set_inheritable(fd, True)
            try:
                os.execvpe(argv[0], [*argv, *map(str, descriptors)], environment)
            except OSError as error:
                os.write(2, f"penstock: cannot start {argv[0]}: {error}\n".encode())
                os._exit(127)
        raise _Become(socket.socket(fileno=descriptors[0]), descriptors[1])

    def watch(self, number: int, run_time: float | None, memory: int | None, deadline_of: str = "run_time") -> None:
        """Keep the limits of the call that the worker is about to run."""
        worker = self.workers.get(number)
        if worker is not None:
            deadline = None if run_time is None else time.monotonic() + run_time
            self.limits.watch(worker.pid, deadline, memory, deadline_of)

    def unwatch(self, number: int) -> None:
        """The call is over. After the answer no limit of it can hit the next one."""
        worker = self.workers.get(number)
        if worker is not None and worker.reason is None:
            self.limits.unwatch(worker.pid)
            self.say(UNWATCHED, number)

    def kill(self, number: int, signum: int) -> None:
        worker = self.workers.get(number)
        if worker is not None:
            _signal_group(worker.pid, signum)

    def withdraw(self, number: int, last: int) -> None:
        """Take back the calls up to `last` that the worker has not begun, and the results that it has not sent."""
        worker = self.workers.get(number)
        if worker is None or worker.ledger is None:
            return
        os.kill(worker.pid, signal.SIGSTOP)
        _, status = os.waitpid(worker.pid, os.WUNTRACED)
        if not os.WIFSTOPPED(status):
            self.exited(worker, status)
            return
        begun, unsent = worker.ledger.withdraw(last), worker.ledger.unsent()
        os.kill(worker.pid, signal.SIGCONT)
        self.say(WITHDRAWN, number, (begun, unsent))

    def end(self, grace: float) -> None:
        """The workers have been told to end; what is left after `grace` seconds is killed."""
        self.ending = time.monotonic() + grace

    # -- what happens ----------------------------------------------------------------------------------

    def child_changed(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self.wake_read, 1 << 10)
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if pid == 0:
                break
            worker = self.by_pid.get(pid)
            if worker is not None:
                self.exited(worker, status)
        self.end_orphans()

    def exited(self, worker: _Worker, status: int) -> None:
        del self.by_pid[worker.pid], self.workers[worker.number]
        if worker.directory:
            _remove(worker.directory)
        _signal_group(worker.pid, signal.SIGKILL)  # what it started and left in its process group
        if worker.ledger is not None:
            worker.ledger.close()
        by_the_kernel = self.limits.ended(worker.pid)
        self.say(EXITED, worker.number, exit_code(status), worker.reason or by_the_kernel)

    def end_orphans(self) -> None:
        """End what dead workers left: being a subreaper, this process has become its parent.

        What has left its session too may be of a worker that lives; it is ended with the last of them.
        """
        for pid in children():
            if pid in self.by_pid:
                continue
            with contextlib.suppress(ProcessLookupError):
                session = os.getsid(pid)
                if session not in self.by_pid and (session != pid or not self.by_pid):
                    _killed(pid)

    def driver_gone(self) -> NoReturn:
        directories = [worker.directory for worker in self.by_pid.values() if worker.directory]
        for pid in self.by_pid:
            _signal_group(pid, signal.SIGKILL)
        self.leave(directories)

    def leave(self, directories: Iterable[str] = ()) -> NoReturn:
        """End, but not before everything that the workers left has ended; then nobody writes there any more."""
        while sum(_killed(pid) for pid in {*self.by_pid, *children()}):  # not any(): that stops at the first
            pid, _ = os.waitpid(-1, 0)
            self.by_pid.pop(pid, None)
        for directory in directories:
            _remove(directory)
        os._exit(0)

    # -- limits ----------------------------------------------------------------------------------------

    def patience(self) -> float | None:
        """For how long nothing needs to be looked at, in s."""
        now = time.monotonic()
        times = [] if self.ending is None else [max(0.0, self.ending - now)]
        limits = self.limits.patience(now)
        return min([*times, *([] if limits is None else [limits])], default=None)

    def keep_limits(self, now: float) -> None:
        for pid, reason in self.limits.exceeded(now).items():
            self.stop(self.by_pid[pid], reason)
        if self.ending is not None and now >= self.ending:
            self.ending = now + _AGAIN
            for worker in self.by_pid.values():
                self.stop(worker, "end")

    def stop(self, worker: _Worker, reason: str) -> None:
        worker.reason = worker.reason or reason
        _signal_group(worker.pid, signal.SIGKILL)


def _load_for_the_next() -> bool:
    """Import what the first workers load when they need it, so that the next find it: it takes as long as the rest."""
    from ..wire import building, functions  # noqa: F401

    gc.freeze()  # what is here now is the same in every worker: the collector need not touch its pages
    return True


def _remove(directory: str) -> None:
    import shutil  # here, because few workers have a directory

    shutil.rmtree(directory, ignore_errors=True)


def _signal_group(pid: int, signum: int) -> None:
    try:
        os.killpg(pid, signum)
    except (ProcessLookupError, PermissionError):  # not a leader yet, or all of it has ended
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signum)


def _killed(pid: int) -> bool:
    """Whether it could be killed; what runs as another user (`sudo`) can not."""
    try:
        os.kill(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def main() -> None:
    """Run as `python -c "... main()" SOCKET DRIVER`: the zygote first, in its forks a worker each."""
    sock, driver = socket.socket(fileno=int(sys.argv[1])), int(sys.argv[2])
    become_subreaper()
    watched = watch_end(driver)
    if watched is None:
        die_with_parent(driver)
    elif os.getppid() != driver:  # it had ended before it was watched
        os._exit(1)
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, signal.SIG_IGN)  # it ends with the driver, not with the terminal
    try:
        Zygote(sock, driver, watched).run()
    except _Become as worker:
        stream, ledger_fd = worker.sock, worker.ledger_fd
    serve(stream, ledger_fd)


def serve(stream: socket.socket, ledger_fd: int) -> None:
    """Be a worker until the driver closes the stream; then end as any program does."""
    ledger = Ledger(ledger_fd)
    os.close(ledger_fd)
    with stream, contextlib.suppress(BrokenPipeError, ConnectionResetError):
        Server(stream, ledger).run()
    leave_quickly()


def serve_alone() -> None:
    """Run as `python -c "... serve_alone()" STREAM LEDGER`: a worker that was not forked but started."""
    die_with_parent(os.getppid())
    ledger_fd, stream_fd = int(sys.argv.pop()), int(sys.argv.pop())
    serve(socket.socket(fileno=stream_fd), ledger_fd)
