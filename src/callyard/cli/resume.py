"""Submit the batches that were written to disk and never reached the scheduler.

This happens if a limit held calls back until their process ended, or if the process was killed before. Jobs already
accepted by the scheduler are not submitted again.
"""

from __future__ import annotations

import argparse
from contextlib import suppress

from ..backends.batch.scheduler_client import SchedulerClient, SubmissionRefused, client_of
from ..backends.batch.submitter import claim_of, submission
from ..cache.directory import CacheDirectory
from ..errors import CacheError, SchedulerError, UnsafeCache
from ..jobs.batch import BatchPart
from ..jobs.find_batches import folders_by_age, unreadable_batches
from ..jobs.spool import BatchDirectory
from ..jobs.submission import is_ready
from ..jobs.successor import move_after_inputs
from ..utils.command_thread import CommandThread
from .arguments import add_json, add_place, open_cache, print_json, split, to_change

__all__ = ["configure", "run"]


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    add_json(parser, "an object")
    add_place(parser)


def run(options: argparse.Namespace) -> int:
    """Submit the batches, and print their jobs."""
    directory, _ = split(options, 0)
    cache = to_change(open_cache(options, directory))
    submitted, refused = _resume_all(cache._directory)
    if options.json:
        print_json({"submitted": [{"job": ",".join(part.jobs), "calls": calls} for part, calls in submitted]})
    else:
        for part, calls in submitted:
            more = f" and {len(part.jobs) - 1} more" if len(part.jobs) > 1 else ""
            print(f"job {part.jobs[0]}{more}: {calls} calls")
        if not submitted and not refused:
            print(f"nothing in {cache.path} waits to be submitted")
    if refused:
        raise SchedulerError("; ".join(refused))
    return 0


def _resume_all(directory: CacheDirectory) -> tuple[list[tuple[BatchPart, int]], list[str]]:
    """Submit all batches that are ready, in order of writing.

    Return the submitted parts with their numbers of calls, and the texts of refusals. A batch refused because of a
    mistake does not stop the others; a limit or a silent scheduler does. A batch that is damaged, or asks for nonsense,
    is set aside.
    """
    submitted: list[tuple[BatchPart, int]] = []
    refusals = [_set_aside(spooled, error) for spooled, error in unreadable_batches(directory)]
    for spooled in folders_by_age(directory):
        with suppress(OSError, CacheError):  # its mover was killed; a full disk is told of below
            move_after_inputs(spooled)
    for spooled in folders_by_age(directory):
        refused: SubmissionRefused | None = None
        try:
            claim = claim_of(spooled) if spooled.unsent is not None and is_ready(spooled) else None
            if claim is None:
                continue
            before = spooled.parts
            try:
                CommandThread().run(submission(_client_of(spooled), spooled, perhaps=True))
            except SubmissionRefused as error:
                refused = error
            finally:
                claim.release()
                submitted += [(part, _calls_in(spooled, part)) for part in spooled.parts if part not in before]
        except (OSError, SchedulerError, CacheError) as error:  # not its fault: a later `resume` tries again
            refusals.append(f"{spooled.batch.request['name']!r} in {spooled.path} was not submitted: {error}")
        except Exception as error:  # the fault of this batch alone, which will never be submitted
            refusals.append(_set_aside(spooled, error))
        if refused is not None:
            refusals.append(f"the scheduler did not take {spooled.batch.request['name']!r}: {refused}")
            if refused.kind != "mistake":
                break
    return submitted, refusals


def _client_of(spooled: BatchDirectory) -> SchedulerClient:
    """Return the client of a batch's scheduler. Without one here, the environment is at fault, not the batch."""
    try:
        return client_of(spooled.batch.scheduler)
    except Exception as error:  # from a plugin, too
        raise SchedulerError(str(error)) from error


def _set_aside(spooled: BatchDirectory, error: Exception) -> str:
    """Move a batch out of the spool, unless it has jobs, which need the files, or is only unsafe; return the words."""
    if isinstance(error, UnsafeCache):
        return f"the batch {spooled.path} cannot be submitted: {error}"
    if spooled.may_have_jobs():
        return f"the rest of the batch {spooled.path} cannot be submitted: {type(error).__name__}: {error}"
    where = spooled.set_aside(f"it cannot be submitted: {error}")
    return f"a batch cannot be submitted, and was moved to {where}: {type(error).__name__}: {error}"


def _calls_in(spooled: BatchDirectory, part: BatchPart) -> int:
    each = spooled.batch.calls_per_job
    return min(part.end * each, len(spooled.batch.calls)) - part.first * each
