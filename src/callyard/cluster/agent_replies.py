"""The replies of an agent: each takes the place of a future, and makes a frame for the driver from a call's end."""

from __future__ import annotations

import json
import pickle
import time as clock
from typing import TYPE_CHECKING, Any, cast

from ..cache.messages import RunAgain
from ..events.recorder import NoRecord
from ..events.usage import Usage
from ..futures import Lazy
from ..pool.call_errors import PackedError, StartError
from ..pool.mpi_results import RankResults
from ..serialize.packed import Packed
from ..transport import frames
from ..transport.agent_protocol import (
    BACK,
    ERROR,
    LOST,
    NOT_STARTED,
    RESULT,
    STARTED,
    WHOLE,
    FrameSender,
    json_frame,
    wrap,
)

if TYPE_CHECKING:
    from ..pool.call import Call, CallDurations

_MOST = 0xFFFFFFFF  # the largest number in the head of a frame


class AgentReply:
    """The reply to one call, in the place of a future. The first end is sent, and any later one ignored."""

    __slots__ = ("_begun", "_ended", "_note", "_pace", "_sender", "_sequence", "_usage", "attempts", "name")
    passes_again_on = True

    def __init__(self, name: str, sequence: int, pace: CallDurations, sender: FrameSender) -> None:
        self.name, self._sequence, self._pace, self._sender = name, sequence, pace, sender
        self._note: Any = None
        self._begun = self._ended = False
        self._usage: Usage | None = None
        self.attempts = 0  # set once the call was run again here

    @property
    def sequence(self) -> int:
        """The driver's number of the call."""
        return self._sequence

    # -- for the worker pool ---------------------------------------------------------------------------

    def set_running_or_notify_cancel(self) -> bool:
        self._begun = not self._ended
        return self._begun

    def done(self) -> bool:
        return self._ended

    def cancelled(self) -> bool:
        return self._ended and not self._begun

    def again(self) -> None:
        """Wait again: the call goes to another worker of this node, which does not concern the driver."""
        self._begun = False

    def note_usage(self, usage: Usage) -> None:
        self._usage = usage

    def noted(self, call: Call, note: Any) -> bool:
        self._note = note
        return False

    def finish(self, packed: Lazy) -> None:
        if type(packed) is Packed and packed.data is not None and not packed.memories and not self._more:
            self._say(RESULT, 0, packed.data)
        elif isinstance(packed, RankResults):
            self._say_whole(RESULT, {"ranks": len(packed.parts)}, cast("list[Packed]", packed.parts))
        else:
            self._say_whole(RESULT, {}, [cast(Packed, packed)])

    def pass_again_on(self, packed: Lazy, failed: bool) -> None:
        """Send the arguments of an `Again` back, or the error of used-up memory: the driver places the next run."""
        self._note = RunAgain()
        if failed:
            self._say_whole(ERROR, {}, [cast(Packed, packed)])
        else:
            self.finish(packed)

    @property
    def _more(self) -> bool:
        """True if there is more to send than the result."""
        return self._note is not None or self._usage is not None or self.attempts > 0

    def fail(self, failure: Lazy) -> None:
        if isinstance(failure, PackedError):
            self._say_whole(ERROR, {}, [cast(Packed, failure.packed)])
        else:
            start = cast(StartError, failure)
            said = {"exitcode": start.exitcode, "reason": start.reason}
            self._say_whole(NOT_STARTED, said, [cast(Packed, start.initializer_error or Packed(b""))])

    def fail_with(self, error: BaseException) -> None:
        exitcode = getattr(error, "exitcode", None)
        run = getattr(error, "_run", None)
        said = {"kind": type(error).__name__, "words": str(error), "exitcode": exitcode, "run": run}
        if self._usage is not None:
            said["usage"] = self._usage.known()
        if self.attempts:
            said["attempts"] = self.attempts
        self._say(LOST, 0, json.dumps(said).encode())

    def cancel(self) -> bool:
        if self._begun:
            return False
        if self.attempts:  # it waits to be run again
            self._say_whole(BACK, {}, [])
        else:
            self._say(BACK, 0, b"")
        return True

    # -- to the driver ---------------------------------------------------------------------------------

    def _say_whole(self, kind: int, head: dict[str, Any], parts: list[Packed]) -> None:
        if self.attempts:
            head = {**head, "attempts": self.attempts}
        if self._usage is not None:
            head = {**head, "usage": self._usage.known()}
        if self._note is not None:
            head, parts = {**head, "note": True}, [*parts, Packed(pickle.dumps(self._note, 5))]
        bulk = any(part.memories for part in parts)
        self._say(kind, WHOLE, wrap(head, parts, self._sender.beside), bulk)

    def _say(self, kind: int, flags: int, body: bytes, bulk: bool = False) -> None:
        if not self._ended:
            self._ended = True
            microseconds = min(int(self._pace.seconds * 1e6), _MOST)
            self._sender.add(frames.encode(kind, self._sequence, microseconds, flags, body), bulk)


class StartTeller(NoRecord):
    """Tells the driver of the starts of calls, in the place of a recorder.

    Of nothing else: a call that waits on this node again starts again soon, and no call here is shared.
    """

    def __init__(self, sender: FrameSender) -> None:
        self._sender = sender

    def started(
        self,
        future: object,
        host: str,
        worker: str = "",
        attempt: int = 1,
        job_id: str | None = None,
        time: float | None = None,
    ) -> None:
        sequence = cast(AgentReply, future).sequence
        said = {"call": sequence, "worker": worker, "attempt": attempt, "at": clock.time() if time is None else time}
        self._sender.add(json_frame(STARTED, said))
