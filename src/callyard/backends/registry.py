"""The registry of backends: from the argument `backend=` of `Executor` to a backend that runs calls.

Our own backends are in a table, those of other packages in the entry-point group `callyard.backends`: a class that
follows the protocol `BackendFactory` and is made without arguments. A package with a scheduler alone, in the group
`callyard.schedulers`, needs no such class: each call is then a job of the scheduler.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import Executor as StandardExecutor
from typing import TYPE_CHECKING, Protocol, cast

from ..errors import CallyardError
from ..errors.suggestions import alternatives, nearest
from ..utils.plugins import find_plugin, plugin_names
from .base import Backend, BackendFactory, FactoryElsewhere, Settings

if TYPE_CHECKING:
    from ..result_cache import Cache
    from .ssh import SSH

__all__ = ["GROUP", "OWN", "open_backend", "open_plan", "other_resources"]


class OnHost(Protocol):
    """A description of resources of another computer."""

    def on_host(self) -> FactoryElsewhere:
        """Return what is opened there: the same without a host, and with the choices that only this side can make."""


GROUP = "callyard.backends"
OWN = {
    "local": "callyard.backends.local:Local",
    "slurm": "callyard.backends.slurm:Slurm",
    "flux": "callyard.backends.flux:Flux",
    "pbs": "callyard.backends.job_backends:PBS",
    "lsf": "callyard.backends.job_backends:LSF",
    "gridengine": "callyard.backends.job_backends:GridEngine",
}


def open_backend(choice: object, settings: Settings, cache: Cache | str | os.PathLike[str] | None = None) -> Backend:
    """Return the backend for a name, a description such as `Local(...)`, or another executor; perhaps behind a cache.

    Raises:
        CallyardError: it is none of these, or no backend has the name.
    """
    if settings.logs is not None:
        _check_logs(choice, cache)
    if cache is None:
        return _open(choice, settings, None)
    from ..result_cache import Cache  # here and below, because calls without a cache need none of this
    from .cached.backend import CachedBackend

    results = cache if isinstance(cache, Cache) else Cache(cache)
    return CachedBackend(_open(choice, settings, results), results, settings)


def _check_logs(choice: object, cache: object) -> None:
    """Raise CallyardError where `logs` cannot be kept."""
    from .local import Local  # here, because few executors keep logs

    factory = _factory(choice)
    if cache is not None:
        raise CallyardError(
            "logs= is for calls without a cache, as a cache keeps output and failures already, for `callyard logs`: "
            "leave one of them out"
        )
    if not isinstance(factory, Local) or factory.host is not None or factory.detached:
        raise CallyardError(
            "logs= keeps the output of live calls on this machine; elsewhere give cache=, which keeps output and "
            "failures of every backend"
        )


def open_plan(
    choice: object, settings: Settings, cache: Cache | str | os.PathLike[str] | None, destination: str | None
) -> Backend:
    """Return what runs nothing in the place of this backend: see `open_dry_run`.

    Raises:
        CallyardError: it is no backend, or no backend has the name.
    """
    from .dry_run.open_dry_run import open_dry_run  # here, because few programs plan

    return open_dry_run(_factory(choice) or _other_executor(choice), settings, cache, destination)


def other_resources(choice: object) -> Sequence[str]:
    """Return the keys of resources for this choice of a backend alone."""
    factory = _factory(choice)
    return () if factory is None else factory.other_resources


def _factory(choice: object) -> BackendFactory | None:
    """Return the description for a name or a class, or the choice itself if it is one; None for anything else."""
    name = _automatic() if choice == "auto" else choice
    found = (find_plugin(GROUP, name, OWN) or _jobs_of(name)) if isinstance(name, str) else name
    if not (hasattr(found, "open") and hasattr(found, "other_resources")):
        return None
    return cast("Callable[[], BackendFactory]", found)() if isinstance(found, type) else cast("BackendFactory", found)


def _jobs_of(name: str) -> BackendFactory | None:
    """Return the description for a scheduler of another package; None if there is no such scheduler."""
    if name.lower() not in map(str.lower, _other_schedulers()):
        return None
    from .job_backends import Jobs

    return Jobs(name)


def _other_schedulers() -> list[str]:
    """Return the names of the schedulers of other packages."""
    from ..schedulers.registry import GROUP as SCHEDULERS
    from ..schedulers.registry import OWN as OURS

    return [name for name in plugin_names(SCHEDULERS, {}) if name not in OURS]


def _automatic() -> str:
    """Return the name of the backend for the place of this process."""
    from ..schedulers.registry import scheduler_here  # here, because calls on this machine need no scheduler

    return scheduler_here(os.environ).lower() or "local"


def _open(choice: object, settings: Settings, cache: Cache | None) -> Backend:
    factory = _factory(choice)
    if factory is not None:
        host = getattr(factory, "host", None)  # few backends have one, and those of other packages need not
        if host is not None:
            return cast("SSH", host).open(cast("OnHost", factory).on_host(), settings, cache)
        return factory.open(settings, cache)
    from .pep3148 import Pep3148Backend

    return Pep3148Backend(_other_executor(choice), settings)


def _other_executor(choice: object) -> StandardExecutor:
    if isinstance(choice, StandardExecutor):
        return choice
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
    "openpbs": "pbs",
    "pbspro": "pbs",
    "bsub": "lsf",
    "sge": "gridengine",
    "grid_engine": "gridengine",
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
    names = list(dict.fromkeys([*plugin_names(GROUP, OWN), *map(str.lower, _other_schedulers())]))
    near = nearest(choice, [*names, *_WORDS, *_EXECUTORS]) if isinstance(choice, str) else []
    meant = dict.fromkeys(_EXECUTORS.get(word) or _WORDS.get(word, word) for word in near)
    known = ", ".join(repr(name) for name in names)
    return alternatives(meant) or f"; use {known}, Local(...), Slurm(...) and their like, or another executor"
