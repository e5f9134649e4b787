"""The logs of calls without a cache: `Executor(logs="logs")` keeps the output and the failure of each call in a file.

    logs/relax-12.log     what the call has printed, and its traceback

The worker writes the file, through its guard; the error of a process that is gone is added here.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from functools import partial
from itertools import count
from typing import Any

from ..cache.output_log import append_to_log
from ..errors import CallyardError
from ..futures import Future, when_ended
from ..utils.paths import expand

__all__ = ["CallLogs"]

_NAME = re.compile(r".*-(\d+)\.log")


class CallLogs:
    """The directory of the logs of one executor. Numbers go on after those that are there."""

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        """Make the directory, for its user alone, if it is missing.

        Raises:
            CallyardError: it cannot be used.
        """
        self.path = os.path.abspath(expand(os.fspath(directory)))
        try:
            os.makedirs(self.path, mode=0o700, exist_ok=True)
            self._numbers = count(_first_free(os.listdir(self.path)))
        except OSError as error:
            raise CallyardError(
                f"logs={os.fspath(directory)!r} cannot be used: {error.strerror}; choose another directory"
            ) from error

    def follow(self, future: Future[Any]) -> str:
        """Return the path of the log of a call; add what only this process knows of its end."""
        name = "".join(letter if letter.isalnum() or letter in "._" else "_" for letter in future.name)
        path = f"{self.path}/{name.lstrip('.') or 'call'}-{next(self._numbers)}.log"
        when_ended(future, partial(_add_failure, path))
        return path


def _first_free(names: Iterable[str]) -> int:
    numbers = (int(found[1]) for name in names if (found := _NAME.fullmatch(name)))
    return max(numbers, default=0) + 1


def _add_failure(path: str, future: Future[Any]) -> None:
    """Write down an error that the worker does not know: an exception of the function has come packed."""
    if not future.cancelled() and future.failed() and future.packed_failure() is None:
        error = future.peek_exception()
        append_to_log(path, f"{type(error).__name__}: {error}\n")
