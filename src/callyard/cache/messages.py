"""What the runner of a remembered call is told, and what it says. Plain data: it travels."""

from __future__ import annotations

from collections.abc import Sequence

from ..utils.frozen import Frozen
from ..utils.lite_typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..hashing.call_key import KeyContext

Reference = tuple[str, str, bytes]  # module, name in it, and the token of what was keyed


class KeyInputs(Frozen):
    """What the key was made from, for a runner that gets objects which others may have changed meanwhile."""

    process: str  # that made it: there the function is the very object, too
    function: bytes  # the tokens
    arguments: bytes | None  # None where they may have another one in another process
    around: KeyContext


class RunRequest(Frozen):
    """What the runner is told."""

    directory: str
    inode: int  # of the directory: elsewhere the same path may be another one
    trust: str | None
    key: str
    name: str
    afresh: bool  # run although a result is there
    failures: bool  # whether those are stored too
    references: Sequence[Reference]
    code_only: bool  # an initializer may have changed the data beside the code
    source: str
    facts: dict[str, Any]
    meant: KeyInputs | None = None
    check_only: bool = False  # claim and store nothing: that is done elsewhere
    job_id: str | None = None  # where a job makes the call, which may be alone when it stores the result


class RunReport(Frozen):
    """What became of a call beside its result."""

    token: bytes | None = None  # of the result
    problem: str | None = None  # why it was not stored
    stored: bool = False


class RunDeclined(Frozen):
    """Why a call was not run."""

    reason: str  # "stored", "claimed" or "differs"
    where: str = ""  # who has claimed it, for people
    modules: tuple[str, ...] = ()  # which are not what was keyed


class RunOutcome(Frozen):
    """The result of a remembered call in somebody else's executor, or why it was not run."""

    note: RunReport | RunDeclined
    value: Any = None
