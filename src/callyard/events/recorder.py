"""The interface through which backends tell what happens to calls, where somebody wants to know."""

from __future__ import annotations

from typing import Protocol

__all__ = ["NoRecord", "Recorder"]


class Recorder(Protocol):
    """Takes what only a backend knows: where a call runs, and which futures belong to one call.

    Submissions and ends are seen at the futures. Any thread may call these methods at any moment, finalizers included:
    they neither wait nor raise. A backend has the recorder in its `Settings`, None where nobody asks; then it also has
    the usage of each call measured.
    """

    def started(
        self,
        future: object,
        host: str,
        worker: str = "",
        attempt: int = 1,
        job_id: str | None = None,
        time: float | None = None,
    ) -> None:
        """Take in that a call begins: its future, the place, and the time (s since 1970), by default now.

        `attempt` is the number of this run, from 1. A call that is begun once more has a start for each run.
        """

    def waiting(self, future: object, reason: str = "", job_id: str | None = None) -> None:
        """Take in that a call waits, after a start that came to nothing, or for something new.

        `reason` goes on from "waits"; without one, the future is asked in a while. `job_id` is known from here on.
        """

    def stands_for(self, inner: object, future: object) -> None:
        """Take in that what is told of `inner` is true of the user's `future`, too; of several, perhaps."""


class NoRecord:
    """A recorder that forgets all: a backend with it measures what calls use, and others tell of it."""

    def started(
        self,
        future: object,
        host: str,
        worker: str = "",
        attempt: int = 1,
        job_id: str | None = None,
        time: float | None = None,
    ) -> None:
        pass

    def waiting(self, future: object, reason: str = "", job_id: str | None = None) -> None:
        pass

    def stands_for(self, inner: object, future: object) -> None:
        pass
