"""The executors under test, each called as CPython's tests call theirs.

CPython's tests create pools of threads or of processes, the latter with a start method (`mp_context`).
Callyard's own workers have none, so the local executor drops it. The other two are Callyard around a pool of
the standard library.
"""

from __future__ import annotations

import shutil
import tempfile
from concurrent import futures
from multiprocessing.context import BaseContext
from typing import Any

import callyard

_wrapped: list[futures.Executor] = []
_directories: list[str] = []  # of caches


def local(max_workers: int | None = None, mp_context: BaseContext | None = None, **options: Any) -> callyard.Executor:
    """Create an executor on this machine."""
    return callyard.Executor(max_workers, **options)


def cached(max_workers: int | None = None, mp_context: BaseContext | None = None, **options: Any) -> callyard.Executor:
    """Create an executor on this machine, with a cache in which there is nothing yet."""
    directory = tempfile.mkdtemp(prefix="results-")
    _directories.append(directory)
    return callyard.Executor(max_workers, cache=directory, **options)


def threads(max_workers: int | None = None, **options: Any) -> callyard.Executor:
    """Create an executor around a ThreadPoolExecutor."""
    return _wrap(futures.ThreadPoolExecutor(_possible(max_workers), **options), max_workers)


def processes(
    max_workers: int | None = None, mp_context: BaseContext | None = None, **options: Any
) -> callyard.Executor:
    """Create an executor around a ProcessPoolExecutor."""
    return _wrap(futures.ProcessPoolExecutor(_possible(max_workers), mp_context, **options), max_workers)


def shutdown_wrapped() -> None:
    """End the pools that were wrapped: they belong to who made them, so Callyard leaves them running."""
    while _wrapped:
        _wrapped.pop().shutdown()
    while _directories:
        shutil.rmtree(_directories.pop())


def _wrap(pool: futures.Executor, max_workers: int | None) -> callyard.Executor:
    _wrapped.append(pool)
    return callyard.Executor(max_workers, backend=pool)


def _possible(max_workers: int | None) -> int | None:
    """Keep an impossible number for Callyard, which shall refuse it itself."""
    return None if max_workers is None else max(1, max_workers)
