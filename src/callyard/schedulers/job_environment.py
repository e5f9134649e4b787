"""The environment variables of a scheduler's jobs: their names, and their values for the current process.

The submitter of a job, or the starter of an agent, passes on the names of the scheduler's variables. So a process of a
job loads no scheduler, nor looks for the schedulers of other packages, which takes longer than a short call. An array
starts a thousand processes at once, each of which loads this module: hence the few imports.
"""

from __future__ import annotations

import os

from ..utils.lite_stdlib import Frozen, Mapping, json_compact, json_loads

__all__ = ["JOB_VARIABLES", "JobEnvironment", "JobVariables", "current_job"]

JOB_VARIABLES = "CALLYARD_JOB_VARIABLES"


class JobEnvironment(Frozen):
    """The place of a process among the jobs of a scheduler; all fields are empty outside of jobs.

    `scheduler` is the name in the registry of schedulers, `array` the ID of the whole array, `element` the number in
    it, `restarts` the number of restarts by the scheduler (None if that does not tell it), `cgroup` the name of the
    job's control group, `ends` the end of its time (s since 1970), `nodes` the number of its nodes, and `in_step` is
    true in a process started on a node by the scheduler itself. In a process of an MPI program `rank` is its number,
    and `local_rank` its number among those of its node. For `time_limit_signal` see `JobVariables`.
    """

    scheduler: str = ""
    job: str = ""
    array: str = ""
    element: int | None = None
    node: str = ""
    restarts: int | None = 0
    cgroup: str = ""
    in_step: bool = False
    ends: float | None = None
    rank: int | None = None
    local_rank: int | None = None
    nodes: int | None = None
    time_limit_signal: str = ""
    signals_all: bool = False

    @property
    def job_id(self) -> str:
        """The text of `JobId`: the element of an array is named by the array."""
        return f"{self.array}_{self.element}" if self.array and self.element is not None else self.job


class JobVariables(Frozen):
    """The names of a scheduler's variables; an empty name stands for a fact without a variable.

    The names come from the `Site` of the scheduler. Only `job` is required: a variable of each process in a job and of
    no other process, as the mark of the scheduler's jobs. Without `array` and `element` a scheduler has no arrays; an
    element of an array may have a `job` of its own, as with Slurm. Without `node` the host name is used, without
    `restarts` a call that has begun once begins again only when its first process shows no life. `no_element` is no
    variable but the value of `element` in a job that is no array. `cgroup` is a pattern with "{job}" in it. `rank` and
    `local_rank` are set by the scheduler's launcher.

    `time_limit_signal` is no variable but the name of the signal by which the scheduler ends a job at its time limit,
    where that is not SIGTERM; with `signals_all` the signal goes to all processes of the job, the call's too.
    """

    scheduler: str
    job: str
    array: str = ""
    element: str = ""
    no_element: str = ""
    node: str = ""
    restarts: str = ""
    ends: str = ""
    step: str = ""
    cgroup: str = ""
    rank: str = ""
    local_rank: str = ""
    nodes: str = ""
    time_limit_signal: str = ""
    signals_all: bool = False

    def environment(self) -> dict[str, str]:
        """Return the variable from which a process of a job learns these names, with the value."""
        return {JOB_VARIABLES: json_compact({name: text for name, text in vars(self).items() if text})}

    def read(self, environ: Mapping[str, str]) -> JobEnvironment | None:
        """Return the job described by an environment; None outside of this scheduler's jobs."""
        job = environ.get(self.job)
        if not job:
            return None
        return JobEnvironment(
            scheduler=self.scheduler,
            job=job,
            array=environ.get(self.array, ""),
            element=None if environ.get(self.element) == self.no_element else _number(environ, self.element),
            node=environ.get(self.node, ""),
            restarts=_number(environ, self.restarts) or 0 if self.restarts else None,
            cgroup=self.cgroup.format(job=job),
            in_step=self.step in environ,
            ends=_number(environ, self.ends) or None,
            rank=_number(environ, self.rank),
            local_rank=_number(environ, self.local_rank),
            nodes=_number(environ, self.nodes),
            time_limit_signal=self.time_limit_signal,
            signals_all=self.signals_all,
        )


def _number(environ: Mapping[str, str], name: str) -> int | None:
    text = environ.get(name)
    return int(text) if text else None


def current_job(environ: Mapping[str, str] = os.environ) -> JobEnvironment:
    """Return the place of a process by its variables; an empty `JobEnvironment` outside of jobs."""
    names = environ.get(JOB_VARIABLES)
    job = JobVariables(**json_loads(names)).read(environ) if names else None
    return job or JobEnvironment()
