"""Commands as values: what to run, what came of it, and how to read that."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

__all__ = ["Query", "Reply"]

T_co = TypeVar("T_co", covariant=True)


@dataclasses.dataclass(frozen=True)
class Query(Generic[T_co]):
    """A command, and the function that reads its answer.

    Attributes:
        argv: the command, a list of words and never a text for the shell.
        read: what the standard output of a command that succeeded means.
        stdin: the text for its standard input.
    """

    argv: Sequence[str]
    read: Callable[[str], T_co]
    stdin: str = ""


@dataclasses.dataclass(frozen=True)
class Reply:
    """The answer of a command.

    Attributes:
        code: its exit status, minus the signal that ended it; None if it was stopped at the time limit. As shells
            have it, 127 stands for a command that is not there, 126 for one that cannot be run.
        out: what it wrote to its standard output, as far as it came.
        err: the same of its standard error, or why it was not run.
    """

    code: int | None
    out: str = ""
    err: str = ""
