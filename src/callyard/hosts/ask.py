"""Questions to a scheduler whose answers are needed at once."""

from __future__ import annotations

from typing import TypeVar

from ..schedulers.base import Site
from ..schedulers.command import NoAnswer, Query
from .base import Host

__all__ = ["Asker"]

T = TypeVar("T")


class Asker:
    """The asker of questions to a scheduler, for `Steps.allocation`."""

    def __init__(self, site: Site, host: Host, time_limit: float) -> None:
        """Prepare questions; each has at most `time_limit` seconds."""
        self._site, self._host, self._time_limit = site, host, time_limit

    def __call__(self, query: Query[T], /) -> T:
        """Run the command and return what it told.

        Raises:
            NoAnswer: it failed, or took too long.
        """
        environment = self._site.environment(self._host.environment())
        reply = self._host.run(query.argv, timeout=self._time_limit, env=environment, stdin=query.stdin)
        if reply.code != 0:
            refusal = self._site.refusal(reply)
            raise NoAnswer(f"{refusal.absent}: {refusal.words}" if refusal.absent else refusal.words)
        return query.read(reply.out)
