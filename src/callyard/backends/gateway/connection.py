"""One connection to a gateway: the process of `ssh`, and the two ends of its streams."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
from collections import deque
from collections.abc import Callable, Sequence
from io import FileIO
from time import monotonic
from typing import IO, NamedTuple, cast

from ...errors import CallyardError
from .boot import Hello, check_versions, read_hello, script, ssh_command
from .message_streams import MessageReader, MessageWriter, Sinks, in_memory, is_readable
from .protocol import Message
from .ssh_words import NOTHING_HEARD, refusal_of

__all__ = ["Address", "Connection", "NoConnection"]

_START = 120.0  # s for the login, the start-up files of the shell there, and the start of Python
_WORDS = 40  # lines of ssh's that are kept
_END = 10.0  # s for ssh to end by itself
_LOOK = 0.2  # s between two looks whether the gateway is still wanted


class Address(NamedTuple):
    """Where a gateway runs, and how it is reached."""

    command: Sequence[str]  # the words of ssh
    destination: str
    directory: str
    python: str
    setup: Sequence[str]


class NoConnection(CallyardError):
    """No gateway was reached. `passes`: another attempt may go better without a person."""

    def __init__(self, sentence: str, passes: bool) -> None:
        super().__init__(sentence)
        self.passes = passes


class Connection:
    """A gateway that has begun, and whose versions fit.

    Args:
        address: where it runs.
        given_up: is asked while the gateway begins; if it says yes, the attempt ends.
        sinks: where the parts of large messages go.

    Raises:
        NoConnection: it was not reached.
        VersionMismatch: there is no Python there, or no Callyard, or another version.
    """

    def __init__(
        self, address: Address, given_up: Callable[[], bool] = lambda: False, sinks: Sinks = in_memory
    ) -> None:
        self._address, self._given_up = address, given_up
        self._words: deque[bytes] = deque(maxlen=_WORDS)
        self._process = _start(address)
        try:
            self._listener = threading.Thread(target=self._listen, name="callyard-gateway-words", daemon=True)
            self._listener.start()
            self.hello = self._begin()
        except BaseException:
            self.close(0.0)
            raise
        self.reader = MessageReader(cast("FileIO", self._process.stdout), sinks)
        self.writer = MessageWriter(_pipe(self._process.stdin).fileno())
        self._sender = threading.Thread(
            target=self.writer.run, args=(self._still_there,), name="callyard-gateway-sender", daemon=True
        )
        self._sender.start()

    # -- the beginning ---------------------------------------------------------------------------------

    def _begin(self) -> Hello:
        """Send the script, and wait for the line behind the mark; nothing more is sent before that."""
        mark = f"callyard-gateway-{os.urandom(12).hex()}"
        text = script(mark, self._address.python, self._address.directory, self._address.setup)
        with contextlib.suppress(BrokenPipeError):  # the reason is in ssh's own words
            stdin = _pipe(self._process.stdin)
            stdin.write(text.encode())
            stdin.flush()
        hello = self._hello(mark, monotonic() + _START)
        if hello is None:
            raise self._refused()
        check_versions(hello, self._address.destination, self._address.python)
        return hello

    def _hello(self, mark: str, until: float) -> Hello | None:
        """Return the answer, None at the end of ssh; all lines before the answer are the shell's."""
        stdout, line = _pipe(self._process.stdout).fileno(), bytearray()
        while monotonic() < until:
            if self._given_up():
                raise NoConnection(f"no connection to {self._address.destination}: nobody waits for it", passes=True)
            if not is_readable(stdout, _LOOK):
                continue
            # Byte by byte, as the bytes behind the line are messages.
            byte = os.read(stdout, 1)
            if not byte:
                return None
            line += byte
            if byte == b"\n":
                found = read_hello(bytes(line).strip(), mark)
                if found is not None:
                    return found
                line.clear()
        raise NoConnection(
            f"no gateway on {self._address.destination}: nothing was heard for {_START:g} s; perhaps a start-up file "
            "of the shell there (.bashrc) waits for something, or a connection that ssh shares (ControlMaster) is "
            f"dead: `ssh -O exit {self._address.destination}`",
            passes=True,
        )

    def _refused(self) -> NoConnection:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_END)
        self._listener.join(_END)
        sentence, passes = refusal_of(self.words(), self._process.returncode, self._address.destination)
        return NoConnection(sentence, passes)

    # -- while it lasts --------------------------------------------------------------------------------

    def words(self) -> str:
        """Return the last lines from ssh, and from the standard error of the gateway."""
        return b"".join(self._words.copy()).decode("utf-8", "replace")

    def receive(self) -> Message | None:
        """Wait for the next message; None at the end of the connection."""
        try:
            return self.reader.read()
        except OSError:
            self.reader.close()
            return None

    def _still_there(self) -> bool:
        """Return True unless nothing was heard for too long; then end ssh, and with it the wait for messages."""
        if not self.reader.is_silent():
            return True
        self._words.append(f"{NOTHING_HEARD}\n".encode())
        self._kill()
        return False

    def _listen(self) -> None:
        with _pipe(self._process.stderr) as stream:
            for line in stream:
                self._words.append(line[:2000])

    # -- the end ---------------------------------------------------------------------------------------

    def close(self, patience: float = _END) -> None:
        """End ssh, and return when its sender has ended; the gateway has this time to end by itself (s)."""
        if patience == 0.0:
            self._kill()
        if hasattr(self, "_sender"):
            self.writer.give_up() if patience == 0.0 else self.writer.close()
            self._sender.join()
        _pipe(self._process.stdin).close()  # what the gateway ends at
        try:
            self._process.wait(patience or _END)
        except subprocess.TimeoutExpired:
            self._kill()
            self._process.wait()
        # Something that the command of ssh has left behind, as an agent, may keep the stream of words open.
        self._listener.join(_END)
        for pipe in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(OSError):
                _pipe(pipe).close()

    def _kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)


def _start(address: Address) -> subprocess.Popen[bytes]:
    words = ssh_command(address.command, address.destination)
    try:
        # In a session of its own, as Ctrl-C is not meant for ssh; and so that a ProxyCommand ends with it.
        return subprocess.Popen(
            words,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            start_new_session=True,
        )
    except OSError as error:
        raise NoConnection(f"no connection to {address.destination}: {words[0]}: {error.strerror}", False) from error


def _pipe(stream: IO[bytes] | None) -> IO[bytes]:
    assert stream is not None, "the process was started with pipes"
    return stream
