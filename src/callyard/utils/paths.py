"""Paths as typed by people, and the places of Callyard's own files."""

from __future__ import annotations

import os

__all__ = ["daemons_directory", "expand", "runs_directory", "statuses_directory"]


def expand(path: str) -> str:
    """Write out `~` and `~user` at the beginning, as a shell does."""
    return os.path.expanduser(path) if path.startswith("~") else path


def runs_directory() -> str:
    """Return the directory of runs, shared with the nodes of a cluster: `CALLYARD_RUNS`, or one in the user's home."""
    return os.environ.get("CALLYARD_RUNS") or os.path.join(_state_directory(), "runs")


def daemons_directory() -> str:
    """Return the directory in the user's home with a directory for the daemon of each machine."""
    return os.path.join(_state_directory(), "daemon")


def statuses_directory() -> str:
    """Return the directory in the user's home with a directory for the sockets of the executors of each machine."""
    return os.path.join(_state_directory(), "status")


def _state_directory() -> str:
    state = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
    return os.path.join(state, "callyard")
