"""The public class `Flux`: the settings of an instance of Flux."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

from ..argument_checks import place_in_backend
from ..errors.suggestions import strict_init
from ..resource_values import Amount
from .live_settings import LiveSettings

__all__ = ["Flux"]


@strict_init(place_in_backend)
@dataclass(frozen=True)
class Flux(LiveSettings):
    """A cluster, or an allocation, that Flux manages: a backend for `Executor`.

    Inside an instance of the user's own (`flux alloc`, `flux batch`, `flux start`), or with `nodes`, calls are sent to
    workers on nodes. Elsewhere each call becomes a job of the system's instance, which outlives this process. The
    instance is that of `FLUX_URI`, else the system's.

    Args:
        nodes: the number of nodes to keep workers on, or (fewest, most): inside an instance of one's own, a number of
            its nodes; on the system's, jobs ask for nodes, as calls need them.
        walltime: the time limit of such a job, and of a call that is a job without `run_time`: seconds, or a text as
            "2h".
        queue: the queue of calls that name none.
        account: the account (Flux's bank) of calls that name none.
        constraint: the constraint on nodes of calls that name none, as `flux submit --requires` takes it.
        template: a Jinja job script in place of Callyard's own: its text, or the path of a file. Lines that begin with
            `# flux:` are options of `flux submit`. Calls may ask for resources by the names that it uses.
        mpi: how the ranks of a call over several nodes find each other, as `flux run -o pmi=` takes it; default:
            Flux's own.
        python: the interpreter on the nodes; default: this one.
        setup: lines of shell before it, as "module load gcc"; one text or several.
        teardown: lines of shell after the calls of a job, whatever has become of them; the outcome is known before.
        launcher: a command before it, as `("apptainer", "exec", "image.sif")`.
        interface: the network interface to listen on for workers, by its name or address; default: all.
        ports: the range of ports to listen on, (low, high), as open in a firewall.
        poll: how soon and how late Flux is asked what has become of jobs (s).
        result_grace: how long a result may take to become visible after its job has ended (s); not given to jobs that
            have left their exit code.
        calls_per_job: how many short calls one job makes, one after the other.
        log_limit: the most that the log of a job, or of each of its calls, may take on disk (GiB, or a text as
            "100MB"; at least 4 KiB). Of a longer log the beginning and the end are kept.
        detached: True for calls that are jobs, also in an instance of one's own, with which they end; default: see
            above.
        host: another machine that submits; not here yet.

    Raises:
        ResourceError: an argument makes no sense.
        CallyardError: two arguments do not go together, or `host` is given. `Executor` raises it, too, where the
            template cannot be read, and `SchedulerError` for `detached=False` in an instance of somebody else.
        TypeError: an argument is unknown.

    >>> flux = Flux(queue="batch", setup="module load gcc")
    >>> with Executor(backend=flux, cache="results") as executor:  # doctest: +SKIP
    ...     energy = executor.submit(relax, atoms, resource_dict={"cores": 4, "run_time": "2h"})
    """

    nodes: int | tuple[int, int] | None = None
    walltime: Amount = Amount()
    queue: str | None = None
    account: str | None = None
    constraint: str | None = None
    template: str | os.PathLike[str] | None = None
    mpi: str | None = None
    python: str | os.PathLike[str] | None = None
    setup: str | Sequence[str] = ()
    teardown: str | Sequence[str] = ()
    launcher: str | Sequence[str] = ()
    interface: str | None = None
    ports: tuple[int, int] | None = None
    poll: tuple[float, float] = (5.0, 60.0)
    result_grace: float = 60.0
    calls_per_job: int = 1
    log_limit: Amount = Amount("100MB")
    detached: bool | None = None
    host: None = None

    _scheduler = "Flux"
    _defaults = ("queue", "account", "constraint")
    _texts = ("mpi", "interface", "template", "python")

    def __post_init__(self) -> None:
        self._check()
