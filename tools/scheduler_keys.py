#!/usr/bin/env python3
"""Print the page of the documentation about the keys of resources and the options of schedulers.

python tools/scheduler_keys.py > docs/scheduler-keys.md
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from callyard.backends.resource_mapping import rank_options, with_nodes
from callyard.errors import ResourceError
from callyard.resources import NAMES, Resources
from callyard.schedulers.base import JobRequest, Scheduler
from callyard.schedulers.flux.scheduler import FluxScheduler
from callyard.schedulers.slurm.scheduler import SlurmScheduler

HEAD = """\
<!-- Made by tools/scheduler_keys.py, which asks both schedulers of callyard.schedulers for jobs. -->

# Keys of resources and options of schedulers

What becomes of each [key](howto/resources.md) of a call that is a job: the words that `sbatch` and `flux submit` get
for it, beside those of a call without it. "Callyard" stands for keys that Callyard keeps itself. What a scheduler does
not have is refused at `submit`, with these words.

| key | Slurm | Flux |
|---|---|---|
"""
TAIL = """
- In a job on several nodes of Flux, and with its bindings, `flux start` makes an instance of the job's nodes, and
  `flux run` starts the ranks in it.
- `cpu_bind` and `gpu_bind` have the words of the scheduler: those of `srun`, or those of the options `cpu-affinity` and
  `gpu-affinity` of Flux.
- `nodelist` means all nodes that it names, so `nodes` has to be their number on Flux. One of several nodes is
  `constraint="host:n[1-4]"`.
- `begin` on Flux is a `datetime`, or a text such as "now+2hours", "2030-01-31" or "2030-01-31T16:00".
- `restart_limit` makes Slurm start the same job again. Flux starts none again: the call gets another job, from the
  script that waits for it or from `callyard resume`. A call whose process died while its job goes on runs again in
  that job.
"""
EXAMPLES: dict[str, Any] = {
    "ranks": 4, "cores_per_rank": 8, "gpus_per_rank": 1, "memory": 16, "run_time": 3600, "grace": 30, "warn_before": 60,
    "warn_signal": "HUP", "nodes": 2, "ranks_per_node": 2, "cpu_bind": "cores", "gpu_bind": "closest",
    "srun_args": "--hint=compute_bound", "exclusive": True, "priority": -5, "cwd": "runs", "env": {"A": "1"},
    "error_log_file": "errors", "restart_limit": 1, "partition": "cpu", "queue": "batch", "account": "physics",
    "qos": "long", "constraint": "ib", "gres": "ssd:1", "reservation": "course", "exclude": "n[1-4]", "nodelist": "n7",
    "licenses": "matlab:2", "begin": "now+2hours", "wckey": "atoms", "mail_type": "END", "mail_user": "me@site",
    "job_name": "relax", "slurm_cmd_args": "--oversubscribe",
}  # fmt: skip
FOR_FLUX = {"cpu_bind": "per-task", "gpu_bind": "per-task"}
WITH: dict[str, dict[str, Any]] = {
    "ranks_per_node": {"ranks": 4}, "cpu_bind": {"ranks": 2}, "gpu_bind": {"ranks": 2}, "srun_args": {"ranks": 2},
    "warn_signal": {"warn_before": 60},
}  # fmt: skip
NOT_OF_JOBS = ("cache_key", "cache_directory")
BY_THE_LAUNCHER = {"cpu_bind", "gpu_bind", "srun_args"}
HELD_BY_CALLYARD = "Callyard"


def words(scheduler: Scheduler, options: Callable[[Scheduler, JobRequest], Sequence[str]], key: str, value: Any) -> str:
    """Return the words for a key, or the refusal."""
    without = WITH.get(key, {})
    resources = with_nodes(Resources(**{**without, key: value}))
    try:
        scheduler.site().check(resources)
    except ResourceError as error:
        return f"refused: {str(error).rpartition(f'nothing to {scheduler.name}: ')[2]}"
    before = options(scheduler, request(Resources(**without)))
    found = [word for word in options(scheduler, request(resources)) if word not in before]
    if key in BY_THE_LAUNCHER:
        found = launcher_words(scheduler, resources)
    return ", ".join(f"`{word}`" for word in found) or HELD_BY_CALLYARD


def launcher_words(scheduler: Scheduler, resources: Resources) -> list[str]:
    site = scheduler.site()
    assert site.rank_options is not None
    assert site.rank_launcher is not None
    launcher = site.rank_launcher(resources.ranks, 1, None, None)
    command = " ".join(word for word in launcher if not word.startswith("-"))
    return [f"{command} {word}" for word in site.rank_options(rank_options(resources))]


def request(resources: Resources) -> JobRequest:
    limit = None if resources.run_time is None else resources.run_time + 60
    return JobRequest("call", "0" * 16, "script", "log", resources, time=limit, requeue=resources.restart_limit > 0)


def of_slurm(scheduler: Scheduler, asked: JobRequest) -> Sequence[str]:
    return scheduler.submit(asked).argv


def of_flux(scheduler: Scheduler, asked: JobRequest) -> Sequence[str]:
    told = json.loads(scheduler.submit(asked).stdin)
    return [*told["options"], *(f"--job-name={job['name']}" for job in told["jobs"])]


def page() -> str:
    rows = []
    for key in NAMES:
        if key not in NOT_OF_JOBS:
            value = EXAMPLES[key]
            slurm = words(SlurmScheduler(), of_slurm, key, value)
            flux = words(FluxScheduler(), of_flux, key, FOR_FLUX.get(key, value))
            rows.append(f"| `{key}` | {slurm} | {flux} |\n")
    return "".join([HEAD, *rows, TAIL])


if __name__ == "__main__":
    print(page(), end="")
