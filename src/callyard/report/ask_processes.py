"""Questions to all processes of this user that have an executor on this machine; see `status_server`."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import selectors
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from time import monotonic
from typing import Any

from ..errors import CallyardError
from ..system.peers import is_own_user
from ..system.unix_sockets import make_directory, socket_in
from .status_directory import PURPOSE, VARIABLE, status_directory_here
from .status_server import PROTOCOL

__all__ = ["ProcessAnswer", "ask_all"]

_PATIENCE = 1.0  # s for all of them together
_CHUNK = 1 << 18


@dataclass(frozen=True)
class ProcessAnswer:
    """What a process has answered.

    Attributes:
        pid: the process.
        answer: the answer; None without one in time.
        problem: why there is none, in words that go on from "process 4711"; "" with an answer.
    """

    pid: int
    answer: Mapping[str, Any] | None
    problem: str = ""


def ask_all(ask: str, pid: int | None = None, **more: Any) -> list[ProcessAnswer]:
    """Ask all processes at once, or one of them, and wait for a second at most; remove the sockets of dead ones.

    Raises:
        CallyardError: others may enter the directory of the sockets, so that no process listens there.
    """
    directory = status_directory_here()
    try:
        names = sorted(os.listdir(make_directory(directory, PURPOSE)))
    except OSError as error:
        if os.path.lexists(directory):
            raise CallyardError(f"executors cannot be asked: {error}") from error
        return []  # nobody could make it
    question = json.dumps({"protocol": PROTOCOL, "ask": ask, **more}).encode() + b"\n"
    with contextlib.ExitStack() as stack, selectors.DefaultSelector() as selector:
        waiting: dict[int, bytearray] = {}
        for name in names:
            number = name.partition("-")[0]
            if number.isdecimal() and pid in (None, int(number)):
                sock = _connected(directory, name, question)
                if sock is not None:
                    stack.enter_context(sock)
                    selector.register(sock, selectors.EVENT_READ, int(number))
                    waiting[int(number)] = bytearray()
        return list(_answers(selector, waiting))


def _connected(directory: str, name: str, question: bytes) -> socket.socket | None:
    """Send the question to one process; remove its socket, and return None, if it is dead."""
    sock = socket.socket(socket.AF_UNIX)
    try:
        sock.settimeout(_PATIENCE / 4)  # a stopped process with a full queue of connections lets nobody in
        with socket_in(directory, name, VARIABLE) as path:
            sock.connect(path)
        if not is_own_user(sock):
            raise PermissionError(errno.EPERM, "the process belongs to another user")
        sock.sendall(question)
    except (ConnectionRefusedError, FileNotFoundError):
        sock.close()
        with contextlib.suppress(OSError):
            os.unlink(os.path.join(directory, name))
        return None
    except TimeoutError:  # it counts as one that does not answer
        return sock
    except OSError:
        sock.close()
        return None
    return sock


def _answers(selector: selectors.BaseSelector, waiting: dict[int, bytearray]) -> Iterator[ProcessAnswer]:
    until = monotonic() + _PATIENCE
    while waiting and (left := until - monotonic()) > 0:
        for key, _ in selector.select(left):
            sock: Any = key.fileobj
            try:
                part = sock.recv(_CHUNK)
            except OSError:
                part = b""
            said = waiting[key.data]
            said += part
            if not part or said.endswith(b"\n"):
                selector.unregister(sock)
                del waiting[key.data]
                if part:
                    yield _read(key.data, bytes(said))
    for pid in waiting:
        yield ProcessAnswer(pid, None, "is stopped" if _is_stopped(pid) else "does not answer")


def _read(pid: int, said: bytes) -> ProcessAnswer:
    try:
        answer = json.loads(said)
        known = answer["protocol"] == PROTOCOL
    except (ValueError, KeyError, TypeError):
        return ProcessAnswer(pid, None, "has given an answer that makes no sense")
    if not known:
        return ProcessAnswer(pid, None, f"is of Callyard {answer.get('version')}, which answers otherwise")
    return ProcessAnswer(pid, answer)


def _is_stopped(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[0] in (b"T", b"t")
    except (OSError, IndexError):
        return False
