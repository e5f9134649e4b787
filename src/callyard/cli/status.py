"""Show what runs now: the executors of all your processes on this machine, and with a directory the jobs of that cache.

Each executor is shown with the numbers of its calls, what they wait for, where they run, and the resources in use. A
call is named by process and number, as 4711:12; `callyard cancel` takes that name. Nothing is shown of processes on
other machines.
"""

from __future__ import annotations

import argparse
import os
from collections import Counter
from typing import Any

from ..hosts.daemon import ask as ask_daemon
from ..jobs.list_job_calls import calls_of_jobs
from ..report.ask_processes import ProcessAnswer, ask_all
from ..status.executor_status import ExecutorStatus
from .arguments import VARIABLE, add_json, add_place, open_cache, print_json, split

__all__ = ["configure", "name_of_executor", "run"]

_PATIENCE = 1.0  # s for the daemon


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    add_json(parser, "an object")
    add_place(parser)


def run(options: argparse.Namespace) -> int:
    """Print the status."""
    processes = ask_all("status")
    daemon = _daemon()
    jobs = _jobs(options) if options.words or options.cache or os.environ.get(VARIABLE) else None
    if options.json:
        print_json({"processes": list(map(_as_dict, processes)), "daemon": daemon, "jobs": jobs})
        return 0
    lines = [line for process in processes for line in _lines(process)]
    lines += _lines_of_daemon(daemon)
    if jobs is not None:
        lines += _lines_of_jobs(*jobs.popitem()) if jobs else []
    print(*(lines or ["no executor runs here, and no job of this machine's daemon"]), sep="\n")
    return 0


# -- executors -----------------------------------------------------------------------------------------


def _as_dict(process: ProcessAnswer) -> dict[str, Any]:
    return {"pid": process.pid, "problem": process.problem or None, **(process.answer or {})}


def name_of_executor(pid: int, number: int) -> str:
    """Return the name of an executor: that of its process, and its number there if it is not the first."""
    return str(pid) if number == 1 else f"{pid}.{number}"


def _lines(process: ProcessAnswer) -> list[str]:
    if process.answer is None:
        return [f"process {process.pid} {process.problem}"]
    if "error" in process.answer:
        return [f"process {process.pid} could not tell: {process.answer['error']}"]
    found = []
    for said in process.answer["executors"]:
        name = name_of_executor(process.pid, said["number"])
        status = ExecutorStatus.from_dict(said)
        status.executor = f"{name} {process.answer['script']}: {status.executor}"
        found += str(status).splitlines()
    return found


# -- jobs ----------------------------------------------------------------------------------------------


def _daemon() -> dict[str, Any] | None:
    """Return what the daemon of this machine says of itself; None without one."""
    import json  # here, because it is known to be small

    answer = ask_daemon("about", _PATIENCE)
    if answer is None or answer.get("code") != 0:
        return None
    said: dict[str, Any] = json.loads(answer["out"])
    return said


def _lines_of_daemon(said: dict[str, Any] | None) -> list[str]:
    if said is None:
        return []
    counts = f"{said.get('running', 0)} running, {said.get('waiting', 0)} waiting"
    there = {"cores": said["cores"], "gpus": len(said["gpus"]), "memory": said["memory"]}
    use = ExecutorStatus(capacity=there, used=said["used"]).use_in_words() if "used" in said else ""  # of an older one
    lines = [f"  in use: {use}"] if use else []
    return [f"{said['pid']} the daemon of this machine's detached calls", f"  jobs: {counts}", *lines]


def _jobs(options: argparse.Namespace) -> dict[str, dict[str, dict[str, int]]]:
    """Return the numbers of the cache's calls that are jobs, by function and state."""
    directory, _ = split(options, 0)
    cache = open_cache(options, directory)
    counts: dict[str, Counter[str]] = {}
    for call in calls_of_jobs(cache._directory):
        counts.setdefault(call.name, Counter())[call.state] += 1
    return {cache.path: {name: dict(states) for name, states in counts.items()}}


def _lines_of_jobs(path: str, counts: dict[str, dict[str, int]]) -> list[str]:
    if not counts:
        return [f"{path}: no jobs"]
    lines = [f"{path}: jobs"]
    for name, states in sorted(counts.items()):
        lines.append(f"  {name}: {', '.join(f'{number:,} {state}' for state, number in sorted(states.items()))}")
    return lines
