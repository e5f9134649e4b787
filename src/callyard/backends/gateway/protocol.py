"""Messages between a driver and its gateway, over the standard input and output of `ssh`.

    driver -> gateway   OPEN       once: backend, settings, and the place of the cache
                        FUNCTION   a version of a function, under a number, before the first call that names it
                        CALL       a call, under a number; calls that it depends on are named by theirs
                        CANCEL     cancel the call of this number
                        FORGET     numbers of calls with a result that no later call will name
                        FORGET_FUNCTIONS   numbers of functions that no later call will name
                        END_CALL   end the live call of this number alone, although it runs
                        KILL       end all calls, by this signal where they run
                        LEAVE      this process ends; jobs go on
                        CLOSE      end, now that all calls have ended
                        ASK        the status of calls, and perhaps of the executor, at this moment
    gateway -> driver   OPENED     the description of the backend
                        REFUSED    the backend cannot be opened: the error
                        NEWS       of calls: running or not, job, number of the run
                        USAGE      of a call about to end: what it has used
                        RESULT, ERROR, CANCELLED   the end of a call
                        WARNING    a text for the user; the number is the level of a line of the log, 0 of a warning
                        ANSWER     to an ASK of the same number
                        ENDED      the last message
    both                WANT       names of contents that are not there yet: of calls, or of files that results name
                        CONTENT    one of these
                        ALIVE      nothing else to say for a while
                        BEGIN, PIECE, END   a large message

How messages become bytes, large ones in pieces, is the part of `message_streams`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

__all__ = [
    "BEAT",
    "SILENCE",
    "Answer",
    "ContentName",
    "LinkBroken",
    "Message",
    "Opening",
    "Question",
    "SentCall",
    "SentFile",
    "SentInput",
    "SentPickle",
    "SentResult",
    "WantedContent",
]

OPEN, FUNCTION, CALL, CONTENT, CANCEL, FORGET, FORGET_FUNCTIONS, KILL, LEAVE, CLOSE, ASK = range(71, 82)
OPENED, REFUSED, WANT, NEWS, RESULT, ERROR, CANCELLED, WARNING, ENDED = range(91, 100)
ALIVE, BEGIN, PIECE, END, ANSWER, USAGE, END_CALL = range(100, 107)

BEAT = 10.0  # s between two signs of life
SILENCE = 35.0  # s without any byte after which the other side counts as gone


class LinkBroken(Exception):
    """The error if the other side has gone, or is silent."""


class Message(NamedTuple):
    kind: int
    number: int
    content: Any
    buffers: list[Any]
    problem: str = ""  # why the buffers are not there


class SentPickle(NamedTuple):
    """A pickle, or b"" if that is the first of its large contents, and the names of these."""

    data: bytes
    contents: tuple[str, ...]


class SentFile(NamedTuple):
    """A file that a call or a result names."""

    content: str  # the name of the content
    own: str  # the name of the file


class ContentName(NamedTuple):
    """What a content is asked for by."""

    is_file: bool  # the content of a file, not a part of a pickle
    name: str  # its size and digest
    own: str = ""  # the name of the file


class WantedContent(NamedTuple):
    """A content from some place on: what is before it has come over an earlier connection."""

    name: ContentName
    start: int = 0  # bytes


class SentInput(NamedTuple):
    """An input of a call: the result of another call, or a part of that; or else a value."""

    number: int  # of the other call; 0 for a value
    path: Sequence[tuple[Any, int | None]] = ()  # to the part: each key, and the length of the whole
    value: SentPickle | None = None


class SentCall(NamedTuple):
    """A call on its way: the pickle of the arguments; or of function and arguments, or one of each."""

    name: str  # of the function
    resources: Any
    named: Any  # a `CallName`, None for a call without a cache
    function: int  # the number of the function; 0 for one among the pickles
    pickles: Sequence[SentPickle]
    inputs: Sequence[SentInput]
    packages: Sequence[tuple[str, str]]  # names and versions of those that no call before has used, numbered on
    uses: Sequence[int] = ()  # the numbers of the packages that the call uses
    files: Sequence[SentFile] = ()


class SentResult(NamedTuple):
    """The result of a call; the buffers of the message are its memories."""

    data: bytes | None
    spans: Sequence[tuple[int, int, int]]
    token: bytes | None
    job_id: str | None
    attempts: int
    files: Sequence[SentFile] = ()
    run: Mapping[str, Any] | None = None  # what is known of the run, see `RunReport`


class SentFailure(NamedTuple):
    """The failure of a call."""

    error: bytes  # exception and traceback, pickled
    run: Mapping[str, Any] | None = None  # as of a result; None for a call that has not begun
    attempts: int = 1


class Question(NamedTuple):
    """A question about this moment."""

    calls: Sequence[int]  # numbers of calls
    whole: bool  # about all calls together, too


class Answer(NamedTuple):
    """The answer: for each call its `CallStatus` as a tuple, None for an unknown one; and what waits for what."""

    calls: Sequence[tuple[Any, ...] | None]
    waiting: dict[str, int]  # the numbers of waiting calls, by reason
    capacity: dict[str, int]
    used: dict[str, int]


class Opening(NamedTuple):
    """What a gateway is told first."""

    backend: bytes  # the pickle of backend and settings
    run: str  # the name of the driver's executor, for a directory that later gateways find
    remembers: bool  # calls have keys by their meaning, and their results stay
    mode: str  # of the cache
    failures: bool
