"""The opening of a dry run: in the place of a backend, which is checked and not opened."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from concurrent.futures import Executor as StandardExecutor
from functools import partial

from ...errors import CallyardError
from ...result_cache import Cache
from ...utils.environment import DRY_RUN
from ..base import BackendFactory, Settings
from .backend import DryRunBackend
from .check_resources import resource_check
from .plan import Plan
from .read_cache import ReadCache

__all__ = ["open_dry_run"]


def open_dry_run(
    choice: BackendFactory | StandardExecutor,
    settings: Settings,
    cache: Cache | str | os.PathLike[str] | None,
    destination: str | None,
) -> DryRunBackend:
    """Return the backend of an executor that runs nothing.

    Args:
        choice: the backend that would run the calls.
        settings: the executor's.
        cache: where results are looked up. A directory is not made.
        destination: where the plan goes: "1" or None for stdout, else the path of a file.

    Raises:
        CallyardError: the settings do not go together.
    """
    opened = cache if cache is None or isinstance(cache, Cache) else ReadCache(cache, mode="read-only")
    check = resource_check(choice, settings, cache if isinstance(cache, Cache) else None)
    kind = type(choice).__name__
    return DryRunBackend(kind, check, settings, opened, _teller(destination))


def _teller(destination: str | None) -> Callable[[Plan], object]:
    if destination is None or destination.lower() in ("1", "yes", "true"):
        return print
    if not os.path.isabs(destination):
        raise CallyardError(
            f"{DRY_RUN}={destination!r} in the environment makes no sense: set it to 1, or to the absolute path of a "
            "file for the plans as JSON lines"
        )
    return partial(_append, destination)


def _append(path: str, plan: Plan) -> None:
    """Add a plan to a file, as a line of JSON."""
    line = json.dumps(plan.as_dict(), default=repr) + "\n"
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    with open(descriptor, "w", encoding="utf-8") as file:
        file.write(line)
