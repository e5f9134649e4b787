"""Paths as typed by people."""

from __future__ import annotations

import os

__all__ = ["expand", "runs_directory"]


def expand(path: str) -> str:
    """Write out `~` and `~user` at the beginning, as a shell does."""
    return os.path.expanduser(path) if path.startswith("~") else path


def runs_directory() -> str:
    """Return the directory of runs, shared with the nodes of a cluster: `CALLYARD_RUNS`, or one in the user's home."""
    state = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
    return os.environ.get("CALLYARD_RUNS") or os.path.join(state, "callyard", "runs")
