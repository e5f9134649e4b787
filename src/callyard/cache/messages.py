"""The messages between the submitter of a cached call and its runner: plain data, because executors pickle them."""

from __future__ import annotations

from ..utils.lite_stdlib import TYPE_CHECKING, Any, Frozen, Mapping, Sequence

if TYPE_CHECKING:
    from ..events.usage import Usage
    from ..hashing.call_key import KeyContext
    from ..hashing.imported_code import CodePlaces

# Module, qualified name, token at the time of the key, and the places for a quick comparison.
Reference = tuple[str, str, bytes, "CodePlaces | None"]


def arguments_in(ingredients: Mapping[str, str]) -> str:
    """Return the arguments of a call in words, by the names of its parameters, from the ingredients of its key."""
    prefix = "argument "
    looks = ((label[len(prefix) :], look) for label, look in ingredients.items() if label.startswith(prefix))
    return ", ".join(f"{name}={look.partition(' ')[2]}" for name, look in looks)


class KeyInputs(Frozen):
    """The parts of a key, for a runner whose objects may have been changed since."""

    process: str  # the process of the key; there the runner's function is the same object
    function: bytes  # token of the function
    arguments: bytes | None  # token of the arguments; None if another process may compute another one
    around: KeyContext


class RunRequest(Frozen):
    """The request to run a cached call, as received by the runner."""

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
    check_only: bool = False  # neither claim nor store, because another process does both
    job_id: str | None = None  # of the job of the call; the submitter may have ended before the job stores the result
    keeps_files: bool = True  # keep the contents of files that the result names; not where results are removed soon


class RunReport(Frozen):
    """The report of a call after its run, without the result."""

    token: bytes | None = None  # of the result
    problem: str | None = None  # the reason why the result was not stored
    stored: bool = False
    usage: Usage | None = None  # of this run
    # Of a run on another computer: "began" (s since 1970), "seconds", and facts as in its record there.
    run: Mapping[str, Any] | None = None
    files: bool = False  # the stored result names files, which are kept beside it


class RunDeclined(Frozen):
    """The reason for not running a call."""

    reason: str  # "stored", "claimed" or "differs"
    where: str = ""  # the process with the claim, in words for people
    modules: tuple[str, ...] = ()  # the modules with other code than in the key


class RunAgain(Frozen):
    """The note that a call is to run again.

    Beside a result, which is the arguments: the call has raised `Again`. Beside an error: the call has used up its
    memory, and there is a next limit.
    """


class RunOutcome(Frozen):
    """The outcome of a cached call in an executor of another library: report and result, or the refusal."""

    note: RunReport | RunDeclined
    value: Any = None
