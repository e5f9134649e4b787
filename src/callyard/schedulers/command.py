"""Commands as values: the words to run, the reply, and the reader of the reply."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from ..errors import SchedulerError

__all__ = ["NoAnswer", "Query", "Reply"]

T_co = TypeVar("T_co", covariant=True)


@dataclasses.dataclass(frozen=True)
class Query(Generic[T_co]):
    """A command, and the reader of its answer.

    Attributes:
        argv: the command, as a list of words and never a text for the shell.
        read: reads the standard output of the command if it succeeded; any exception stands for a senseless answer.
        stdin: the text for its standard input.
    """

    argv: Sequence[str]
    read: Callable[[str], T_co]
    stdin: str = ""

    def answer(self, out: str) -> T_co:
        """Return what the command told by its standard output.

        Raises:
            SchedulerError: the reader cannot read it; the message has the command and the beginning of the output.
        """
        try:
            return self.read(out)
        except SchedulerError:
            raise
        except Exception as error:  # whatever the reader of another package raises
            raise SchedulerError(f"{self.argv[0]} printed {out[:200]!r}, which cannot be read: {error!r}") from error


@dataclasses.dataclass(frozen=True)
class Reply:
    """The answer of a command.

    Attributes:
        code: the exit status, or minus the number of the final signal; None after a time-out. As in shells, 127 stands
            for a missing command, 126 for one that cannot be run.
        out: the standard output, so far as read.
        err: the standard error, or the reason why the command was not run.
    """

    code: int | None
    out: str = ""
    err: str = ""


class NoAnswer(SchedulerError):
    """A question that a scheduler has not answered; the message has the scheduler's words."""
