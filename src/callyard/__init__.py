"""Callyard runs Python functions in parallel, each with the cores, GPUs, memory and time it needs.

    >>> from callyard import Executor
    >>> with Executor() as executor:
    ...     executor.submit(pow, 2, 10).result()
    1024

Names are loaded at their first use, because a worker needs few of them and starts sooner without the others.
"""

from __future__ import annotations

from . import version

TYPE_CHECKING = False  # as in `typing`, which a worker starts sooner without
if TYPE_CHECKING:
    from typing import Any

    from .backends.flux import Flux
    from .backends.job_backends import LSF, PBS, GridEngine, Jobs
    from .backends.local import Local
    from .backends.node_kind import NodeKind
    from .backends.slurm import Slurm
    from .backends.ssh import SSH
    from .errors import (
        CacheError,
        CallyardError,
        JobCancelled,
        JobLost,
        NodeFailure,
        NotComputed,
        OutOfMemory,
        ResourceError,
        SchedulerError,
        TimeLimitExceeded,
        UnpicklableCall,
        UnsafeCache,
        VersionMismatch,
        WorkerLost,
    )
    from .executor import Executor
    from .futures import Future, batched, item, unzip
    from .hashing.decorator import keyed
    from .hashing.files import File
    from .resources import Resources
    from .result_cache import Cache
    from .worker.current_call import Again, CurrentCall, current, ending

__version__ = version.VERSION
__all__ = [  # noqa: RUF022  # as `dir` sorts them
    "Again",
    "Cache",
    "CacheError",
    "CallyardError",
    "CurrentCall",
    "Executor",
    "File",
    "Flux",
    "Future",
    "GridEngine",
    "JobCancelled",
    "JobLost",
    "Jobs",
    "LSF",
    "Local",
    "NodeFailure",
    "NodeKind",
    "NotComputed",
    "OutOfMemory",
    "PBS",
    "ResourceError",
    "Resources",
    "SSH",
    "SchedulerError",
    "Slurm",
    "TimeLimitExceeded",
    "UnpicklableCall",
    "UnsafeCache",
    "VersionMismatch",
    "WorkerLost",
    "batched",
    "current",
    "ending",
    "item",
    "keyed",
    "unzip",
]

# The module of each name; errors have theirs in `.errors`.
_MODULES = {"Executor": ".executor", "Local": ".backends.local", "Resources": ".resources"}
_MODULES |= {"Slurm": ".backends.slurm", "Flux": ".backends.flux", "SSH": ".backends.ssh"}
_MODULES |= {"NodeKind": ".backends.node_kind"}
_MODULES |= dict.fromkeys(("GridEngine", "Jobs", "LSF", "PBS"), ".backends.job_backends")
_MODULES |= {"Cache": ".result_cache", "keyed": ".hashing.decorator", "File": ".hashing.files"}
_MODULES |= dict.fromkeys(("Again", "CurrentCall", "current", "ending"), ".worker.current_call")
_MODULES |= dict.fromkeys(("Future", "batched", "item", "unzip"), ".futures")


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'callyard' has no attribute {name!r}")
    import importlib  # here, because a job needs none of these names

    value = getattr(importlib.import_module(_MODULES.get(name, ".errors"), __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*__all__, *(name for name in globals() if name.startswith("__") and name.endswith("__"))])
