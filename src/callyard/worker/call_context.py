"""The surroundings of one call in a worker: directory, error log, memory limit; set before, reset after."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator

from ..cache.output_log import append_to_log
from ..utils.lite_stdlib import Any
from .current_call import LOG, Again, running
from .exceptions import traceback_text

_OTHER_THREADS = 4  # threads of a library besides the computing ones


@contextlib.contextmanager
def arranged(options: dict[str, Any]) -> Iterator[None]:
    """Run the block as `options` say: `log`, `cwd`, `error_log_file` (paths), `memory` (bytes)."""
    if not options:
        yield
        return
    with contextlib.ExitStack() as stack:
        if LOG in options:
            stack.enter_context(_logged(options[LOG]))
        if "error_log_file" in options:  # relative to the worker's directory, not to the call's own
            stack.enter_context(_stderr_appended_to(options["error_log_file"]))
        if "cwd" in options:
            stack.enter_context(_inside(options["cwd"]))
        if "memory" in options:
            stack.enter_context(_within(options["memory"]))
        yield


@contextlib.contextmanager
def _named(resource: str) -> Iterator[None]:
    """Name the resource in errors of the operating system, so that the user sees the option with the wrong path."""
    try:
        yield
    except OSError as error:
        words = f"the {resource} of the call cannot be used: {error.strerror}; choose another path"
        raise OSError(error.errno, words, error.filename) from error


@contextlib.contextmanager
def _logged(path: str) -> Iterator[None]:
    """Let a file have the output of the block, and the traceback of its exception."""
    from .call_output import begin_log, end_log  # here, because few calls have a log of their own

    begin_log(path, goes_on=True)  # the submitting process has made it, for all runs of this call
    try:
        yield
    except BaseException as error:
        end_log()
        if not (isinstance(error, Again) or running.ended_from_outside):  # then others know the reason
            append_to_log(path, traceback_text(error))
        raise
    end_log()


@contextlib.contextmanager
def _inside(directory: str) -> Iterator[None]:
    before = os.open(".", os.O_RDONLY | os.O_CLOEXEC)  # a descriptor: the directory may be renamed meanwhile
    try:
        with _named("cwd"):
            os.makedirs(directory, exist_ok=True)
            os.chdir(directory)
        yield
    finally:
        os.fchdir(before)
        os.close(before)


@contextlib.contextmanager
def _stderr_appended_to(path: str) -> Iterator[None]:
    with _named("error_log_file"):
        log = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    sys.stderr.flush()
    before = os.dup(2)
    os.dup2(log, 2)  # the descriptor, so that output of C libraries and child processes goes there too
    os.close(log)
    try:
        yield
    except BaseException as error:
        sys.stderr.write(traceback_text(error))
        raise
    finally:
        with contextlib.suppress(Exception):  # the call may have put any object there
            sys.stderr.flush()
        os.dup2(before, 2)
        os.close(before)


def _threads(variable: str) -> int:
    """Return the first number of a list: OpenMP allows one number for each level."""
    first = variable.partition(",")[0]
    return int(first) if first.isdigit() else 1


@contextlib.contextmanager
def _within(limit: int) -> Iterator[None]:
    from ..system.memory_control import data_limit, limit_data  # here, because few workers need this

    threads = _threads(os.environ.get("OMP_NUM_THREADS", "")) + _OTHER_THREADS
    before = limit_data(data_limit(limit, threads))
    try:
        yield
    finally:
        limit_data(before)
