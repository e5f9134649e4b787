"""The daemon's socket: commands come in, answers go out, and in between jobs are started and their ends noted."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import socket
import time
from typing import Any

from ..hosts.daemon import PROTOCOL, socket_in
from ..system.peers import is_own_user
from ..version import VERSION
from .answers import Commands
from .job_runner import JobRunner

__all__ = ["Server"]

_IDLE = 60.0  # s without jobs and commands, after which the daemon ends
_CHUNK = 1 << 18
_LARGEST = 1 << 30  # bytes of a command
_TIDYING = 3600.0  # s between two looks for old jobs


class _Client:
    def __init__(self, sock: socket.socket) -> None:
        self.sock, self.said, self.answer = sock, bytearray(), memoryview(b"")


class Server:
    """The loop of the daemon."""

    def __init__(self, directory: str, runner: JobRunner, commands: Commands, selector: selectors.BaseSelector) -> None:
        self._directory, self._runner, self._commands, self._selector = directory, runner, commands, selector
        self._clients: dict[int, _Client] = {}
        self._stopped = False
        self._wakes, wake = os.pipe()
        for descriptor in (self._wakes, wake):
            os.set_blocking(descriptor, False)
        selector.register(self._wakes, selectors.EVENT_READ)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGTERM, self._stop)
        self._listener = socket.socket(socket.AF_UNIX)

    def _stop(self, *_: object) -> None:
        self._stopped = True

    def listen(self) -> None:
        """Open the socket. This process has the lock of the directory, so a socket that is there is a dead one's."""
        with socket_in(self._directory) as path:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            self._listener.bind(path)
        self._listener.listen(128)
        self._listener.setblocking(False)
        self._selector.register(self._listener, selectors.EVENT_READ)

    def run(self) -> None:
        """Serve until there has been nothing to do for a while, or until told to end; jobs go on in any case."""
        idle_since = tidied = time.monotonic()
        while not self._stopped and not self._commands.stopped:
            self._runner.take_ends()
            self._runner.start()
            now = time.monotonic()
            if self._runner.table.busy or self._clients:
                idle_since = now
            elif now - idle_since >= _IDLE:
                break
            if now - tidied >= _TIDYING:
                self._runner.forget_old()
                tidied = now
            self._serve(self._patience(idle_since + _IDLE - now))
        self._leave()

    def _patience(self, idle: float) -> float | None:
        due, look = self._runner.table.due(), self._runner.patience()
        times = [] if due is None else [due - time.time()]
        times += [] if look is None else [look]
        times += [_TIDYING if self._runner.table.busy else idle]
        return max(0.0, min(times))

    def _serve(self, patience: float | None) -> None:
        for key, _ in self._selector.select(patience):
            if key.fileobj is self._listener:
                self._accept()
            elif key.fd == self._wakes:
                with contextlib.suppress(BlockingIOError):
                    os.read(self._wakes, _CHUNK)
            elif (client := self._clients.get(key.fd)) is not None:
                try:
                    self._go_on(client)
                except OSError:  # it has gone
                    self._let_go(client)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # it has gone, or there are too many
            sock, _ = self._listener.accept()
            sock.setblocking(False)
            if not is_own_user(sock):
                sock.close()
                return
            self._clients[sock.fileno()] = _Client(sock)
            self._selector.register(sock, selectors.EVENT_READ)

    def _go_on(self, client: _Client) -> None:
        if not client.answer:
            part = client.sock.recv(_CHUNK)
            client.said += part
            if not part or len(client.said) > _LARGEST:
                self._let_go(client)
                return
            if not part.endswith(b"\n"):
                return
            client.answer = memoryview(json.dumps(self._answered(bytes(client.said))).encode() + b"\n")
            self._selector.modify(client.sock, selectors.EVENT_WRITE)
        with contextlib.suppress(BlockingIOError):
            client.answer = client.answer[client.sock.send(client.answer) :]
        if not client.answer:
            self._let_go(client)

    def _answered(self, said: bytes) -> dict[str, Any]:
        head = {"protocol": PROTOCOL, "version": VERSION, "pid": os.getpid()}
        try:
            request = json.loads(said)
            known = request["protocol"] == PROTOCOL
            command, given, environment = request["command"], request["input"], request.get("environment", {})
        except (ValueError, KeyError, TypeError):
            return {**head, "code": 1, "out": "", "err": "this is no command"}
        if not known:
            return head
        code, out, err = self._commands.carry_out(command, given, environment)
        return {**head, "code": code, "out": out, "err": err}

    def _let_go(self, client: _Client) -> None:
        del self._clients[client.sock.fileno()]
        self._selector.unregister(client.sock)
        client.sock.close()

    def _leave(self) -> None:
        """Take the socket away before the lock: whoever finds none starts another daemon, which waits for the lock."""
        with contextlib.suppress(OSError), socket_in(self._directory) as path:
            os.unlink(path)
        for client in list(self._clients.values()):
            self._let_go(client)
        self._listener.close()
