"""The failures that the submitting process keeps, because the process of the call could not, or is gone.

A function's own exception is stored where the function ran. The end of a process is known here alone: a crash, a limit
in time or memory, a lost node or job.
"""

from __future__ import annotations

import time
from concurrent.futures import BrokenExecutor
from contextlib import suppress

from ...cache.claims import Claim, Claims
from ...cache.directory import CacheDirectory
from ...cache.messages import RunRequest
from ...cache.output_log import take_log
from ...cache.run_call import Arguments, CachedRun
from ...dependencies.failure_path import path_of
from ...errors import CacheError, JobCancelled, JobLost, NodeFailure, OutOfMemory, TimeLimitExceeded, WorkerLost
from ...events.usage import Usage

__all__ = ["is_end_of_process", "is_inherited", "keep_lost_call"]

_ENDS = (WorkerLost, TimeLimitExceeded, OutOfMemory, NodeFailure, JobLost, JobCancelled, BrokenExecutor)


def is_end_of_process(error: BaseException | None) -> bool:
    """Return True for an error about the process of a call, of which that process itself tells nothing."""
    return isinstance(error, _ENDS)


def is_inherited(error: BaseException, name: str) -> bool:
    """Return True for the error of another call, for whose result the call of this name has waited."""
    return path_of(error)[:1] == [name]


def keep_lost_call(
    request: RunRequest, directory: CacheDirectory, error: BaseException, arguments: Arguments, usage: Usage | None
) -> None:
    """Store the failure of a call whose process is gone, and remove its claim if that process is known to be gone."""
    claim, facts = None, dict(getattr(error, "_run", None) or {})
    if usage is not None:
        facts["usage"] = usage.known()
    with suppress(OSError, CacheError):
        claims = Claims(directory)
        owner = claims.holder(request.key)
        if owner is not None and owner.state() != "alive":
            facts = {"host": owner.host, "pid": owner.pid, "began": owner.since, **facts}
            taken = claims.take(request.key, request.name)
            claim = taken if isinstance(taken, Claim) else None
    began = facts.pop("began", None)
    now = time.time()
    seconds = 0.0 if began is None else max(0.0, now - began)
    if usage is not None:
        seconds = usage.wall
    printed = take_log(directory.log(request.key))
    if printed:
        facts["log"] = printed
    # Of a process that nobody has known: not this one's.
    facts = {"host": None, "pid": None, **facts}
    run = CachedRun(request, directory, claim, now - seconds if began is None else began)
    run.failed(error, "", seconds, arguments, facts)
