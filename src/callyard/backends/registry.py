"""The registry of backends: from the argument `backend=` of `Executor` to a backend that runs calls.

Our own backends are in a table, those of other packages in the entry-point group `callyard.backends`: a class that
follows the protocol `BackendFactory` and is made without arguments.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import Executor as StandardExecutor
from typing import TYPE_CHECKING, cast

from ..errors import CallyardError
from ..errors.suggestions import alternatives, nearest
from ..utils.plugins import find_plugin, plugin_names
from .base import Backend, BackendFactory, Settings

if TYPE_CHECKING:
    from ..result_cache import Cache

__all__ = ["GROUP", "OWN", "open_backend", "other_resources"]

GROUP = "callyard.backends"
OWN = {
    "local": "callyard.backends.local:Local",
    "slurm": "callyard.backends.slurm:Slurm",
    "flux": "callyard.backends.flux:Flux",
}


def open_backend(choice: object, settings: Settings, cache: Cache | str | os.PathLike[str] | None = None) -> Backend:
    """Return the backend for a name, a description such as `Local(...)`, or another executor; perhaps behind a cache.

    Raises:
        CallyardError: it is none of these, or no backend has the name.
    """
    if cache is None:
        return _open(choice, settings, None)
    from ..result_cache import Cache  # here and below, because calls without a cache need none of this
    from .cached.backend import CachedBackend

    results = cache if isinstance(cache, Cache) else Cache(cache)
    return CachedBackend(_open(choice, settings, results), results, settings)


def other_resources(choice: object) -> Sequence[str]:
    """Return the keys of resources for this choice of a backend alone."""
    factory = _factory(choice)
    return () if factory is None else factory.other_resources


def _factory(choice: object) -> BackendFactory | None:
    """Return the description for a name or a class, or the choice itself if it is one; None for anything else."""
    name = _automatic() if choice == "auto" else choice
    found = find_plugin(GROUP, name, OWN) if isinstance(name, str) else name
    if not (hasattr(found, "open") and hasattr(found, "other_resources")):
        return None
    return cast("Callable[[], BackendFactory]", found)() if isinstance(found, type) else cast("BackendFactory", found)


def _automatic() -> str:
    """Return the name of the backend for the place of this process."""
    from ..schedulers.registry import scheduler_here  # here, because calls on this machine need no scheduler

    return scheduler_here(os.environ).lower() or "local"


def _open(choice: object, settings: Settings, cache: Cache | None) -> Backend:
    factory = _factory(choice)
    if factory is not None:
        return factory.open(settings, cache)
    if isinstance(choice, StandardExecutor):
        from .pep3148 import Pep3148Backend

        return Pep3148Backend(choice, settings)
    raise CallyardError(f"backend={choice!r} is not a backend that this version knows{_instead(choice)}")


# Names that people expect -> the argument to pass.
_EXECUTORS = {
    "threads": "concurrent.futures.ThreadPoolExecutor()",
    "threading": "concurrent.futures.ThreadPoolExecutor()",
    "dask": "the client's own executor, Client().get_executor()",
    "mpi": "mpi4py.futures.MPIPoolExecutor(), or 'local' with ranks=",
    "mpi4py": "mpi4py.futures.MPIPoolExecutor(), or 'local' with ranks=",
    "loky": "loky.get_reusable_executor()",
}
_WORDS = dict.fromkeys(("processes", "process", "multiprocessing", "localhost", "single_node"), "local") | {
    "sbatch": "slurm",
    "srun": "slurm",
    "slurm_cluster": "slurm",
    "flux_cluster": "flux",
    "flux_allocation": "flux",
}


def _instead(choice: object) -> str:
    """Return advice for a choice that is no backend."""
    if isinstance(choice, type) and issubclass(choice, StandardExecutor):
        return f", but the class of another executor: call it, as {choice.__name__}()"
    if callable(getattr(choice, "get_executor", None)):
        return ", but it has an executor: pass what its get_executor() returns"
    if isinstance(choice, str) and choice.lower() in _EXECUTORS:
        return f": pass {_EXECUTORS[choice.lower()]}"
    names = plugin_names(GROUP, OWN)
    near = nearest(choice, [*names, *_WORDS, *_EXECUTORS]) if isinstance(choice, str) else []
    meant = dict.fromkeys(_EXECUTORS.get(word) or _WORDS.get(word, word) for word in near)
    known = ", ".join(repr(name) for name in names)
    return alternatives(meant) or f"; use {known}, Local(...), Slurm(...), Flux(...) or another executor"
