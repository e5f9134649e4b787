"""An earlier start of this very job: its process may still run on a node that only the scheduler has lost.

Slurm tells a job how often it was started again, and ends the processes of a node before. Flux does neither: after the
restart of its leader, a job of the last checkpoint begins once more.
"""

from __future__ import annotations

import time

from ..jobs.batch import CallFile, CallOutcome
from ..jobs.call_files import CallFiles
from ..jobs.heartbeats import MISSING_BEATS, Heartbeats
from .job_inputs import pauses

__all__ = ["outcome_of_earlier_start"]


def outcome_of_earlier_start(folder: CallFiles, number: int) -> CallOutcome | None:
    """Wait for the outcome of a call that has begun before; return None if its process gives no sign of life."""
    begun = folder.begun(number)
    if begun is None:
        return None
    silence = max(CallFile.load(folder.call(number)).wait, MISSING_BEATS * begun.beat)
    heartbeats, waits = Heartbeats(folder.heart(number), time.monotonic()), pauses()
    while (end := folder.ended(number)) is None:
        if heartbeats.stillness(folder.heart(number), time.monotonic()) > silence:
            return None
        time.sleep(waits.next_pause())
    return end
