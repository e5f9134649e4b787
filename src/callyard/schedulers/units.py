"""The units in which schedulers count, rounded up, so that nothing gets less than it asked for."""

from __future__ import annotations

import math

__all__ = ["mebibytes", "minutes"]


def mebibytes(gibibytes: float) -> int:
    """GiB as MiB; never 0, which Slurm takes for all of a node's memory."""
    return max(1, math.ceil(gibibytes * 1024))


def minutes(seconds: float) -> int:
    """Never 0, which Slurm takes for no limit."""
    return max(1, math.ceil(seconds / 60))
