"""The refusal of resources in a dry run, by the rules of the backend, as far as no scheduler has to be asked."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor as StandardExecutor
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from ...resources import Resources
from ..base import BackendFactory, Settings
from ..job_backends import JobsOnly
from ..live_settings import LiveSettings
from ..local import Local
from ..local_jobs import job_check
from ..pep3148 import refuse_resources, refuse_settings
from ..resource_mapping import check_capacity, make_plan
from ..scheduler_settings import check_jobs_possible

if TYPE_CHECKING:
    from ...result_cache import Cache

__all__ = ["resource_check"]

Check = Callable[[Resources], object]


def resource_check(choice: BackendFactory | StandardExecutor, settings: Settings, cache: Cache | None) -> Check:
    """Return the check of the resources of a call, which raises ResourceError as `submit` would.

    Raises:
        CallyardError: the settings do not go together.
    """
    if isinstance(choice, StandardExecutor):
        refuse_settings(choice, settings)
        return partial(refuse_resources, choice)
    host = getattr(choice, "host", None)
    known = choice if host is None else cast("Any", choice).on_host()
    detached = _is_detached(known)
    if detached and host is None:
        check_jobs_possible(settings, cache)
    if isinstance(known, Local) and host is None:
        capacity = known.capacity(settings.max_workers)
        if not detached:
            return partial(make_plan, capacity=capacity)
        return job_check(settings, partial(check_capacity, capacity=capacity))
    if not isinstance(known, (Local, LiveSettings, JobsOnly)):  # of another package, whose rules only it knows
        return _accept
    return known.resource_check(settings, detached)


def _is_detached(known: object) -> bool:
    """Return True if calls would be jobs; without a question to a scheduler, the environment decides."""
    chosen = getattr(known, "detached", None)
    if chosen is not None or isinstance(known, Local):
        return bool(chosen)
    if isinstance(known, LiveSettings):
        return not known.would_be_live()
    return isinstance(known, JobsOnly)


def _accept(resources: Resources) -> None:
    """Accept any resources."""
