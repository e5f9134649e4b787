"""The writer: few job arrays for many new calls, each array in a directory with all data for the jobs."""

from __future__ import annotations

import contextlib
import os
import shlex
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import accumulate
from typing import Any, cast

from ...cache.directory import CacheDirectory
from ...cache.messages import RunRequest
from ...errors import CacheError, CallyardError, ResourceError, SchedulerError, UnpicklableCall
from ...hashing.digest import blake2b
from ...jobs.batch import Batch, CallFile, CallPosition
from ...jobs.next_limits import limits_of
from ...jobs.planner import ArrayDependency, JobArray, plan
from ...jobs.spool import BatchDirectory, exit_file
from ...jobs.submission import check_text, job_time, note_of
from ...jobs.throttle import ArrayThrottle, LaneThrottle
from ...pool.mpi_launcher import launcher_environment
from ...resource_values import memory_bytes
from ...resources import Resources
from ...schedulers.base import Numbering, Share
from ...schedulers.job_environment import JOB_VARIABLES
from ...schedulers.steps import RankOptions
from ...system.machine import GPUS
from ...system.process_identity import this_process
from ...system.processes import read_umask
from ...utils.command_thread import CommandThread, Steps
from ...utils.lite_stdlib import json_loads
from ...version import VERSION
from ...worker.communicator import MPIEXEC
from ..base import Settings
from ..live_base import pack_initializer
from ..resource_mapping import job_options, rank_options, shown, thread_variables
from .call import InputSource, JobCall, after_of, input_of, written
from .call_pickles import BufferFile
from .delivery import Delivery
from .earlier_batches import EarlierBatches
from .executor_state_machine import ExecutorState
from .scheduler_client import SchedulerClient, SubmissionRefused, mistake
from .submitter import Submitter

__all__ = ["BatchWriter", "Intake", "JobSettings"]

_MOST_NAMED = 500  # arrays before one array, at most if possible


class BatchWriter:
    """The writer of the calls of one executor."""

    def __init__(self, home: CacheDirectory, job_settings: JobSettings, settings: Settings, private: bool) -> None:
        self._home, self._job_settings, self._settings, self._private = home, job_settings, settings, private
        self._initializer = pack_initializer(settings)
        most, separate = settings.max_workers, job_settings.separate
        self._throttle = None if most is None or separate else ArrayThrottle(most, os.urandom(8).hex())
        self._lanes = LaneThrottle(most, f"lane.{os.urandom(4).hex()}") if most is not None and separate else None
        self._folders: dict[Any, BatchDirectory] = {}  # of the arrays of a plan

    # -- checks ----------------------------------------------------------------------------------------------

    def is_prepared(self, call: JobCall) -> bool:
        """Return True if a call can be written; otherwise the call has ended."""
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
                code_only=self._settings.changes_data, source="", facts={}, keeps_files=False,
            )  # fmt: skip
        if order.directory != self._home.path:  # the same call elsewhere is another one
            call.id = blake2b(f"{call.id} {order.directory}".encode(), digest_size=20).hexdigest()
        call.order = order
        call.inputs = [input_of(source, call.owner) for source in call.sources]
        self._launcher(call.resources)  # refuses impossible ones, before other calls share an array with this one

    # -- batches -------------------------------------------------------------------------------------------

    def arrays(self, calls: Sequence[JobCall], most: int) -> list[JobArray[JobCall]]:
        """Return arrays of some calls, in an order that permits their writing and submission.

        Each has at most `most` elements. Arrays of an earlier plan cannot be written any more.
        """
        first: dict[str, JobCall] = {}
        for call in calls:
            if first.setdefault(call.id, call) is not call:  # the same call twice at once is one job
                call.duplicate_of = first[call.id]
                first[call.id].duplicates.append(call)
        for call in first.values():  # only now, after all twins have been found
            call.after = [after_of(given.call) for given in call.inputs if isinstance(given, InputSource)]
        self._folders.clear()
        self._note_ends()
        own = self._job_settings
        return plan(list(first.values()), most, own.calls_per_job, separate=own.separate, first=own.numbering.first)

    def forget_arrays(self) -> None:
        """Let go of the arrays of the plan, once they are written: they would keep all futures and results alive."""
        self._folders.clear()

    def _note_ends(self) -> None:
        left: dict[str, int] = {}
        for token in () if self._throttle is None else self._throttle.tokens():
            with contextlib.suppress(OSError, CallyardError):  # an unreadable file counts as before
                left[token] = BatchDirectory(self._home, token).elements_left()
        if self._throttle is not None:
            self._throttle.update(left)

    def note_successors(self, known: Iterable[BatchDirectory]) -> None:
        """Count the successors of calls of this executor, which others have written, for `max_workers`."""
        for directory in known:
            request = directory.batch.request
            if self._throttle is not None and request.get("behind") and request["throttle"] == self._throttle.name:
                self._throttle.join(directory.token, directory.elements_left())

    def is_crowded(self) -> bool:
        """Return True if a new array would name so many others for `max_workers` that calls are better gathered."""
        if self._throttle is None or len(self._throttle.tokens()) < _MOST_NAMED:
            return False
        self._note_ends()
        return len(self._throttle.tokens()) >= _MOST_NAMED

    def write(self, array: JobArray[JobCall]) -> BatchDirectory | None:
        """Write an array; return None if no caller waits any more, because inputs have just failed."""
        directory = self._folders[array] = BatchDirectory(self._home, os.urandom(8).hex())  # for later arrays
        if all(call.future.done() for call in calls_of(array)):
            return None
        calls = array.calls
        buffers = BufferFile()
        packed = [self._call_file(call, buffers) for call in calls]
        ends = list(accumulate(map(len, packed)))
        positions = tuple(
            CallPosition(call.id, call.name, end - len(data), len(data))
            for call, data, end in zip(calls, packed, ends, strict=True)
        )
        batch = directory.prepare(self._batch(directory.token, array, positions))
        script, *scripts = self._scripts(directory, calls[0].resources, batch).items()
        directory.create(batch, packed, script[1], buffers=buffers.contents, scripts=dict(scripts))
        for number, call in enumerate(calls):
            for each in (call, *call.duplicates):
                each.directory, each.number, each.ours = directory, number, True
                each.written()
        return directory

    def _batch(self, token: str, array: JobArray[JobCall], positions: tuple[CallPosition, ...]) -> Batch:
        calls, resources, each = array.calls, array.calls[0].resources, self._job_settings.calls_per_job
        single = len(positions) == 1 and array.numbers is None
        names = list(dict.fromkeys(call.name for call in calls))
        first = self._job_settings.numbering.first
        numbers = tuple(array.numbers or range(first, first - (-len(positions) // each)))
        after = self._named(array.after)
        if self._throttle is not None:
            after = self._throttle.enter(token, len(numbers), after)
        return Batch(
            token=token, scheduler=self._job_settings.scheduler, calls=positions,
            elements=None if single else numbers, calls_per_job=each,
            needs=tuple(self._token(other) for other in array.needs), resources=shown(resources),
            environment={**self._job_settings.environment, **_variables(resources), **(resources.env or {})},
            restart_limit=resources.restart_limit, paths=_import_paths(), cwd=_current_directory(), umask=read_umask(),
            submitter=this_process().label, created=time.time(),
            python=".".join(map(str, sys.version_info[:2])), callyard=VERSION, log_limit=self._job_settings.log_limit,
            executor=self._settings.executor,
            request={"throttle": "" if self._throttle is None else self._throttle.name} | note_of(
                names[0] if len(names) == 1 else f"{names[0]}+{len(names) - 1}", resources,
                None if self._job_settings.separate else self._settings.max_workers,
                self._job_settings.time(resources.run_time, resources.grace or 0.0),
                self._job_settings.template is not None, after,
                list(map(self._named, array.after_each)),
                [] if self._lanes is None else self._lanes.enter(len(numbers)), self._job_settings.options,
                starts_ranks=resources.ranks > 1 and not self._is_for_the_node(resources),
                share=self._job_settings.share,
            ),
        )  # fmt: skip

    def _named(self, after: Iterable[ArrayDependency]) -> tuple[ArrayDependency, ...]:
        return tuple(each._replace(array=self._token(each.array)) for each in after)

    def _exit_file(self, directory: BatchDirectory, batch: Batch) -> str:
        """Return the file for the script's exit code, as a shell text; empty if the script cannot know the name."""
        element = "0"
        if batch.elements is not None:
            variable = json_loads(batch.environment.get(JOB_VARIABLES, "{}")).get("element")
            if not variable:
                return ""
            element = f'"${variable}"'
        return shlex.quote(f"{directory.path}/") + exit_file(element)

    def _token(self, array: Any) -> str:
        return array if isinstance(array, str) else self._folders[array].token

    def _scripts(self, directory: BatchDirectory, resources: Resources, batch: Batch) -> dict[str, str]:
        """Return the script of a batch, and from a template those of later attempts of its calls, by their limits.

        A later attempt is a job of a single call, for which another process asks, perhaps without the template.
        """
        from ...schedulers.script import job_script  # here, because only a submitter needs this

        own, (first, *later) = self._job_settings, resources.attempts()
        command = [*own.python, self._home.path, self._home.trust or "", directory.token]
        if own.template is None:
            exit_file = self._exit_file(directory, batch)
            return {limits_of(first): job_script(command, own.setup, exit_file=exit_file, teardown=own.teardown)}
        scripts = {limits_of(first): self._rendered(own.template, directory, first, batch, batch.request["time"])}
        for each in later:
            time = own.walltime if each.run_time is None else job_time(each.run_time, each.grace or 0.0, 1)
            scripts[limits_of(each)] = self._rendered(own.template, directory, each, batch, time)
        return scripts

    def _rendered(
        self, template: str, directory: BatchDirectory, resources: Resources, batch: Batch, time: float | None
    ) -> str:
        from ...schedulers.script import render, variables  # here, likewise

        own = self._job_settings
        known = variables(
            resources, [*own.python, self._home.path, self._home.trust or "", directory.token],
            job_name=resources.job_name or batch.request["name"], log=directory.log(0), setup=own.setup,
            teardown=own.teardown, time=time, elements=len(batch.elements) if batch.elements else None,
        )  # fmt: skip
        try:
            return render(template, known)
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
            self._launcher(resources), self._job_settings.result_grace, self._private, self._spread_launcher(resources),
            _gpus_to_share(resources),
        ).dump()  # fmt: skip

    def _launcher(self, resources: Resources) -> tuple[str, ...]:
        """Return the launcher: the node's own; on several nodes, or by the user's choice, the scheduler's."""
        if resources.ranks == 1:
            return ()
        if self._is_for_the_node(resources):
            return (MPIEXEC, "-n", str(resources.ranks))
        return self._scheduler_launcher(resources)

    def _spread_launcher(self, resources: Resources) -> tuple[str, ...]:
        """Return the scheduler's launcher, if the scheduler may choose several nodes for ranks of the node's own."""
        may = resources.ranks > 1 and resources.nodes is None and self._job_settings.rank_launcher is not None
        return self._scheduler_launcher(resources) if may and self._is_for_the_node(resources) else ()

    def _is_for_the_node(self, resources: Resources) -> bool:
        own = self._job_settings
        is_plain = not (own.mpi and own.mpi_on_one_node) and rank_options(resources) == RankOptions()
        return is_plain and (resources.nodes or 1) == 1

    def _scheduler_launcher(self, resources: Resources) -> tuple[str, ...]:
        own, options = self._job_settings, rank_options(resources)
        if own.rank_launcher is None:
            raise ResourceError(f"{own.scheduler} starts no ranks on several nodes; ask for nodes=1")
        words = own.rank_launcher(resources.ranks, resources.cores_per_rank, own.mpi, resources.nodes)
        if options == RankOptions():
            return words
        if own.rank_options is None:
            raise ResourceError(f"{own.scheduler} binds no ranks: leave out cpu_bind, gpu_bind and srun_args")
        return (*words, *own.rank_options(options))


def _gpus_to_share(resources: Resources) -> int | None:
    """Return the GPUs of each rank, unless the launcher or the user gives each rank its own."""
    said = resources.gpu_bind is not None or any(name in GPUS for name in resources.env or ())
    return None if said or resources.ranks == 1 else resources.gpus_per_rank or None


def _variables(resources: Resources) -> dict[str, str]:
    more = launcher_environment(None) if resources.ranks > 1 else {}
    return {**thread_variables(resources), **more}


def calls_of(array: JobArray[JobCall]) -> list[JobCall]:
    """Return all callers of an array's calls: one call may have several."""
    return [each for call in array.calls for each in (call, *call.duplicates)]


class Intake:
    """The new calls of one executor on their way to batches."""

    def __init__(
        self,
        commands: CommandThread,
        scheduler: SchedulerClient,
        state: ExecutorState,
        writer: BatchWriter,
        earlier: EarlierBatches,
        delivery: Delivery,
        submitter: Submitter,
    ) -> None:
        self._commands, self._scheduler, self._state = commands, scheduler, state
        self._writer, self._earlier, self._delivery, self._submitter = writer, earlier, delivery, submitter

    def write(self, now: float, at_last: bool) -> None:
        """Write new calls down, unless more calls are better gathered; `at_last` there are going to be no more."""
        if not at_last and self._writer.is_crowded():
            self._state.crowded(now)
        else:
            self._commands.run(self._steps())

    def _steps(self) -> Steps:
        try:
            # No command once the limit is known: new calls are written down also while a command hangs.
            most = self._scheduler.most if self._scheduler.most is not None else (yield self._scheduler.most_elements)
        except SubmissionRefused as refused:
            if refused.kind == "mistake":
                self._delivery.end(self._state.take_new(), partial(_refused, refused=refused))
            else:
                self._state.writing_failed()
                self._submitter.pause(refused, len(self._state.new))
            return
        except Exception as error:
            self._delivery.end(self._state.take_new(), partial(_not_written, error=error))
            return
        # Only now: calls entered while the command ran go into the same arrays.
        calls = self._state.take_new()
        try:
            self._write_down(calls, max(1, most))
        except Exception as error:  # of all batches: written ones go their way
            self._delivery.end([call for call in calls if call.directory is None], partial(_not_written, error=error))

    def _write_down(self, calls: list[JobCall], most: int) -> None:
        """Attach calls to earlier submissions, of this process or of others, and write down the rest."""
        # Other processes may have submitted the same calls since the last look.
        self._earlier.refresh()
        self._writer.note_successors(self._earlier.known.values())
        rest = [call for call in calls if self._writer.is_prepared(call) and not self._earlier.attach(call)]
        inputs = (given for call in rest for given in call.inputs)
        self._delivery.follow_moved(given.call for given in inputs if isinstance(given, InputSource))
        for array in self._writer.arrays(rest, most):
            try:
                directory = self._writer.write(array)
            except Exception as error:  # most likely a full disk: the other arrays may be smaller
                self._delivery.end(calls_of(array), partial(_not_written, error=error))
                continue
            if directory is not None:
                self._state.written(directory, calls_of(array), directory.batch.waited_for())
                self._earlier.add_own(directory)
        self._writer.forget_arrays()


def _refused(call: JobCall, refused: SubmissionRefused) -> CallyardError:
    return mistake(call.name, refused)


def _not_written(call: JobCall, error: Exception) -> CallyardError:
    if isinstance(error, CallyardError):
        return error
    kind = CacheError if isinstance(error, OSError) else SchedulerError
    where = call.owner.home.path
    failure = kind(f"{call.name!r} cannot be written to {where} for a job: {error}; submit the call again once it can")
    failure.__cause__ = error
    return failure


def _import_paths() -> tuple[str, ...]:
    """Return the import path, without entries other than texts, such as a `Path`: Python ignores these, too."""
    return tuple(place for place in cast("list[object]", sys.path) if isinstance(place, str))


def _current_directory() -> str:
    """Return the directory of this process; nothing if it is gone: calls then stay in the scheduler's directory."""
    try:
        return os.getcwd()
    except OSError:
        return ""


@dataclass(frozen=True)
class JobSettings:
    """The user's settings for the scheduler, apart from the resources of each call."""

    scheduler: str
    python: tuple[str, ...]  # the command for the calls of a job, without arguments
    defaults: Mapping[str, Any]  # partition, account ... of calls without their own
    environment: Mapping[str, str] = field(default_factory=dict)  # of all jobs
    setup: tuple[str, ...] = ()
    teardown: tuple[str, ...] = ()
    template: str | None = None
    template_uses: frozenset[str] = frozenset()  # its variables
    walltime: float | None = None
    mpi: str | None = None  # the plugin for the scheduler's launcher
    mpi_on_one_node: bool = True  # where that launcher starts ranks on one node, too
    rank_launcher: Callable[[int, int, str | None, int | None], tuple[str, ...]] | None = None  # see `Site`
    rank_options: Callable[[RankOptions], Sequence[str]] | None = None
    separate: bool = False
    numbering: Numbering = field(default_factory=Numbering)
    options: Mapping[str, str] = field(default_factory=dict)  # of the scheduler's own
    calls_per_job: int = 1
    poll: tuple[float, float] = (5.0, 60.0)
    result_grace: float = 60.0
    exclude_failed_nodes: bool = False
    log_limit: int = 100 << 20  # bytes
    share: Share | None = None  # of this machine, where it has no scheduler
    place: str = ""  # where the jobs run, for people; default: the scheduler's name

    def __post_init__(self) -> None:
        for name, texts in (("python or launcher", self.python), ("setup", self.setup), ("teardown", self.teardown)):
            for text in texts:
                check_text(name, text)

    def time(self, run_time: float | None, grace: float = 0.0) -> float | None:
        """Return the scheduler's limit for a job with calls of `run_time` each, and then their `grace` (s)."""
        return self.walltime if run_time is None else job_time(run_time, grace, self.calls_per_job)
