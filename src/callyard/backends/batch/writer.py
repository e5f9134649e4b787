"""The writer: it plans calls as few job arrays, and writes each array to a directory with all that its jobs need."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

from ...cache.directory import CacheDirectory
from ...cache.messages import RunRequest
from ...errors import CallyardError, ResourceError, UnpicklableCall
from ...hashing.digest import blake2b
from ...jobs.batch import Batch, CallFile, CallPosition
from ...jobs.planner import JobArray, plan
from ...jobs.spool import BatchDirectory
from ...jobs.submission import note_of
from ...jobs.throttle import ArrayThrottle
from ...pool.mpi_launcher import launch_command, launcher_environment
from ...resources import Resources
from ...system.process_identity import this_process
from ...system.processes import read_umask
from ...version import VERSION
from ..base import Settings
from ..live_base import pack_initializer
from ..resource_mapping import job_options, memory_bytes, shown, thread_variables
from .call import InputSource, JobCall, after_of, input_of, written
from .call_pickles import BufferFile

__all__ = ["BatchWriter", "JobSettings"]


Written = tuple[BatchDirectory, list[JobCall]]

_MOST_NAMED = 500  # arrays that one waits for, as long as that can be helped


class BatchWriter:
    """The writer of the calls of one executor."""

    def __init__(self, home: CacheDirectory, job_settings: JobSettings, settings: Settings, private: bool) -> None:
        self._home, self._job_settings, self._settings, self._private = home, job_settings, settings, private
        self._initializer = pack_initializer(settings)
        self._throttle = None if settings.max_workers is None else ArrayThrottle(settings.max_workers)

    # -- what can go wrong before --------------------------------------------------------------------------

    def is_prepared(self, call: JobCall) -> bool:
        """Return whether a call can be written; otherwise it has ended."""
        if call.future.done():
            return False
        try:
            self._prepare(call)
        except CallyardError as error:
            call.future.fail_with(error)
        except Exception as error:
            problem = UnpicklableCall(f"{call.name!r} cannot be written down for a job: {error}")
            problem.__cause__ = error
            call.future.fail_with(problem)
        return not call.future.done()

    def _prepare(self, call: JobCall) -> None:
        order = call.ticket.order() if call.ticket is not None else None
        call.id = (call.ticket.partial_key().identity if call.ticket is not None else "") or os.urandom(20).hex()
        if order is None:
            order = RunRequest(
                directory=self._home.path, inode=self._home.inode(), trust=self._home.trust, key=call.id,
                name=call.name, afresh=False, failures=False, references=call.references,
                code_only=self._settings.changes_data, source="", facts={},
            )  # fmt: skip
        if order.directory != self._home.path:  # the same call elsewhere is another one
            call.id = blake2b(f"{call.id} {order.directory}".encode(), digest_size=20).hexdigest()
        call.order = order
        call.inputs = [input_of(source, call.owner) for source in call.sources]

    # -- batches -------------------------------------------------------------------------------------------

    def write(self, calls: Sequence[JobCall], most: int) -> Iterator[Written]:
        """Write calls, in the order in which they can be submitted; arrays have at most so many elements."""
        first: dict[str, JobCall] = {}
        for call in calls:
            if first.setdefault(call.id, call) is not call:  # the same call twice at once is one job
                call.duplicate_of = first[call.id]
                first[call.id].duplicates.append(call)
        for call in first.values():  # only now, because what a twin stands for must be known
            call.after = [after_of(given.call) for given in call.inputs if isinstance(given, InputSource)]
        folders: dict[Any, BatchDirectory] = {}
        self._note_ends()
        for array in plan(list(first.values()), most, self._job_settings.calls_per_job):
            yield from self._write(array, folders)

    def _note_ends(self) -> None:
        if self._throttle is not None:
            self._throttle.update(
                {token: BatchDirectory(self._home, token).elements_left() for token in self._throttle.tokens()}
            )

    def is_crowded(self) -> bool:
        """Return whether a new array would name so many others for `max_workers` that calls are better gathered."""
        if self._throttle is None or len(self._throttle.tokens()) < _MOST_NAMED:
            return False
        self._note_ends()
        return len(self._throttle.tokens()) >= _MOST_NAMED

    def _write(self, array: JobArray[JobCall], folders: dict[Any, BatchDirectory]) -> Iterator[Written]:
        calls = array.calls
        buffers = BufferFile()
        packed = [self._call_file(call, buffers) for call in calls]
        ends = list(accumulate(map(len, packed)))
        positions = tuple(
            CallPosition(call.id, call.name, end - len(data), len(data))
            for call, data, end in zip(calls, packed, ends, strict=True)
        )
        directory = folders[array] = BatchDirectory(self._home, os.urandom(8).hex())
        batch = directory.prepare(self._batch(directory.token, array, positions, folders))
        everyone = [each for call in calls for each in (call, *call.duplicates)]
        try:
            script = self._script(directory, calls[0].resources, batch)
        except ResourceError as error:
            for each in everyone:
                each.future.fail_with(error)
            return
        directory.create(batch, packed, script, buffers.contents)
        for number, call in enumerate(calls):
            for each in (call, *call.duplicates):
                each.directory, each.number, each.ours = directory, number, True
                each.written()
        yield directory, everyone

    def _batch(
        self,
        token: str,
        array: JobArray[JobCall],
        positions: tuple[CallPosition, ...],
        folders: dict[Any, BatchDirectory],
    ) -> Batch:
        calls, resources, each = array.calls, array.calls[0].resources, self._job_settings.calls_per_job
        single = len(positions) == 1 and array.numbers is None
        names = list(dict.fromkeys(call.name for call in calls))
        numbers = tuple(array.numbers or range(-(-len(positions) // each)))
        after = tuple(after._replace(array=_token(after.array, folders)) for after in array.after)
        if self._throttle is not None:
            after = self._throttle.enter(token, len(numbers), after)
        return Batch(
            token=token, scheduler=self._job_settings.scheduler, calls=positions,
            elements=None if single else numbers, calls_per_job=each,
            needs=tuple(_token(other, folders) for other in array.needs), resources=shown(resources),
            environment={**self._job_settings.environment, **_variables(resources), **(resources.env or {})},
            restart_limit=resources.restart_limit, paths=tuple(sys.path), cwd=os.getcwd(), umask=read_umask(),
            submitter=this_process().label, created=time.time(),
            python=".".join(map(str, sys.version_info[:2])), callyard=VERSION, log_limit=self._job_settings.log_limit,
            request=note_of(
                names[0] if len(names) == 1 else f"{names[0]}+{len(names) - 1}", resources, self._settings.max_workers,
                self._job_settings.time(resources.run_time, resources.grace or 0.0),
                self._job_settings.template is not None, after,
            ),
        )  # fmt: skip

    def _script(self, directory: BatchDirectory, resources: Resources, batch: Batch) -> str:
        from ...schedulers.script import job_script, render, variables  # here, because only who submits needs it

        own = self._job_settings
        command = [*own.python, self._home.path, self._home.trust or "", directory.token]
        if own.template is None:
            return job_script(command, own.setup)
        known = variables(
            resources, command, job_name=resources.job_name or batch.request["name"], log=directory.log(0),
            setup=own.setup, time=batch.request["time"], elements=len(batch.elements) if batch.elements else None,
        )  # fmt: skip
        try:
            return render(own.template, known)
        except ValueError as error:
            raise ResourceError(str(error)) from error

    # -- calls ---------------------------------------------------------------------------------------------

    def _call_file(self, call: JobCall, buffers: BufferFile) -> bytes:
        assert call.order is not None
        meaning = call.ticket.partial_key().recipe if call.ticket is not None and not call.order.key else None
        resources = call.resources
        return CallFile(
            buffers.store(call.data), None if call.apart is None else buffers.store(call.apart),
            tuple(map(written, call.inputs)), call.order, meaning, self._initializer,
            job_options(resources), resources.run_time, memory_bytes(resources.memory) or None, resources.ranks,
            self._launcher(resources), self._job_settings.result_grace, self._private,
        ).dump()  # fmt: skip

    def _launcher(self, resources: Resources) -> tuple[str, ...]:
        """Return the launcher: the node's own; on several nodes, or where the user says so, the scheduler's."""
        if resources.ranks == 1:
            return ()
        if (resources.nodes or 1) == 1 and self._job_settings.mpi is None:
            return tuple(launch_command(resources.ranks, []))
        if self._job_settings.rank_launcher is None:
            raise ResourceError(f"{self._job_settings.scheduler} starts no ranks on several nodes; ask for nodes=1")
        return self._job_settings.rank_launcher(resources.ranks, resources.cores_per_rank, self._job_settings.mpi)


def _variables(resources: Resources) -> dict[str, str]:
    more = launcher_environment(None) if resources.ranks > 1 else {}
    return {**thread_variables(resources), **more}


def _token(array: Any, folders: dict[Any, BatchDirectory]) -> str:
    return array if isinstance(array, str) else folders[array].token


_MARGIN = 60.0  # s that a job may take beside its calls


@dataclass(frozen=True)
class JobSettings:
    """The user's settings for the scheduler, apart from the resources of each call."""

    scheduler: str
    python: tuple[str, ...]  # the command that makes the calls of a job, without its arguments
    defaults: Mapping[str, Any]  # partition, account ... of calls that do not say
    environment: Mapping[str, str] = field(default_factory=dict)  # of all jobs
    setup: tuple[str, ...] = ()
    template: str | None = None
    walltime: float | None = None
    mpi: str | None = None  # what the scheduler's launcher is told
    rank_launcher: Callable[[int, int, str | None], tuple[str, ...]] | None = None  # see `Site`
    calls_per_job: int = 1
    poll: tuple[float, float] = (5.0, 60.0)
    result_grace: float = 60.0
    log_limit: int = 100 << 20  # bytes

    def time(self, run_time: float | None, grace: float = 0.0) -> float | None:
        """Return the scheduler's limit for a job whose calls may take so long each, and then their grace (s)."""
        return self.walltime if run_time is None else (run_time + grace) * self.calls_per_job + _MARGIN
