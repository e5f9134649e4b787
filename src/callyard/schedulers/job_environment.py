"""The variables by which a scheduler tells a process of its job where it is: their names, and what they say.

An array starts a thousand processes at once that load this module, so it loads next to nothing itself.
"""

from __future__ import annotations

from collections.abc import Mapping

from ..utils.frozen import Frozen

__all__ = ["JobEnvironment", "JobVariables"]


class JobEnvironment(Frozen):
    """The place of a process among the jobs of a scheduler; of one that is in no job, all of this is empty.

    `scheduler` is the name in the registry of schedulers, `array` the ID of the whole array, `element` the number in
    it, `restarts` how often the scheduler has started the job again, `cgroup` the name of the job's control group,
    `ends` when the job must have ended (s since 1970), and `in_step` is true in a process that the scheduler itself has
    started on a node.
    """

    scheduler: str = ""
    job: str = ""
    array: str = ""
    element: int | None = None
    node: str = ""
    restarts: int = 0
    cgroup: str = ""
    in_step: bool = False
    ends: float | None = None

    @property
    def job_id(self) -> str:
        """The text of `JobId`: the element of an array is named by the array."""
        return f"{self.array}_{self.element}" if self.array and self.element is not None else self.job


class JobVariables(Frozen):
    """The names of a scheduler's variables; an empty name stands for what it does not tell.

    To add a scheduler, make one of these in a module of its folder that loads next to nothing, and add it to the table
    in `current_job`. Only `job` is needed, a variable that each process of a job has and no other process: it shows
    whose job this is. Without `array` and `element` a scheduler has no arrays; an element of an array may have a `job`
    of its own, as with Slurm. Without `node` the name of the host is taken, without `restarts` no call is refused for
    having been started too often. `cgroup` is a pattern with "{job}" in it.
    """

    scheduler: str
    job: str
    array: str = ""
    element: str = ""
    node: str = ""
    restarts: str = ""
    ends: str = ""
    step: str = ""
    cgroup: str = ""

    def read(self, environ: Mapping[str, str]) -> JobEnvironment | None:
        """Return what the variables of a process say; None if it is in no job of this scheduler."""
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
            ends=float(ends) if (ends := environ.get(self.ends, "")).isdecimal() and int(ends) else None,
        )
