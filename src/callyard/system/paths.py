"""Paths as people write them."""

from __future__ import annotations

import os

__all__ = ["expand"]


def expand(path: str) -> str:
    """Write out `~` and `~user` at the beginning, as a shell does."""
    return os.path.expanduser(path) if path.startswith("~") else path
