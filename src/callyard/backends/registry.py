"""From what a user passes as `backend=` to a backend that runs calls."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import Executor as StandardExecutor
from typing import TYPE_CHECKING, Any

from ..errors import CallyardError
from ..errors.suggestions import alternatives, nearest
from .base import Backend, Settings
from .local import Local
from .pep3148 import Pep3148Backend
from .slurm import Slurm

if TYPE_CHECKING:
    from ..cache.cache import Cache

_NAMES: dict[str, Any] = {"local": Local, "slurm": Slurm}


def open_backend(choice: Any, settings: Settings, cache: Cache | str | os.PathLike[str] | None = None) -> Backend:
    """The backend for a name, a description such as `Local(...)`, or another executor; with a memory if asked for."""
    if cache is None:
        return _plain_backend(choice, settings, None)
    from ..cache.cache import Cache  # here and below, because calls that are not remembered need nothing of it
    from .cached.backend import CachedBackend

    memory = cache if isinstance(cache, Cache) else Cache(cache)
    return CachedBackend(_plain_backend(choice, settings, memory), memory, settings)


def other_resources(choice: Any) -> Sequence[str]:
    """Keys of resources that only this choice of a backend knows."""
    described = _described(choice)
    return described.other_resources if isinstance(described, Slurm) else ()


def _described(choice: Any) -> Any:
    """The description that a name or a class stands for; another choice as it is."""
    if isinstance(choice, type) and choice in _NAMES.values():
        return choice()
    return _NAMES[choice]() if isinstance(choice, str) and choice in _NAMES else choice


def _plain_backend(choice: Any, settings: Settings, memory: Cache | None) -> Backend:
    choice = _described(choice)
    if isinstance(choice, Local):
        return choice.open(settings)
    if isinstance(choice, Slurm):
        return choice.open(settings, memory)
    if isinstance(choice, StandardExecutor):
        return Pep3148Backend(choice, settings)
    raise CallyardError(f"backend={choice!r} is none that this version knows{_instead(choice)}")


# Names that people expect -> what to pass.
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
}


def _instead(choice: Any) -> str:
    """Say what to write in place of something that is no backend."""
    if isinstance(choice, type) and issubclass(choice, StandardExecutor):
        return f", but the class of another executor: call it, as {choice.__name__}()"
    if callable(getattr(choice, "get_executor", None)):
        return ", but it has one: pass what its get_executor() returns"
    if isinstance(choice, str) and choice.lower() in _EXECUTORS:
        return f": pass {_EXECUTORS[choice.lower()]}"
    near = nearest(choice, [*_NAMES, *_WORDS, *_EXECUTORS]) if isinstance(choice, str) else []
    meant = dict.fromkeys(_EXECUTORS.get(word) or _WORDS.get(word, word) for word in near)
    known = ", ".join(repr(name) for name in _NAMES)
    return alternatives(meant) or f"; use {known}, Local(...), Slurm(...) or another executor"
