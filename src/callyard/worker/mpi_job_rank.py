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
from ..jobs.batch import CallFile
from ..jobs.spool import BatchDirectory
from ..serialize.function_registry import dumps
from ..serialize.packed import Packed, load_with_inputs
from ..system.exit_status import how_it_ended
from ..system.processes import default_signals
from .communicator import check_used_world, join_world, launcher_advice, words_of_alone, words_of_none
from .exceptions import dump_error, traceback_text, unpicklable_result
from .initializer import Initialized
from .job_inputs import inputs_of
from .mpi_rank import rank_in

_MPI = "--mpi="
_ALONE, _TOGETHER = "alone", "together"  # files that say what ranks are


def value_of_ranks(folder: BatchDirectory, number: int, parcel: CallFile, apart: bool) -> list[Any]:
    """What each rank returns. Raises what the first that failed has raised."""
    place = f"{folder.path}/{number}.ranks"
    shutil.rmtree(place, ignore_errors=True)  # of an earlier start of this job
    try:
        code = _run(place, parcel, _rank_command(folder, number, apart))
        return [_result(f"{place}/{rank}", rank, parcel, code) for rank in _order(place, parcel.ranks)]
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _run(place: str, parcel: CallFile, command: list[str]) -> int:
    """Start the ranks in the first way in which they know each other; the exit code of their launcher."""
    plugins = _plugins(parcel.launcher)
    ways = [""] if plugins is None else plugins.candidates()
    alone, code = "", 0
    for way in ways:
        shutil.rmtree(place, ignore_errors=True)  # of the last one: none of its ranks has run the function
        os.mkdir(place, 0o700)
        argv = [*_started(parcel.launcher, way), *command]
        code = subprocess.run(argv, stdin=subprocess.DEVNULL, check=False).returncode
        if os.path.exists(f"{place}/{_TOGETHER}"):
            if plugins is not None and _text(f"{place}/{_TOGETHER}"):
                plugins.fits(way)
            return code
        alone = _text(f"{place}/{_ALONE}") or alone
    raise _error(parcel, alone, code, launcher_advice(parcel.launcher[0]) if plugins is None else plugins.advice(ways))


def _plugins(launcher: tuple[str, ...]) -> MpiPlugins | None:
    """The ways to start ranks, if it is Slurm that does so."""
    chosen = next((word[len(_MPI) :] for word in launcher if word.startswith(_MPI)), None)
    return MpiPlugins(chosen) if launcher[0] == "srun" else None


def _started(launcher: tuple[str, ...], way: str) -> list[str]:
    words = [word for word in launcher if not word.startswith(_MPI)]
    return [words[0], *([_MPI + way] if way else []), *words[1:]]


def _error(parcel: CallFile, alone: str, code: int, advice: str) -> CallyardError:
    name, ranks = parcel.order.name, parcel.ranks
    by_slurm = parcel.launcher[0] == "srun"
    if alone:
        size, _, library = alone.partition(" ")
        words = f"{words_of_alone(name, ranks, int(size), library)}; {advice}"
        return SchedulerError(words) if by_slurm else ResourceError(words)
    words = words_of_none(name, ranks, f"their launcher {how_it_ended(code)}", advice)
    if by_slurm:
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
    """Those that failed first: the others may only say that they were ended for it."""
    failed = [rank for rank in range(ranks) if os.path.exists(f"{place}/{rank}.failed")]
    return [*failed, *(rank for rank in range(ranks) if rank not in failed)]


def _result(path: str, rank: int, parcel: CallFile, code: int) -> Any:
    with contextlib.suppress(FileNotFoundError), open(f"{path}.failed", "rb") as file:
        error, text = pickle.load(file)
        BaseException.__setattr__(error, "__cause__", RemoteTraceback(text))  # the class may be frozen
        raise error
    try:
        with open(path, "rb") as file:
            return pickle.load(file)
    except FileNotFoundError:
        error = WorkerLost(
            f"rank {rank} of {parcel.ranks} of {parcel.order.name!r} left no result: its launcher {how_it_ended(code)}"
        )
        error.exitcode = code
        raise error from None


def main() -> None:
    """Run as `python -c "... main()" HOME TRUST TOKEN NUMBER APART`, by the launcher, once for each rank."""
    home, trust, token, number, apart = sys.argv[1:6]
    default_signals()
    sys.argv[:] = [""]
    folder = BatchDirectory(CacheDirectory.open(home, trust=trust or None), token)
    parcel = CallFile.load(folder.call(int(number)))
    place = f"{folder.path}/{number}.ranks"
    path = f"{place}/{_meet(place, parcel.ranks)}"
    try:
        _write(path, _returned(folder.home, parcel, bool(apart)))
    except BaseException as error:
        _write(f"{path}.failed", dump_error(error, traceback_text(error)))
        sys.exit(1)


def _meet(place: str, ranks: int) -> int:
    """Which rank this is, once it is known that the ranks know each other; otherwise leave word of that, and end."""
    world = join_world()
    alone = world is not None and world.size != ranks
    with open(f"{place}/{_ALONE if alone else _TOGETHER}", "w", encoding="utf-8") as file:  # the same from all
        file.write(f"{world.size} {world.library}" if world is not None else "")
    if alone:
        sys.exit(1)
    return rank_in(world)


def _returned(home: CacheDirectory, parcel: CallFile, apart: bool) -> bytes:
    inputs = [given.result() for given in inputs_of(home, parcel)]
    data = parcel.apart if apart and parcel.apart is not None else parcel.data
    fn, args, kwargs = load_with_inputs(Packed(data), inputs)
    value = Initialized.load(parcel.initializer).apply(fn, args, kwargs)
    check_used_world(parcel.ranks)
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
