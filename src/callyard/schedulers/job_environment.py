"""The environment variables of a scheduler's jobs: their names, and their values for the current process.

An array starts a thousand processes at once that load this module, so it imports next to nothing.
"""

from __future__ import annotations

from collections.abc import Mapping

from ..utils.frozen import Frozen

__all__ = ["JobEnvironment", "JobVariables"]


class JobEnvironment(Frozen):
    """The place of a process among the jobs of a scheduler; all fields are empty outside of jobs.

    `scheduler` is the name in the registry of schedulers, `array` the ID of the whole array, `element` the number in
    it, `restarts` the number of restarts by the scheduler, `cgroup` the name of the job's control group, and `in_step`
    is true in a process started on a node by the scheduler itself.
    """

    scheduler: str = ""
    job: str = ""
    array: str = ""
    element: int | None = None
    node: str = ""
    restarts: int = 0
    cgroup: str = ""
    in_step: bool = False

    @property
    def job_id(self) -> str:
        """The text of `JobId`: the element of an array is named by the array."""
        return f"{self.array}_{self.element}" if self.array and self.element is not None else self.job


class JobVariables(Frozen):
    """The names of a scheduler's variables; an empty name stands for a fact without a variable.

    To add a scheduler, make one of these in a light module of its folder, and add it to the table in `current_job`.
    Only `job` is required: a variable of each process in a job and of no other process, to show which scheduler the job
    belongs to. Without `array` and `element` a scheduler has no arrays; an element of an array may have a `job` of its
    own, as with Slurm. Without `node` the host name is used, without `restarts` no call is refused after too many
    restarts. `cgroup` is a pattern with "{job}" in it.
    """

    scheduler: str
    job: str
    array: str = ""
    element: str = ""
    node: str = ""
    restarts: str = ""
    step: str = ""
    cgroup: str = ""

    def read(self, environ: Mapping[str, str]) -> JobEnvironment | None:
        """Return the job described by an environment; None outside of this scheduler's jobs."""
        job = environ.get(self.job)
        if not job:
            return None
        element = environ.get(self.element)
        return JobEnvironment(
            scheduler=self.scheduler,
            job=job,
            array=environ.get(self.array, ""),
            element=int(element) if element else None,
            node=environ.get(self.node, ""),
            restarts=int(environ.get(self.restarts) or 0),
            cgroup=self.cgroup.format(job=job),
            in_step=self.step in environ,
        )
