"""Where Callyard keeps what is nobody's cache."""

from __future__ import annotations

import os

__all__ = ["runs_directory"]


def runs_directory() -> str:
    """The directory for what runs, which the nodes of a cluster see too: in the user's home, or as a variable says."""
    state = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
    return os.environ.get("CALLYARD_RUNS") or os.path.join(state, "callyard", "runs")
