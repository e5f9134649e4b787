"""The process of an agent, or of a rank: the connection to the driver, and the end with the driver or the parent.

`main` is run on each node, as `python -c "... main()" CONTACT [VARIABLES [TOKEN LOG LIMIT APART]]`.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import stat
import sys
import threading
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, NoReturn

from ..schedulers.job_environment import JOB_VARIABLES, current_job
from ..system.process_title import set_title
from ..system.processes import default_signals, open_standard_descriptors
from ..transport import agent_protocol
from ..transport.agent_protocol import json_frame, unwrap
from ..transport.channel import PeerGone
from ..transport.channel_messages import Message
from .agent import Agent, MakeRunner, adopt
from .agent_output import keep_output, log_path
from .hello import Hello, node_name, pilot_share, this_hello

if TYPE_CHECKING:
    from ..transport.channel import Link

_CONNECT = 60.0  # s for the driver to answer
_AGAIN = 20.0  # s for the driver to answer after a loss; then its nodes are given back
_LAST_WORDS = 5.0  # s in which the driver reads nothing of the last messages


class ParentPipe:
    """The parent of this process at the other end of standard input, which ends with the driver or its launcher.

    A thread waits for that end and does nothing else, so that no work of this process can delay the notice.
    """

    def __init__(self) -> None:
        self.all_sent = False  # the driver has all results

    def watch(self) -> None:
        with contextlib.suppress(OSError):
            kind = os.fstat(0).st_mode
            if stat.S_ISFIFO(kind) or stat.S_ISSOCK(kind):
                threading.Thread(target=self._wait, name="callyard-parent", daemon=True).start()

    def _wait(self) -> None:
        with contextlib.suppress(OSError):
            # Input means nothing; only its end does.
            while os.read(0, 1 << 12):
                pass
        os._exit(0 if self.all_sent else 1)  # the zygote notices, and ends the workers and their children


class DriverConnection:
    """The connection to the driver, before the start of an `Agent` and after its end."""

    def __init__(self, link: Link, parent: ParentPipe, hello: Hello, make_runner: MakeRunner | None = None) -> None:
        self._link, self._parent, self._hello, self._make_runner = link, parent, hello, make_runner
        self._unread: list[Message] = []

    def _wait_for(self, wanted: set[int], patience: float) -> tuple[int, bytes]:
        """Return the first frame of one of these kinds, a message of its own; keep later messages in `_unread`.

        The patience (s) begins anew whenever the driver takes bytes.
        """
        until, moved = time.monotonic() + patience, self._link.moved
        with selectors.DefaultSelector() as selector:
            selector.register(self._link.fileno(), selectors.EVENT_READ)
            while True:
                self._unread += self._link.receive()
                while self._unread:
                    for kind, _, _, _, body in agent_protocol.split_frames(self._unread.pop(0).head):
                        if kind in wanted:
                            return kind, body
                if self._link.moved > moved:
                    until, moved = time.monotonic() + patience, self._link.moved
                left = until - time.monotonic()
                if left < 0:
                    raise PeerGone(f"the driver has not answered for {patience:.0f} s")
                selector.select(left)

    def serve(self) -> None:
        """Be the agent of this driver until it sends END."""
        self._link.send(json_frame(agent_protocol.HELLO, self._hello.dump()))
        kind, body = self._wait_for({agent_protocol.WELCOME, agent_protocol.REFUSED}, _CONNECT)
        if kind == agent_protocol.REFUSED:
            _give_up(json.loads(body))
        head, parts = unwrap(body, iter(()))
        adopt(head["surroundings"])
        agent = Agent(self._link, self._unread, head, parts[0].data if parts else None, self._make_runner)
        with contextlib.nullcontext() if self._make_runner else _leaving_when_told(agent):
            agent.run()
        self._parent.all_sent = True  # from here on an end of the parent is no failure
        if self._make_runner is None:  # for a rank the one call has ended, and the driver does not read on
            self._wait_for_end()

    def _wait_for_end(self) -> None:
        """Wait until the driver closes the connection, or says END to an agent that has left by itself.

        The last messages may be on their way until then.
        """
        with contextlib.suppress(PeerGone):
            self._wait_for({agent_protocol.END}, _LAST_WORDS)


@contextlib.contextmanager
def _leaving_when_told(agent: Agent) -> Iterator[None]:
    """Let the agent leave at SIGTERM, by which a scheduler ends a job, or at another signal at the end of the time."""
    at_the_limit = getattr(signal, current_job().time_limit_signal or "SIGTERM")
    before = {each: signal.signal(each, lambda *_: agent.leave()) for each in {signal.SIGTERM, at_the_limit}}
    try:
        yield
    except BaseException:
        for signum, handler in before.items():
            signal.signal(signum, handler)
        raise
    for signum in before:
        signal.signal(signum, signal.SIG_IGN)  # it ends; and the signal may come twice (`agent_output`)


def main() -> None:
    """Run as `... CONTACT [VARIABLES [TOKEN LOG LIMIT APART]]`: connect to the driver and serve; again after a loss.

    CONTACT is the path of the contact file. VARIABLES has the names of the scheduler's variables (`JobVariables`).
    TOKEN is the token of the job around this process, if the driver has submitted one, LOG its log, and LIMIT the limit
    of that (bytes); APART is "apart" for a file of this node's own beside the log.
    """
    set_title("agent")
    default_signals()
    open_standard_descriptors()
    path = os.path.abspath(sys.argv[1])  # now, because `adopt` changes the arguments and the directory
    job_variables, token, *log = [*sys.argv[2:], "", ""][: max(2, len(sys.argv) - 2)]
    if job_variables:
        os.environ[JOB_VARIABLES] = job_variables
    if log:
        keep_output(log_path(log[0], apart=log[2] == "apart"), int(log[1]))
    pilot = pilot_share(token) if token else None
    hello = this_hello(pilot)
    parent = ParentPipe()
    if pilot is None:  # otherwise the script of a job has started this process, and standard input tells nothing
        parent.watch()
    patience = _CONNECT
    while not connect(path, parent, hello, patience=patience):
        if not os.path.exists(path):  # the driver removes the file at its end
            break
        patience = _AGAIN


def connect(
    path: str,
    parent: ParentPipe,
    hello: Hello,
    make_runner: MakeRunner | None = None,
    patience: float = _CONNECT,
) -> bool:
    """Serve the driver of this contact file; return False if the driver cannot be reached any more."""
    from ..transport.channel import Link
    from ..transport.contact_file import Contact

    try:
        link = Link.connect(Contact.read(path), timeout=patience)
    except (OSError, ValueError) as error:
        _give_up(str(error))
    try:
        DriverConnection(link, parent, hello, make_runner).serve()
    except PeerGone as error:
        _warn(str(error))
        return False
    finally:
        link.close()
    return True


def _give_up(why: str) -> NoReturn:
    sys.exit(f"{_who()}: {why}")


def _warn(what: str) -> None:
    sys.stderr.write(f"{_who()}: {what}\n")
    sys.stderr.flush()


def _who() -> str:
    return f"callyard agent on {node_name()} (process {os.getpid()})"
