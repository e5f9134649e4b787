"""A batch of two calls, as it lies in a spool."""

from __future__ import annotations

from typing import Any

from callyard.jobs.batch import Batch, CallPosition

TOKEN = "0123456789abcdef"
CALLS = (CallPosition("id0", "relax", 0, 4), CallPosition("id1", "relax", 4, 4))


def batch(**changes: Any) -> Batch:
    made = Batch(
        token=TOKEN, scheduler="slurm", calls=CALLS, elements=(0, 1), calls_per_job=1, needs=(), resources={},
        environment={}, restart_limit=0, paths=(), cwd="/", umask=0o22, submitter="x", created=1.0, python="3.11",
        callyard="0", request={},
    )  # fmt: skip
    return made.replace(**changes)
