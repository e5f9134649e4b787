"""Paths as typed by people, and the places of Callyard's own files."""

from __future__ import annotations

import os

__all__ = ["daemon_directory", "expand", "runs_directory", "status_directory"]


def expand(path: str) -> str:
    """Write out `~` and `~user` at the beginning, as a shell does."""
    return os.path.expanduser(path) if path.startswith("~") else path


def runs_directory() -> str:
    """Return the directory of runs, shared with the nodes of a cluster: `CALLYARD_RUNS`, or one in the user's home."""
    return os.environ.get("CALLYARD_RUNS") or os.path.join(_state_directory(), "runs")


def daemon_directory(machine: str) -> str:
    """Return the directory of this machine's daemon: `CALLYARD_DAEMON`, or one in the user's home."""
    return os.environ.get("CALLYARD_DAEMON") or os.path.join(_state_directory(), "daemon", machine)


def status_directory(machine: str) -> str:
    """Return the directory of the sockets of this machine's executors: `CALLYARD_STATUS`, or one in the user's home."""
    return os.environ.get("CALLYARD_STATUS") or os.path.join(_state_directory(), "status", machine)


def _state_directory() -> str:
    state = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
    return os.path.join(state, "callyard")
