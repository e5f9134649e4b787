"""Penstock gives each function call the resources that it asks for."""

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
__version__ = "0.1.0"
