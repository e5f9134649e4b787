"""From what a user passes as `backend=` to a backend that runs calls."""

from __future__ import annotations

from concurrent.futures import Executor as StandardExecutor
from typing import Any

from ..errors import PenstockError
from .base import Backend, Settings
from .local import Local
from .wrapped import Wrapped

_NAMES = {"local": Local}


def open_backend(choice: Any, settings: Settings) -> Backend:
    """The backend for a name, a description such as `Local(...)`, or another executor."""
    if isinstance(choice, type) and choice in _NAMES.values():
        choice = choice()
    if isinstance(choice, str) and choice in _NAMES:
        choice = _NAMES[choice]()
    if isinstance(choice, Local):
        return choice.open(settings)
    if isinstance(choice, StandardExecutor):
        return Wrapped(choice, settings)
    known = ", ".join(repr(name) for name in _NAMES)
    raise PenstockError(
        f"backend={choice!r} is none that this version knows; use {known}, Local(...) or another executor"
    )
