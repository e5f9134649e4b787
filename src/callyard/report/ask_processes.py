"""Questions to all processes of this user that have an executor on this machine; see `status_server`."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from time import monotonic
from typing import Any

from ..errors import CallyardError
from ..system.peers import is_own_user
from ..system.unix_sockets import make_directory
from .status_directory import PURPOSE, connected_or_removed, status_directory_here
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

    The answers come in the order of the processes.

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
        waiting: dict[str, bytearray] = {}
        for name in names:
            number = name.partition("-")[0]
            if number.isdecimal() and pid in (None, int(number)) and _ask(directory, name, question, stack, selector):
                waiting[name] = bytearray()
        return sorted(_answers(selector, waiting), key=lambda answer: answer.pid)  # each look in the same order


def _ask(
    directory: str, name: str, question: bytes, stack: contextlib.ExitStack, selector: selectors.BaseSelector
) -> bool:
    """Send the question to one process; return False if the process is gone, or another user's."""
    try:
        # A stopped process with a full queue of connections lets nobody in.
        sock = connected_or_removed(directory, name, _PATIENCE / 4)
        if sock is None:
            return False
        stack.enter_context(sock)
        if not is_own_user(sock):
            return False
        sock.sendall(question)
        selector.register(sock, selectors.EVENT_READ, name)
    except TimeoutError:  # it counts as one that does not answer
        return True
    except OSError:
        return False
    return True


def _answers(selector: selectors.BaseSelector, waiting: dict[str, bytearray]) -> Iterator[ProcessAnswer]:
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
                    yield _read(_pid_of(key.data), bytes(said))
    for name in waiting:
        pid = _pid_of(name)
        yield ProcessAnswer(pid, None, "is stopped" if _is_stopped(pid) else "does not answer")


def _pid_of(name: str) -> int:
    return int(name.partition("-")[0])


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
