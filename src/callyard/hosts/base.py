"""The seam for hosts: the machine that runs the commands of a scheduler."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from threading import Event
from typing import Protocol

from ..schedulers.command import Reply

__all__ = ["Host"]


class Host(Protocol):
    """A machine for running commands."""

    def environment(self) -> Mapping[str, str]:
        """Return the default environment of a command there."""

    def exists(self, path: str) -> bool:
        """Return True if there is a file at this path."""

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

        A missing command or a time-out raises nothing: the reply says so. If another thread sets `stop`, the command is
        ended as at the time limit.
        """
