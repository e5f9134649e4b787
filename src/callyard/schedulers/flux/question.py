"""Questions to Flux: the command that runs `program.py`, with a request."""

from __future__ import annotations

import json
import pkgutil
from collections.abc import Callable, Mapping
from typing import TypeVar

from ..command import Query

__all__ = ["question"]

T = TypeVar("T")
_PROGRAM = (pkgutil.get_data(__package__, "program.py") or b"").decode()


def question(command: str, asked: Mapping[str, object], read: Callable[[str], T]) -> Query[T]:
    """Return the command that runs a part of the program, and the reader of what the part prints."""
    return Query(["flux", "python", "-c", _PROGRAM, command], read, json.dumps(asked))
