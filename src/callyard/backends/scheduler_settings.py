"""The settings that backends for schedulers have in common, and the backend of calls that are jobs."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, cast

from ..argument_checks import check_host
from ..errors import CallyardError, ResourceError
from ..resource_values import amount, whole
from ..utils.paths import expand
from .base import Backend, Settings
from .shell_lines import check_texts, lines

if TYPE_CHECKING:
    from ..resources import Resources
    from ..result_cache import Cache
    from ..schedulers.base import Scheduler
    from .batch.writer import JobSettings
    from .ssh import SSH

__all__ = ["SchedulerSettings", "check_jobs_possible"]


_LEAST_LOG = 1 << 12  # bytes: less would hold neither head nor tail


class SchedulerSettings:
    """The base of the public classes for schedulers, which are dataclasses with these fields and others.

    Attributes:
        _scheduler: its name in the registry of schedulers.
        _defaults: the fields that are resources of calls that name none.
        _options: the fields, texts too, that only this scheduler knows (`JobRequest.options`).
        _texts: the fields that are texts or paths.
    """

    _scheduler: ClassVar[str]
    _defaults: ClassVar[tuple[str, ...]]
    _options: ClassVar[tuple[str, ...]] = ()
    _texts: ClassVar[tuple[str, ...]] = ("template", "python")

    walltime: float | None
    template: str | os.PathLike[str] | None
    python: str | os.PathLike[str] | None
    setup: str | Sequence[str]
    teardown: str | Sequence[str]
    launcher: str | Sequence[str]
    poll: tuple[float, float]
    result_grace: float
    calls_per_job: int
    log_limit: float | None
    detached: bool | None
    host: SSH | None

    def _check(self) -> None:
        """Raise ResourceError or CallyardError for an argument that makes no sense."""
        object.__setattr__(self, "result_grace", amount("result_grace", self.result_grace))
        whole("calls_per_job", self.calls_per_job, 1)
        _check_poll(self.poll)
        if self.log_limit is None:
            raise ResourceError('log_limit must be an amount, as "100MB" or a number of GiB, not None')
        for name in (*self._defaults, *self._options, *self._texts):
            _check_text(name, getattr(self, name))
        if self.python is not None and self.host is None:  # the other computer knows its own homes
            object.__setattr__(self, "python", expand(os.fspath(self.python)))
        for name in ("setup", "teardown", "launcher"):
            check_texts(name, getattr(self, name))
        if not isinstance(self.detached, (bool, type(None))):
            raise ResourceError(f"detached must be True, False or None, not {self.detached!r}")
        check_host(self.host)

    def on_host(self) -> Any:
        """Return what is opened on the other computer."""
        return self._on_host(detached=True)

    def _on_host(self, detached: bool) -> Any:
        """Return what is opened on the other computer; a template is read here."""
        return replace(cast("Any", self), host=None, detached=detached, template=self._template_text())

    def resource_check(self, settings: Settings, detached: bool) -> Callable[[Resources], object]:
        """Return the check of a call's resources by texts alone: nothing is asked, as calls may be another computer's.

        Raises:
            CallyardError: the settings do not go together.
        """
        from ..schedulers.registry import open_scheduler
        from .batch.job_check import JobCheck

        check_jobs_possible(settings, None)
        scheduler = open_scheduler(self._scheduler)
        return JobCheck(scheduler, self._job_settings(scheduler)).check_call

    def _open_detached(self, settings: Settings, cache: Cache | None) -> Backend:
        from ..hosts.open_host import open_host
        from ..schedulers.registry import open_scheduler
        from .batch.backend import BatchBackend
        from .batch.scheduler_client import SchedulerClient
        from .run_directories import private_home

        check_jobs_possible(settings, cache)
        scheduler = open_scheduler(self._scheduler)
        jobs = self._job_settings(scheduler)
        directory = private_home() if cache is None else cache._directory
        client = SchedulerClient(scheduler, open_host(scheduler.site()), self.poll[0])
        return BatchBackend(client, directory, jobs, settings, cache is None)

    def _job_settings(self, scheduler: Scheduler) -> JobSettings:
        from .batch.writer import JobSettings

        site = scheduler.site()
        return JobSettings(
            scheduler.name,
            self._command(),
            self._asked(),
            environment=site.job_variables.environment(),
            setup=lines(self.setup),
            teardown=lines(self.teardown),
            template=self._template_text(),
            template_uses=self._template_uses(),
            walltime=self.walltime,
            mpi=getattr(self, "mpi", None),
            mpi_on_one_node=site.ranks_on_one_node,
            rank_launcher=site.rank_launcher,
            rank_options=site.rank_options,
            separate=site.separate,
            numbering=site.numbering,
            options=self._own(),
            calls_per_job=self.calls_per_job,
            poll=self.poll,
            result_grace=self.result_grace,
            log_limit=self._log_bytes(),
            exclude_failed_nodes=getattr(self, "exclude_failed_nodes", False),
        )

    def _asked(self) -> dict[str, str]:
        """Return the resources of all jobs: the partition or queue, the account ..."""
        return {name: value for name in self._defaults if (value := getattr(self, name)) is not None}

    def _log_bytes(self) -> int:
        from ..resource_values import memory_bytes

        return max(_LEAST_LOG, memory_bytes(self.log_limit))

    def _own(self) -> dict[str, str]:
        """Return the settings of the cluster that only this scheduler knows."""
        return {name: value for name in self._options if (value := getattr(self, name)) is not None}

    def _command(self) -> tuple[str, ...]:
        """Return the command that runs Callyard on a node, before its arguments."""
        from ..system.python_command import python_command

        own = python_command("callyard.worker.job", "main")
        if self.python is not None:
            own = [os.fspath(self.python), "-c", "from callyard.worker.job import main; main()"]
        return (*self._launcher(), *own)

    def _launcher(self) -> Sequence[str]:
        return shlex.split(self.launcher) if isinstance(self.launcher, str) else tuple(self.launcher)

    def _template_text(self) -> str | None:
        """Return the template, which may also be given as the path of a file."""
        if self.template is None:
            return None
        template = os.fspath(self.template)
        if "\n" in template:
            return template
        try:
            with open(template, encoding="utf-8") as file:
                return file.read()
        except OSError as error:
            raise CallyardError(f"the template {template!r} cannot be read: {error.strerror}") from error

    def _template_keys(self) -> Sequence[str]:
        """Return the names of the user's own in the template."""
        if self.template is None:
            return ()
        from ..schedulers.script import KNOWN

        return sorted(self._template_uses() - KNOWN)

    def _template_uses(self) -> frozenset[str]:
        """Return the variables of the template, some of which carry out settings that nothing else could."""
        text = self._template_text()
        if text is None:
            return frozenset()
        from ..schedulers.script import variables_of  # here, because this needs Jinja

        try:
            used = variables_of(text)
        except ValueError as error:
            raise CallyardError(str(error)) from error
        for setting, name in (("teardown", "teardown"), ("exclude_failed_nodes", "exclude")):
            if getattr(self, setting, None) and name not in used:
                raise CallyardError(
                    f"{setting} is given, and the template of the job script has no {{{{ {name} }}}} for it; add that"
                )
        return frozenset(used)


def check_jobs_possible(settings: Settings, cache: Cache | None) -> None:
    """Raise CallyardError for settings of an executor that calls as jobs cannot honour."""
    if settings.max_tasks_per_child is not None:
        raise CallyardError("max_tasks_per_child is for workers, and here each call is a job; leave it out")
    if cache is not None and cache.mode == "read-only":
        raise CallyardError("jobs are written into the cache, which mode='read-only' forbids; choose another mode")


_PATHS = ("template", "python")


def _check_text(name: str, value: object) -> None:
    if value is not None and not isinstance(value, (str, os.PathLike) if name in _PATHS else str):
        raise ResourceError(f"{name} must be a {'path' if name in _PATHS else 'string'}, not {value!r}")


def _check_poll(poll: object) -> None:
    if isinstance(poll, (tuple, list)) and len(poll) == 2 and all(isinstance(each, (int, float)) for each in poll):
        low, high = poll
        if 0 < low <= high:
            return
    raise ResourceError(f"poll must be two numbers of seconds, the smaller first, not {poll!r}")
