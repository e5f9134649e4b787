"""The daemon of this machine as the host for commands: they go to its Unix socket, and it is started on need.

A command is one line of JSON, and so is the answer. The daemon's directory lets no other user in, and both ends of the
socket look whose process the other one is.
"""

from __future__ import annotations

import errno
import json
import os
import socket
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from threading import Event
from time import monotonic, sleep
from typing import Any

from ..schedulers.command import Reply
from ..system.machine import GPUS
from ..system.machine_name import machine_name
from ..system.peers import is_own_user
from ..system.python_command import python_command
from ..system.unix_sockets import make_directory, socket_in
from ..utils.paths import daemons_directory
from ..version import VERSION

__all__ = ["PROTOCOL", "DaemonHost", "ask", "directory_here", "make_directory", "socket_in", "start_daemon"]

PROTOCOL = 1  # of requests and answers; another number is answered by "protocol" alone, in each version
_LOOK = 0.2  # s between two looks at `stop`
_BUSY = 0.05  # s before another attempt to connect
_START = 30.0  # s for the start of a daemon
_CHUNK = 1 << 18
_NOT_THERE = (errno.ENOENT, errno.ECONNREFUSED, errno.ENOTDIR)


class DaemonHost:
    """This machine, with the daemon as the one that carries out commands."""

    def __init__(self) -> None:
        self._directory = directory_here()  # of one daemon for all commands

    def environment(self) -> Mapping[str, str]:
        """Return the variables of this process, which the jobs that it submits get, too."""
        return os.environ

    def exists(self, path: str) -> bool:
        """Return True if there is a file at this path."""
        return os.path.exists(path)

    def run(
        self,
        argv: Sequence[str],
        *,
        timeout: float,
        env: Mapping[str, str] | None = None,
        stop: Event | None = None,
        stdin: str = "",
    ) -> Reply:
        """Have the daemon carry out a command, `argv[1]` with `stdin`; start the daemon if there is none.

        A command whose answer is lost is sent once more: the daemon carries out none twice.
        """
        request = {"command": argv[1], "input": stdin, "environment": dict(os.environ if env is None else env)}
        until, why = monotonic() + timeout, "it ended in the middle of an answer"
        try:
            directory = make_directory(self._directory)
            for _ in range(3):
                try:
                    return _reply(_asked(directory, request, until, stop))
                except OSError as error:
                    if error.errno not in _NOT_THERE:
                        raise
                    if why := start_daemon(directory):
                        return Reply(127, "", why)
                except EOFError:  # it has just ended
                    continue
        except TimeoutError:
            return Reply(None, "", "the daemon does not answer")
        except OSError as error:
            return Reply(127, "", str(error))
        return Reply(None, "", why)


def directory_here() -> str:
    """Return the directory of this machine's daemon: `CALLYARD_DAEMON`, or one of its own in the user's home."""
    home = daemons_directory()
    return os.environ.get("CALLYARD_DAEMON") or os.path.join(home, machine_name(home))


def ask(command: str, timeout: float) -> dict[str, Any] | None:
    """Return the answer of a running daemon; None if none runs here, or it does not answer."""
    with suppress(OSError, EOFError, ValueError):
        return _asked(directory_here(), {"command": command, "input": "{}"}, monotonic() + timeout, None)
    return None


def _asked(directory: str, request: dict[str, Any], until: float, stop: Event | None) -> dict[str, Any]:
    """Return the answer of the daemon.

    Raises:
        OSError: no daemon runs, or (TimeoutError) it has not answered in time.
        EOFError: it has ended.
    """
    with socket.socket(socket.AF_UNIX) as sock:
        _connect(sock, directory, until, stop)
        if not is_own_user(sock):
            raise PermissionError(f"the daemon in {directory} belongs to another user")
        data = json.dumps({"protocol": PROTOCOL, "version": VERSION, **request}).encode() + b"\n"
        try:
            return _exchanged(sock, data, until, stop)
        except (BrokenPipeError, ConnectionResetError):
            raise EOFError from None


def _connect(sock: socket.socket, directory: str, until: float, stop: Event | None) -> None:
    while True:
        _wait(sock, until, stop)
        with suppress(BlockingIOError), socket_in(directory) as path:
            sock.connect(path)
            return
        sleep(_BUSY)  # the daemon is busy, and as many others as the system lets wait do so


def _exchanged(sock: socket.socket, data: bytes, until: float, stop: Event | None) -> dict[str, Any]:
    view, answer = memoryview(data), bytearray()
    while view:
        _wait(sock, until, stop)
        with suppress(TimeoutError):
            view = view[sock.send(view[:_CHUNK]) :]
    while not answer.endswith(b"\n"):
        _wait(sock, until, stop)
        with suppress(TimeoutError):
            part = sock.recv(_CHUNK)
            if not part:
                raise EOFError
            answer += part
    found: dict[str, Any] = json.loads(answer)
    return found


def _wait(sock: socket.socket, until: float, stop: Event | None) -> None:
    """Let the next step on the socket take a moment; raise TimeoutError at the end of the time."""
    left = until - monotonic()
    if left <= 0 or (stop is not None and stop.is_set()):
        raise TimeoutError
    sock.settimeout(min(left, _LOOK))


def _reply(answer: dict[str, Any]) -> Reply:
    if answer.get("protocol") != PROTOCOL:
        return Reply(
            127,
            "",
            f"the daemon that runs here (process {answer.get('pid')}) is of Callyard {answer.get('version')}, and this "
            f"is {VERSION}, which speaks otherwise with it. Its jobs go on. Use that version, or wait: a minute after "
            "the end of its last job the daemon ends, and the next one is of your version",
        )
    return Reply(answer["code"], answer["out"], answer["err"])


# ------------------------------------------------------------------ the start


def start_daemon(directory: str) -> str:
    """Start a daemon, unless another process does so; return why there is none, or nothing.

    The started process returns when the daemon listens, and leaves it behind, in a session without a terminal.
    """
    # It serves all of the user's processes, whatever part of the machine this one may use.
    environment = {name: value for name, value in os.environ.items() if name not in GPUS}
    try:
        done = subprocess.run(
            python_command("callyard.daemon.run_daemon", "main", directory),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=environment,
            start_new_session=True,
            timeout=_START,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"no daemon started within {_START:g} s; see {directory}/log"
    except OSError as error:
        return f"the daemon cannot be started: {error}"
    if done.returncode:
        words = done.stderr.decode(errors="replace").strip().splitlines()
        return f"the daemon cannot be started: {words[-1] if words else f'exit code {done.returncode}'}"
    return ""
