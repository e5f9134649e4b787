"""Answers to `callyard status`: each process with an executor listens on a Unix socket in a directory of the user's.

    another process of the user                this process
    ------------------------------------------ ----------------------------------------------------------
    {"protocol": 1, "ask": "status"} --------> a thread that sleeps until somebody connects
    {"protocol": 1, "executors": [...]} <----- what each executor's backend tells

A question is one line of JSON, and so is the answer; nothing is unpickled. The directory lets no other user in, and
both ends look whose process the other one is. Without a question nothing is done: there is one thread that waits, and
one descriptor. They are there from the first executor of the process to the end of the last.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import socket
import sys
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from functools import partial
from itertools import count
from typing import Any, Protocol

from ..status.executor_status import ExecutorStatus
from ..system.peers import is_own_user
from ..system.process_title import script_name
from ..system.unix_sockets import make_directory, socket_in
from ..utils.locks import if_free, new_lock
from ..version import VERSION
from .status_directory import PURPOSE, VARIABLE, connected_or_removed, status_directory_here

__all__ = ["PROTOCOL", "ShownExecutor", "show", "wait_for_end"]

PROTOCOL = 1
_PATIENCE = 1.0  # s for a question to come, and for an answer to be taken
_LARGEST = 1 << 16  # bytes of a question
_MOST_LEFT = 100  # sockets in the directory before those of dead processes are looked for
_log = logging.getLogger("callyard")


class ShownExecutor(Protocol):
    """An executor as the answers need it."""

    def shown_status(self) -> ExecutorStatus:
        """Return the status at this moment."""

    def explain_call(self, number: int) -> str:
        """Return the sentence about a call that has not ended; "" if there is no such call."""

    def cancel_call(self, number: int | None, key: str) -> list[str]:
        """Cancel the call of this number, or those with a key that begins so; return what was done, in words."""


def _no_thread() -> None:
    return None


_lock = new_lock()  # only tried: whoever holds it looks again afterwards
_numbers = count(1)
_shown: dict[int, weakref.ref[Any]] = {}  # each change is atomic; a forked child has another one
_server: StatusServer | None = None
_thread: Callable[[], threading.Thread | None] = _no_thread  # a weak reference to the thread of the last server


def show(executor: ShownExecutor) -> Callable[[], object]:
    """Answer questions about an executor until it is gone, or the returned function is called."""
    number = next(_numbers)
    _shown[number] = weakref.ref(executor)
    hide = partial(_hide, _shown, number)
    weakref.finalize(executor, hide).atexit = False
    _start_or_stop()
    return hide


def _hide(shown: dict[int, weakref.ref[Any]], number: int) -> None:
    shown.pop(number, None)
    _start_or_stop()


def _start_or_stop() -> None:
    """Let there be a server while executors are shown.

    No thread waits here: a new thread may run a finalizer that comes here, while its starter holds the lock.
    """
    while bool(_shown) != (_server is not None) and if_free(_lock, _stop if _server is not None else _start):
        pass


def _start() -> bool:
    """Start the server if it is still wanted; return False if no directory, descriptor or thread is to be had."""
    global _server
    if _shown and _server is None:
        _server = server = StatusServer()
        try:
            server.start()
        except BaseException as error:
            server.stop()
            server.close()
            _server = None
            if isinstance(error, (OSError, RuntimeError)):
                return False
            raise
    return True


def _stop() -> bool:
    """Stop the server if nobody wants it any more."""
    global _server
    if not _shown and _server is not None:
        _server.stop()  # may be done twice, after an interruption
        _server = None
    return True


def wait_for_end() -> None:
    """Wait until the thread of a server that was stopped has ended, because the program may fork now.

    Only where no lock is held: see `_start_or_stop`.
    """
    thread = _thread()
    if _server is None and thread is not None and thread is not threading.current_thread():
        thread.join(_PATIENCE)
        # Python's thread is over before the system's is, and `os.fork` warns of the latter.
        until = time.monotonic() + _PATIENCE
        while os.path.exists(f"/proc/self/task/{thread.native_id}") and time.monotonic() < until:
            os.sched_yield()


def _stop_at_exit() -> None:
    if _server is not None:
        _server.stop()


def _in_forked_child() -> None:
    global _server, _thread, _lock, _numbers, _shown
    _thread = _no_thread
    _lock, _numbers, _shown = new_lock(), count(1), {}
    if _server is not None:
        _server.close()
        _server = None


class StatusServer:
    """The thread that answers, and its socket."""

    def __init__(self) -> None:
        self._path = ""
        self._stopped = False
        self._listener: socket.socket | None = None

    def start(self) -> None:
        """Listen.

        Raises:
            OSError: there is no directory for the socket, or no descriptor.
            RuntimeError: no thread can be started.
        """
        directory = make_directory(status_directory_here(), PURPOSE)
        name = f"{os.getpid()}-{os.urandom(4).hex()}"
        self._path = os.path.join(directory, name)
        self._listener = listener = socket.socket(socket.AF_UNIX)
        # Under its name only once it listens: whoever asks removes sockets on which nobody does.
        new = f".new-{name}"
        with socket_in(directory, new, VARIABLE) as path:
            listener.bind(path)
        listener.listen(16)
        os.rename(os.path.join(directory, new), self._path)
        global _thread
        thread = threading.Thread(target=self._run, args=(listener,), name="callyard-status", daemon=True)
        _thread = weakref.ref(thread)
        thread.start()

    def stop(self) -> None:
        """Take the socket away, and let the thread end. This does not wait."""
        self._stopped = True
        with contextlib.suppress(OSError):
            os.unlink(self._path)
        if self._listener is not None:
            # Where the system wakes nobody by this, the thread ends with the process.
            with contextlib.suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the socket where there is no such thread, as in a forked child."""
        if self._listener is not None:
            with contextlib.suppress(OSError):
                self._listener.close()

    def _run(self, listener: socket.socket) -> None:
        with listener:
            _remove_left(os.path.dirname(self._path))
            while not self._stopped:
                try:
                    client, _ = listener.accept()
                except OSError:
                    if not self._stopped:
                        time.sleep(_PATIENCE)  # too many descriptors are open
                    continue
                with client:
                    try:
                        if is_own_user(client):
                            self._serve(client)
                    except BaseException:  # the next question may be a better one; a failure's class may exit
                        _log.debug("a question could not be read, or its answer not be sent", exc_info=True)

    @staticmethod
    def _serve(client: socket.socket) -> None:
        client.settimeout(_PATIENCE)
        said = bytearray()
        while not said.endswith(b"\n"):
            part = client.recv(_LARGEST)
            said += part
            if not part or len(said) > _LARGEST:
                return
        import json  # here, because few programs are asked

        question = json.loads(said)
        if isinstance(question, dict):
            client.sendall(json.dumps(_answer(question), default=str).encode() + b"\n")


def _remove_left(directory: str) -> None:
    """Remove what killed processes have left, if that is much: perhaps nobody ever asks, who would do it."""
    with contextlib.suppress(OSError):
        names = [name for name in os.listdir(directory) if name[0].isdecimal()]  # others do not listen yet
        for name in names if len(names) > _MOST_LEFT else ():
            with contextlib.suppress(OSError):
                sock = connected_or_removed(directory, name, 0.0)
                if sock is not None:
                    sock.close()


# -- answers -------------------------------------------------------------------------------------------


def _answer(question: Mapping[str, Any]) -> dict[str, Any]:
    head = {"protocol": PROTOCOL, "version": VERSION, "pid": os.getpid(), "script": script_name(sys.argv) or "python"}
    if question.get("protocol") != PROTOCOL:
        return head
    step = _ANSWERS.get(str(question.get("ask")))
    if step is None:
        return {**head, "error": f"there is no question {question.get('ask')!r}"}
    try:
        return {**head, **step(question)}
    except Exception as error:
        _log.debug("a question could not be answered", exc_info=True)
        return {**head, "error": f"{type(error).__name__}: {error}"}


def _executors() -> dict[int, ShownExecutor]:
    found = {number: reference() for number, reference in list(_shown.items())}
    return {number: executor for number, executor in found.items() if executor is not None}


def _status(_: Mapping[str, Any]) -> dict[str, Any]:
    executors = [{"number": number, **each.shown_status().to_dict()} for number, each in _executors().items()]
    return {"executors": executors}


def _explain(question: Mapping[str, Any]) -> dict[str, Any]:
    executor = _executors().get(question["executor"])
    return {"sentence": "" if executor is None else executor.explain_call(question["call"])}


def _cancel(question: Mapping[str, Any]) -> dict[str, Any]:
    number, key = question.get("executor"), str(question.get("key", ""))
    chosen = [each for place, each in _executors().items() if number in (None, place)]
    return {"done": [words for each in chosen for words in each.cancel_call(question.get("call"), key)]}


_ANSWERS: dict[str, Callable[[Mapping[str, Any]], dict[str, Any]]] = {
    "status": _status,
    "explain": _explain,
    "cancel": _cancel,
}
os.register_at_fork(after_in_child=_in_forked_child)
atexit.register(_stop_at_exit)  # after the end of all threads that are no daemons, and so of all calls
