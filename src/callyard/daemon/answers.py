"""The commands that the daemon carries out, and its answers, which `schedulers/local` writes and reads."""

from __future__ import annotations

import json
import os
import traceback
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ..errors import CallyardError
from ..pool.call_shape import NodeCapacity
from ..schedulers.local.refusals import NOT_NOW
from .job_names import JobNames, host_of
from .job_runner import JobRunner
from .job_table import Job

__all__ = ["Commands"]

_Answer = tuple[int, str, str]  # exit status, output, error


class Commands:
    """What users of the daemon may ask for."""

    def __init__(self, runner: JobRunner, capacity: NodeCapacity, names: JobNames) -> None:
        self._runner, self._capacity, self._names = runner, capacity, names
        self.stopped = False
        self._known: dict[str, Callable[[Any, Mapping[str, str]], str]] = {
            "reach": lambda asked, environment: "",  # noqa: ARG005
            "submit": self._submit,
            "status": self._status,
            "find": self._find,
            "cancel": self._cancel,
            "about": self._about,
            "stop": self._stop,
        }

    def carry_out(self, command: str, given: str, environment: Mapping[str, str]) -> _Answer:
        """Carry out a command with its input; return exit status, output and error, as a program has them."""
        step = self._known.get(command)
        if step is None:
            return 1, "", f"there is no command {command!r}"
        try:
            return 0, step(json.loads(given or "{}"), environment), ""
        except OSError as error:
            return NOT_NOW, "", f"the daemon cannot write it down: {error}"
        except (ValueError, CallyardError) as error:
            return 1, "", str(error)
        except Exception as error:
            traceback.print_exc()
            return 1, "", f"the daemon failed at {command}: {error!r}"

    def _submit(self, asked: Mapping[str, Any], environment: Mapping[str, str]) -> str:
        return "".join(f"{name}\n" for name in self._runner.submit(asked, environment))

    def _status(self, asked: Mapping[str, Any], _: object) -> str:
        return "".join(f"{json.dumps(said)}\n" for said in self._states(asked["jobs"]))

    def _states(self, names: list[str]) -> Iterator[dict[str, Any]]:
        for name in names:
            job = self._runner.table.jobs.get(name)
            if job is not None:
                yield self._state(job)
            elif not self._names.is_own(name):
                yield {"job": name, "state": "elsewhere", "node": host_of(name)}

    def _state(self, job: Job) -> dict[str, Any]:
        said: dict[str, Any] = {"job": job.id, "state": job.state, "why": job.why, "words": job.words}
        return {**said, "node": self._names.host, "code": job.code, "signal": job.signal}

    def _find(self, asked: Mapping[str, Any], _: object) -> str:
        return "".join(f"{job.id} {job.token}\n" for job in self._runner.find(asked["token"]))

    def _cancel(self, asked: Mapping[str, Any], _: object) -> str:
        elsewhere = [name for name in asked["jobs"] if self._runner.is_elsewhere(name)]
        for name in asked["jobs"]:
            self._runner.cancel(name)
        if elsewhere:
            raise ValueError(f"{elsewhere[0]} is a job of another machine: cancel it there")
        return ""

    def _about(self, *_: object) -> str:
        states = [job.state for job in self._runner.table.jobs.values() if job.state != "ended"]
        cores, gpus, memory = self._capacity
        there = {"pid": os.getpid(), "cores": cores, "gpus": gpus, "memory": memory}
        there["used"] = self._runner.table.placement.in_use()
        return json.dumps({**there, **{state: states.count(state) for state in ("running", "waiting")}})

    def _stop(self, *_: object) -> str:
        self.stopped = True
        return ""
