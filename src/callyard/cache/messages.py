"""The messages between the submitter of a cached call and its runner: plain data, because they are pickled."""

from __future__ import annotations

from collections.abc import Sequence

from ..utils.frozen import Frozen
from ..utils.lite_typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..hashing.call_key import KeyContext

Reference = tuple[str, str, bytes]  # module, name in it, and its token when the key was made


class KeyInputs(Frozen):
    """The parts of a key, for a runner whose objects may have been changed since the key was made."""

    process: str  # that made the key; in this process the function is the very same object
    function: bytes  # its token
    arguments: bytes | None  # their token; None where it may be another one in another process
    around: KeyContext


class RunRequest(Frozen):
    """The request to run a cached call, as its runner gets it."""

    directory: str
    inode: int  # of the directory, because on another machine the same path may be another directory
    trust: str | None
    key: str
    name: str
    afresh: bool  # run although a result is stored
    failures: bool  # store exceptions too
    references: Sequence[Reference]
    code_only: bool  # compare code only, because an initializer may have changed global data
    source: str
    facts: dict[str, Any]
    meant: KeyInputs | None = None
    check_only: bool = False  # neither claim nor store, because another process does that
    job_id: str | None = (
        None  # of the job that makes the call; the submitter may have ended when the job stores the result
    )


class RunReport(Frozen):
    """The report of a call that was run: all but its result."""

    token: bytes | None = None  # of the result
    problem: str | None = None  # the reason why the result was not stored
    stored: bool = False


class RunDeclined(Frozen):
    """The reason for not running a call."""

    reason: str  # "stored", "claimed" or "differs"
    where: str = ""  # the process that has claimed it, in words for people
    modules: tuple[str, ...] = ()  # those whose code is not the keyed one


class RunAgain(Frozen):
    """The note beside the arguments with which a call is to run again, because it has raised `Again`."""


class RunOutcome(Frozen):
    """The outcome of a cached call in an executor of another library: its report and result, or the refusal."""

    note: RunReport | RunDeclined
    value: Any = None
