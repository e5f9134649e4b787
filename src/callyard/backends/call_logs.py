"""The logs of calls without a cache: `Executor(logs="logs")` keeps the output and the failure of each call in a file.

    logs/relax-12.log     what the call has printed, and its traceback

The worker writes the file, through its guard; the error of a process that is gone is added here. The file is made at
the submission, so that no other executor takes its name, and goes if nothing has been written to it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import partial
from itertools import count
from typing import Any

from ..cache.output_log import append_to_log
from ..errors import CallyardError
from ..futures import Future, when_ended
from ..utils.error_words import error_words
from ..utils.paths import expand

__all__ = ["CallLogs"]

_LONGEST = 60  # letters of a function's name: a file's name has 255 bytes
_NAME = re.compile(r".*-(\d+)\.log")
_numbers: dict[str, Iterator[int]] = {}  # by directory: executors of this process may share one


class CallLogs:
    """The directory of the logs of an executor. Numbers go on after those that are there.

    Several executors may share it, also of several programs: a file belongs to the call for which it was made.
    """

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        """Make the directory, for its user alone, if it is missing.

        Raises:
            CallyardError: it cannot be used.
            TypeError: it is no path.
        """
        if not isinstance(directory, (str, os.PathLike)):
            raise TypeError(f"logs must be the path of a directory, not {directory!r}")
        if not os.fspath(directory):
            raise CallyardError("logs='' names no directory; use '.' for the one you are in")
        self.path = os.path.abspath(expand(os.fspath(directory)))
        try:
            os.makedirs(self.path, mode=0o700, exist_ok=True)
            self._numbers = _numbers.setdefault(self.path, count(_first_free(os.listdir(self.path))))
        except OSError as error:
            raise CallyardError(
                f"logs={os.fspath(directory)!r} cannot be used: {error.strerror}; choose another directory"
            ) from error

    def follow(self, future: Future[Any]) -> str:
        """Return the path of the log of a call; add what only this process knows of its end."""
        name = "".join(letter if letter.isalnum() or letter in "._" else "_" for letter in future.name)
        path = self._new_file(name.lstrip(".")[:_LONGEST] or "call")
        when_ended(future, partial(_complete, path))
        return path

    def _new_file(self, name: str) -> str:
        while True:
            path = f"{self.path}/{name}-{next(self._numbers)}.log"
            try:
                os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
            except FileExistsError:
                continue
            except OSError:  # no room, or the directory was removed: then this call has no log
                pass
            return path


def _first_free(names: Iterable[str]) -> int:
    numbers = (int(found[1]) for name in names if (found := _NAME.fullmatch(name)))
    return max(numbers, default=0) + 1


def _complete(path: str, future: Future[Any]) -> None:
    """Write down an error that the worker does not know: an exception of the function has come packed."""
    known = future.cancelled() or not future.failed() or future.packed_failure() is not None
    error = None if known else future.peek_exception()
    if error is not None:
        append_to_log(path, f"{error_words(error)}\n")
    with suppress(OSError):
        if not os.stat(path, follow_symlinks=False).st_size:
            os.unlink(path)
