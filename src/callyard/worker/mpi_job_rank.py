"""A call on several MPI ranks in a job: each rank is a process of its own that the launcher of the cluster starts.

the call's process                      rank 0, rank 1, ...
--------------------------------------- ---------------------------------------------------------
claims, starts the launcher, waits  --> looks for the others, reads the call from its file, runs the function
puts the results together           <-- writes its result to `<number>.ranks/<rank>`
"""

from __future__ import annotations

import contextlib
import os
import pickle
import shutil
import subprocess
import sys
from typing import Any

from ..cache.directory import CacheDirectory
from ..errors import CallyardError, RemoteTraceback, ResourceError, SchedulerError, WorkerLost
from ..hosts.mpi_plugins import MpiPlugins
from ..hosts.this_machine import open_host
from ..jobs.batch import CallFile
from ..jobs.spool import BatchDirectory
from ..schedulers.registry import scheduler_of_launcher
from ..serialize.function_registry import dumps
from ..system.exit_status import how_it_ended
from ..system.processes import default_signals
from .communicator import check_used_world, join_world, launcher_advice, words_of_alone, words_of_none
from .exceptions import dump_error, traceback_text, unpicklable_result
from .initializer import Initialized
from .job_inputs import inputs_of, load_call
from .mpi_rank import rank_in

_MPI = "--mpi="
_ALONE, _TOGETHER = "alone", "together"  # files that say what ranks are


def value_of_ranks(folder: BatchDirectory, number: int, call_file: CallFile, apart: bool) -> list[Any]:
    """Return the results of all ranks. Raises the error of the first that failed."""
    place = f"{folder.path}/{number}.ranks"
    shutil.rmtree(place, ignore_errors=True)  # of an earlier start of this job
    try:
        code = _run(place, call_file, _rank_command(folder, number, apart))
        return [_result(f"{place}/{rank}", rank, call_file, code) for rank in _order(place, call_file.ranks)]
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _run(place: str, call_file: CallFile, command: list[str]) -> int:
    """Start the ranks in the first way in which they know each other; return the exit code of their launcher."""
    plugins = _plugins(call_file.launcher)
    ways = [""] if plugins is None else plugins.candidates()
    alone, code = "", 0
    for way in ways:
        shutil.rmtree(place, ignore_errors=True)  # of the last one: none of its ranks has run the function
        os.mkdir(place, 0o700)
        argv = [*_started(call_file.launcher, way), *command]
        code = subprocess.run(argv, stdin=subprocess.DEVNULL, check=False).returncode
        if os.path.exists(f"{place}/{_TOGETHER}"):
            if plugins is not None and _text(f"{place}/{_TOGETHER}"):
                plugins.fits(way)
            return code
        alone = _text(f"{place}/{_ALONE}") or alone
    raise _error(
        call_file, alone, code, launcher_advice(call_file.launcher[0]) if plugins is None else plugins.advice(ways)
    )


def _plugins(launcher: tuple[str, ...]) -> MpiPlugins | None:
    """Return the ways to start ranks, if a scheduler does so."""
    scheduler = scheduler_of_launcher(launcher[0])
    chosen = next((word[len(_MPI) :] for word in launcher if word.startswith(_MPI)), None)
    return None if scheduler is None else MpiPlugins(scheduler.site(), open_host(), chosen)


def _started(launcher: tuple[str, ...], way: str) -> list[str]:
    words = [word for word in launcher if not word.startswith(_MPI)]
    return [words[0], *([_MPI + way] if way else []), *words[1:]]


def _error(call_file: CallFile, alone: str, code: int, advice: str) -> CallyardError:
    name, ranks = call_file.order.name, call_file.ranks
    by_scheduler = scheduler_of_launcher(call_file.launcher[0]) is not None
    if alone:
        size, _, library = alone.partition(" ")
        words = f"{words_of_alone(name, ranks, int(size), library)}; {advice}"
        return SchedulerError(words) if by_scheduler else ResourceError(words)
    words = words_of_none(name, ranks, f"their launcher {how_it_ended(code)}", advice)
    if by_scheduler:
        return SchedulerError(words)
    error = WorkerLost(words)
    error.exitcode = code
    return error


def _rank_command(folder: BatchDirectory, number: int, apart: bool) -> list[str]:
    code = (
        "import sys; sys.path[:] = sys.argv.pop().split('\\n'); from callyard.worker.mpi_job_rank import main; main()"
    )
    arguments = [folder.home.path, folder.home.trust or "", folder.token, str(number), "apart" if apart else ""]
    return [sys.executable, "-c", code, *arguments, "\n".join(sys.path)]


def _order(place: str, ranks: int) -> list[int]:
    """Return the ranks, those that failed first: the others may only say that they were ended for it."""
    failed = [rank for rank in range(ranks) if os.path.exists(f"{place}/{rank}.failed")]
    return [*failed, *(rank for rank in range(ranks) if rank not in failed)]


def _result(path: str, rank: int, call_file: CallFile, code: int) -> Any:
    with contextlib.suppress(FileNotFoundError), open(f"{path}.failed", "rb") as file:
        error, text = pickle.load(file)
        BaseException.__setattr__(error, "__cause__", RemoteTraceback(text))  # the class may be frozen
        raise error
    try:
        with open(path, "rb") as file:
            return pickle.load(file)
    except FileNotFoundError:
        error = WorkerLost(
            f"rank {rank} of {call_file.ranks} of {call_file.order.name!r} left no result: "
            f"its launcher {how_it_ended(code)}"
        )
        error.exitcode = code
        raise error from None


def main() -> None:
    """Run as `python -c "... main()" HOME TRUST TOKEN NUMBER APART`, by the launcher, once for each rank."""
    home, trust, token, number, apart = sys.argv[1:6]
    default_signals()
    sys.argv[:] = [""]
    folder = BatchDirectory(CacheDirectory.open(home, trust=trust or None), token)
    call_file = CallFile.load(folder.call(int(number)))
    place = f"{folder.path}/{number}.ranks"
    path = f"{place}/{_meet(place, call_file.ranks)}"
    try:
        _write(path, _returned(folder, call_file, bool(apart)))
    except BaseException as error:
        _write(f"{path}.failed", dump_error(error, traceback_text(error)))
        sys.exit(1)


def _meet(place: str, ranks: int) -> int:
    """Return this rank, once it is known that the ranks know each other; otherwise write that down, and end."""
    world = join_world()
    alone = world is not None and world.size != ranks
    with open(f"{place}/{_ALONE if alone else _TOGETHER}", "w", encoding="utf-8") as file:  # the same from all
        file.write(f"{world.size} {world.library}" if world is not None else "")
    if alone:
        sys.exit(1)
    return rank_in(world)


def _returned(folder: BatchDirectory, call_file: CallFile, apart: bool) -> bytes:
    inputs = [given.result() for given in inputs_of(folder.home, call_file)]
    data = call_file.apart if apart and call_file.apart is not None else call_file.data
    fn, args, kwargs = load_call(folder, data, inputs)
    value = Initialized.load(call_file.initializer).apply(fn, args, kwargs)
    check_used_world(call_file.ranks)
    try:
        return dumps(value)
    except Exception as error:
        raise unpicklable_result(value, error) from error


def _text(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except FileNotFoundError:
        return ""


def _write(path: str, data: bytes) -> None:
    with open(f"{path}.part", "xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.rename(f"{path}.part", path)
