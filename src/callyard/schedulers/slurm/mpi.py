"""Slurm's plugins by which the ranks of an MPI program find each other, as text.

The right one depends on the MPI library and can only be found by trying: with a wrong one each rank runs alone.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from .job_ids import unique

__all__ = ["LIST", "advice", "candidates", "offered"]

LIST = ("srun", "--mpi=list")
DEFAULT = ""  # the choice of the cluster's own configuration
_LIKELY = ("pmix", "pmi2", "cray_shasta")
_NAME = re.compile(r"^(?:srun: )?\s*(\w+)\s*$", re.MULTILINE)
_VERSIONS = re.compile(r"pmix plugin versions available: (.*)")


def offered(said: str) -> list[str]:
    """Return the plugins listed by `srun --mpi=list`."""
    versions = [name for line in _VERSIONS.findall(said) for name in re.findall(r"\w+", line)]
    return unique([*_NAME.findall(said), *sorted(versions, key=_number, reverse=True)])


def _number(name: str) -> int:
    digits = re.sub(r"\D", "", name)
    return int(digits or 0)


def candidates(names: Sequence[str], fitted: str | None = None) -> list[str]:
    """Return the names in order of trying: first the one that fitted lately, last the ones without any preference."""
    versions = [name for name in names if name.startswith("pmix_")]
    order = unique([*([] if fitted is None else [fitted]), "pmix", *versions, *_LIKELY, *names])
    return [name for name in order if name in names and name != "none"] or [DEFAULT]


def advice(chosen: str | None, tried: Sequence[str], names: Sequence[str]) -> str:
    """Return advice for ranks that did not find each other, or were ended for this by MPI: the rest of a message."""
    there = f"`srun --mpi=list` offers {', '.join(names) or 'none'}"
    if chosen is not None:
        return f"Slurm(mpi={chosen!r}) does not fit the MPI library, and {there}: name another by mpi=, or leave it out"
    named = ", ".join(name or "the cluster's default" for name in tried)
    return (
        f"{there}, of which {named} did not fit the MPI library: name another by mpi=, or use a library that one of "
        "them fits"
    )
