"""The results of an MPI call: one from each rank, collected until the call has ended.

Ranks run on this machine (`mpi_group.py`) or on several nodes (`cluster/mpi_call.py`). Both end a call in the same way:
with the list of all results, or with the first failure, since the other ranks may wait for the failed one for ever.
"""

from __future__ import annotations

from typing import Any

from ..futures import Lazy


class RankResults:
    """The packed results of all ranks; opened, a list. Of `again` ranks they are the arguments of `Again`."""

    __slots__ = ("again", "parts")

    def __init__(self, parts: list[Lazy], again: int = 0) -> None:
        self.parts, self.again = parts, again

    @property
    def ranks_disagree(self) -> bool:
        """True if some ranks are to be run again, and others have returned."""
        return self.again not in (0, len(self.parts))

    def load(self) -> list[Any]:
        return [part.load() for part in self.parts]


class RankCollector:
    """The results of one call so far."""

    __slots__ = ("_again", "_results", "_size")

    def __init__(self, size: int) -> None:
        self._size = size
        self._results: dict[int, Lazy] = {}
        self._again = 0

    def __contains__(self, rank: int) -> bool:
        """Return True if this rank has given a result."""
        return rank in self._results

    def add(self, rank: int, result: Lazy, again: bool) -> RankResults | None:
        """Take in the result of a rank; once all are there, return them in the order of ranks."""
        self._results[rank] = result
        self._again += again
        if len(self._results) < self._size:
            return None
        return RankResults([self._results[number] for number in range(self._size)], self._again)


def words_of_no_mpi(name: str, size: int) -> str:
    """Return the warning for a call that ran on several ranks without MPI."""
    return (
        f"{name!r} ran {size} times, once on each of ranks={size}, and never imported mpi4py; "
        f"if one run with {size} cores was meant, ask for cores_per_rank={size}"
    )
