"""Penstock gives each function call the resources that it asks for.

The names are loaded when they are first used: a worker process needs few of them, and starts the faster.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .backends.local import Local
    from .errors import (
        OutOfMemory,
        PenstockError,
        ResourceError,
        TimeLimitExceeded,
        UnpicklableCall,
        WorkerLost,
    )
    from .executor import Executor
    from .futures import Future, batched, item, unzip
    from .resources import Resources

__version__ = "0.1.0"
__all__ = [
    "Executor",
    "Future",
    "Local",
    "OutOfMemory",
    "PenstockError",
    "ResourceError",
    "Resources",
    "TimeLimitExceeded",
    "UnpicklableCall",
    "WorkerLost",
    "batched",
    "item",
    "unzip",
]

_HOMES = {"Executor": ".executor", "Local": ".backends.local", "Resources": ".resources"}
_HOMES |= dict.fromkeys(("Future", "batched", "item", "unzip"), ".futures")


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'penstock' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES.get(name, ".errors"), __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
