"""The seam for hosts: the machine on which the commands of a scheduler are run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from threading import Event
from typing import Protocol

from ..schedulers.base import Reply

__all__ = ["Host"]


class Host(Protocol):
    """A machine on which commands can be run."""

    def environment(self) -> Mapping[str, str]:
        """Return the variables that a command there has, unless it is given others."""

    def exists(self, path: str) -> bool:
        """Return whether there is a file of this path."""

    def run(
        self,
        argv: Sequence[str],
        *,
        timeout: float,
        env: Mapping[str, str] | None = None,
        stop: Event | None = None,
        stdin: str = "",
    ) -> Reply:
        """Run one command, at most for `timeout` seconds, with `env` in place of the environment.

        A command that is not there or takes too long is no exception: the reply says so. If another thread sets `stop`
        the command ends as at the time limit.
        """
