"""Slurm as a backend: what its users say of it, and which of the two lives their calls get."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import CallyardError, ResourceError
from ..errors.suggestions import strict_init
from ..resources import Amount, amount, whole
from ..usage_errors import place_in_backend
from ..utils.paths import expand
from .base import Backend, Settings

if TYPE_CHECKING:
    from ..cache.cache import Cache

__all__ = ["Slurm"]


@strict_init(place_in_backend)
@dataclass(frozen=True)
class Slurm:
    """A cluster that Slurm manages: a backend for `Executor`.

    Outside an allocation each call becomes a job that outlives this process (`detached`); inside one, or with `nodes`,
    calls are sent to workers on its nodes.

    Args:
        nodes: how many nodes to keep workers on, a number or (fewest, most): outside an allocation they are asked for
            by jobs, as they are needed; inside, how many of its own.
        walltime: the time limit (s, or a text as "2h") of such a job, and of a call that is a job without `run_time`.
        partition: of calls that do not say.
        account: likewise.
        qos: likewise.
        constraint: likewise.
        template: a Jinja job script, in place of Callyard's own.
        mpi: what `srun --mpi=` is told.
        python: the interpreter on the nodes; default: this one.
        setup: lines of shell before it, as `module load`; one text or several.
        launcher: a command before it, as `("apptainer", "exec", "image.sif")`.
        interface: the network interface to listen on for workers, by its name or address; default: all.
        ports: the range of ports to listen on, (low, high), where a firewall wants that.
        poll: how soon and how late the scheduler is asked what has become of jobs (s).
        result_grace: for how long a result may become visible after its job has ended (s).
        calls_per_job: how many short calls one job makes, one after the other.
        detached: which life; default: see above.

    >>> Executor(backend=Slurm(partition="short", setup="module load gcc"), cache="results")
    """

    nodes: int | tuple[int, int] | None = None
    walltime: Amount = Amount()
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    template: str | os.PathLike[str] | None = None
    mpi: str | None = None
    python: str | os.PathLike[str] | None = None
    setup: str | Sequence[str] = ()
    launcher: str | Sequence[str] = ()
    interface: str | None = None
    ports: tuple[int, int] | None = None
    poll: tuple[float, float] = (5.0, 60.0)
    result_grace: float = 60.0
    calls_per_job: int = 1
    detached: bool | None = None
    host: None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "result_grace", amount("result_grace", self.result_grace))
        whole("calls_per_job", self.calls_per_job, 1)
        _check_nodes(self.nodes)
        _check_poll(self.poll)
        _check_ports(self.ports)
        for name in _TEXTS:
            _check_text(name, getattr(self, name))
        if self.python is not None:
            object.__setattr__(self, "python", expand(os.fspath(self.python)))
        for name in ("setup", "launcher"):
            _check_texts(name, getattr(self, name))
        if not isinstance(self.detached, (bool, type(None))):
            raise ResourceError(f"detached must be True, False or None, not {self.detached!r}")
        if self.host is not None:
            raise CallyardError("Slurm on another machine by SSH is not here yet; run this on a login node")
        if self.detached and self.nodes is not None and not self.inside:
            raise CallyardError(
                "detached=True makes each call a job of its own; leave out nodes=, or say detached=False"
            )

    @property
    def inside(self) -> bool:
        """Whether this process is inside an allocation."""
        return "SLURM_JOB_ID" in os.environ

    @property
    def is_detached(self) -> bool:
        """Which life calls get."""
        return (not self.inside and self.nodes is None) if self.detached is None else self.detached

    @property
    def other_resources(self) -> Sequence[str]:
        """The keys of the user's own that a call may have: those that its job's template uses."""
        return self.own_keys() if self.is_detached else ()

    def own_keys(self) -> Sequence[str]:
        """The names of the user's own that the template uses."""
        text = self.template_text()
        if text is None:
            return ()
        from ..schedulers.script import KNOWN, variables_of  # here, because it needs Jinja

        try:
            return sorted(variables_of(text) - KNOWN)
        except ValueError as error:
            raise CallyardError(str(error)) from error

    def command(self) -> tuple[str, ...]:
        """The command that runs Callyard on a node, before its arguments."""
        from ..pool.zygote_process import python_command

        launcher = shlex.split(self.launcher) if isinstance(self.launcher, str) else list(self.launcher)
        own = python_command("callyard.worker.job", "main")
        if self.python is not None:
            own = [os.fspath(self.python), "-c", "from callyard.worker.job import main; main()"]
        return (*launcher, *own)

    def setup_lines(self) -> tuple[str, ...]:
        """The shell's lines before Python."""
        return tuple(self.setup.splitlines() if isinstance(self.setup, str) else self.setup)

    def template_text(self) -> str | None:
        """The template, which may also be given as the path of a file."""
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

    def open(self, settings: Settings, memory: Cache | None) -> Backend:
        if self.is_detached:
            return self._open_detached(settings, memory)
        if self.nodes is not None and not self.inside:
            from .slurm_launch import open_nodes

            return open_nodes(self, settings)
        from .slurm_launch import open_live

        return open_live(self, settings)

    def _open_detached(self, settings: Settings, memory: Cache | None) -> Backend:
        from ..hosts.this_machine import LocalHost
        from ..schedulers.slurm import commands
        from .batch.backend import BatchBackend
        from .batch.scheduler_client import SchedulerClient
        from .batch.writer import JobSettings
        from .run_directories import private_home

        if settings.max_tasks_per_child is not None:
            raise CallyardError("max_tasks_per_child is for workers, and here each call is a job; leave it out")
        if memory is not None and memory.mode == "read-only":
            raise CallyardError("jobs are written into the cache, which mode='read-only' forbids; choose another mode")
        terms = JobSettings(
            "Slurm",
            self.command(),
            {name: value for name in _DEFAULTS if (value := getattr(self, name)) is not None},
            setup=self.setup_lines(),
            template=self.template_text(),
            walltime=self.walltime,
            mpi=self.mpi,
            calls_per_job=self.calls_per_job,
            poll=self.poll,
            result_grace=self.result_grace,
        )
        home = private_home() if memory is None else memory._directory
        return BatchBackend(SchedulerClient(commands, LocalHost(), self.poll[0]), home, terms, settings, memory is None)


_DEFAULTS = ("partition", "account", "qos", "constraint")
_TEXTS = (*_DEFAULTS, "mpi", "interface", "template", "python")
_PATHS = ("template", "python")


def _check_text(name: str, value: object) -> None:
    if value is not None and not isinstance(value, (str, os.PathLike) if name in _PATHS else str):
        raise ResourceError(f"{name} must be a {'path' if name in _PATHS else 'string'}, not {value!r}")


def _check_texts(name: str, value: object) -> None:
    texts = isinstance(value, Sequence) and all(isinstance(each, str) for each in value)
    if not texts or isinstance(value, bytes):
        raise ResourceError(f"{name} must be a string or several of them, not {value!r}")


def _check_poll(poll: object) -> None:
    if isinstance(poll, (tuple, list)) and len(poll) == 2 and all(isinstance(each, (int, float)) for each in poll):
        low, high = poll
        if 0 < low <= high:
            return
    raise ResourceError(f"poll must be two numbers of seconds, the smaller first, not {poll!r}")


def _check_ports(ports: object) -> None:
    if ports is None:
        return
    if isinstance(ports, (tuple, list)) and len(ports) == 2 and all(type(each) is int for each in ports):
        low, high = ports
        if 0 < low <= high < 1 << 16:
            return
    raise ResourceError(f"ports must be (lowest, highest) of a range of ports, not {ports!r}")


def _check_nodes(nodes: object) -> None:
    if nodes is None or isinstance(nodes, int):
        whole("nodes", 1 if nodes is None else nodes, 1)
        return
    if isinstance(nodes, tuple) and len(nodes) == 2 and all(type(number) is int for number in nodes):
        low, high = nodes
        if 0 <= low <= high and high >= 1:
            return
    raise ResourceError(f"nodes must be a number of nodes or (fewest, most), not {nodes!r}")
