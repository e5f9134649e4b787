"""A call on several MPI ranks in a job: each rank is a process of its own, started by the launcher of the cluster.

the call's process                      rank 0, rank 1, ...
--------------------------------------- ---------------------------------------------------------
claims, starts the launcher, waits  --> looks for the others, reads the call from its file, runs the function
tells of the end, in `told`         --> sends itself the warning and SIGTERM
puts the results together           <-- writes its result to `<number>.ranks/<rank>`

A launcher would end its ranks at SIGTERM, without the grace of the call. So it hears nothing of the end once the ranks
know each other; these keep the `run_time` themselves, and read `told` now and then. The file is there from the
beginning, because a network file system shows a new content of a file sooner than a new file.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

from ..cache.directory import CacheDirectory
from ..errors import CallyardError, RemoteTraceback, ResourceError, SchedulerError, WorkerLost
from ..hosts.mpi_plugins import MpiPlugins
from ..hosts.open_host import open_host
from ..jobs.batch import CallFile
from ..jobs.call_files import CallFiles
from ..schedulers.job_environment import current_job
from ..schedulers.launcher_variables import is_of_launcher
from ..schedulers.registry import environment_outside_jobs, scheduler_of_launcher
from ..serialize.function_registry import dumps
from ..system.exit_status import how_it_ended
from ..system.processes import default_signals
from ..utils.lite_stdlib import json_compact, json_loads
from .communicator import (
    MPIEXEC,
    check_used_world,
    find_launcher,
    join_world,
    launcher_advice,
    words_of_alone,
    words_of_none,
)
from .current_call import DEADLINE, WARN_BEFORE, Again, running
from .exceptions import dump_error, traceback_text, unpicklable_again, unpicklable_result, words_of_some_again
from .initializer import Initialized
from .job_inputs import inputs_of, load_call
from .job_outcome import RankLost, node_name
from .mpi_rank import gpus_by_local_rank, rank_in
from .rank_end import TERM, WARNING, RankEnd, keep_in_thread

_MPI = "--mpi="
_HIDDEN = "CALLYARD_HIDDEN_FROM_LAUNCHER"
_ALONE, _TOGETHER = "alone", "together"  # files from the ranks about each other
_TOLD = "told"  # the file with the words of the end
_KILL_WAIT = 30.0  # s of grace of a call without its own
_LOOK, _LOOK_FAR = 0.25, 2.0  # s between two looks at `told`: of ranks on one node, and of many over several nodes


def value_of_ranks(folder: CallFiles, number: int, call_file: CallFile, apart: bool) -> list[Any]:
    """Return the results of all ranks, or raise the error of the first that failed; `RankLost` for one that is gone."""
    call_file, place = _with_launcher(call_file), f"{folder.path}/{number}.ranks"
    shutil.rmtree(place, ignore_errors=True)  # from an earlier start of this job
    try:
        code = _run(place, call_file, _rank_command(folder, number, apart))
        _raise_again(place, call_file)
        return [_result(f"{place}/{rank}", rank, call_file, code) for rank in _order(place, call_file.ranks)]
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _run(place: str, call_file: CallFile, command: list[str]) -> int:
    """Start the ranks in the first way by which they find each other; return the exit code of the launcher."""
    plugins = _plugins(call_file.launcher)
    ways = [""] if plugins is None else plugins.candidates()
    alone, code = "", 0
    for way in ways:
        shutil.rmtree(place, ignore_errors=True)  # from the last way: none of its ranks has run the function
        os.mkdir(place, 0o700)
        _tell(place, "")
        argv = [*_started(call_file.launcher, way), *command]
        code = _exit_code(place, argv, _environment(plugins))
        if os.path.exists(f"{place}/{_TOGETHER}"):
            if plugins is not None and _text(f"{place}/{_TOGETHER}"):
                plugins.fits(way)
            return code
        alone = _text(f"{place}/{_ALONE}") or alone
    raise _error(
        call_file, alone, code, launcher_advice(call_file.launcher[0]) if plugins is None else plugins.advice(ways)
    )


def _exit_code(place: str, argv: list[str], environment: dict[str, str]) -> int:
    """Run the launcher, tell its ranks of a warning and of the end, and wait: they have the grace of the call."""
    launcher = subprocess.Popen(argv, stdin=subprocess.DEVNULL, env=environment)
    try:
        warns = running.options.get(WARN_BEFORE) is not None
        while warns and not running.announced:
            with contextlib.suppress(subprocess.TimeoutExpired):
                return launcher.wait(_LOOK)
        if warns:
            _tell(place, WARNING)
        return launcher.wait()
    except SystemExit:
        if os.path.exists(f"{place}/{_TOGETHER}"):
            _tell(place, TERM)
        else:
            launcher.terminate()
        return launcher.wait()


def _tell(place: str, word: str) -> None:
    with open(f"{place}/{_TOLD}", "w", encoding="utf-8") as file:
        file.write(word)


def _raise_again(place: str, call_file: CallFile) -> None:
    """Raise `Again` if all ranks have; its arguments are theirs, each packed."""
    asked = [rank for rank in range(call_file.ranks) if os.path.exists(f"{place}/{rank}.again")]
    if len(asked) == call_file.ranks:
        raise Again(*(_bytes(f"{place}/{rank}.again") for rank in asked))
    if asked and len(asked) + len(_returned_ranks(place, call_file.ranks)) == call_file.ranks:
        raise CallyardError(words_of_some_again(call_file.order.name, len(asked), call_file.ranks))


def _returned_ranks(place: str, ranks: int) -> list[int]:
    return [rank for rank in range(ranks) if os.path.exists(f"{place}/{rank}")]


def _environment(plugins: MpiPlugins | None) -> dict[str, str]:
    """Return the environment of the launcher.

    The node's own launcher is to start all ranks on the node. In sight of the job's variables such a launcher might use
    a step of the scheduler, with other GPUs. So these variables are hidden from the launcher, and set again by the
    ranks.
    """
    if plugins is not None or current_job().nodes != 1:
        return dict(os.environ)
    alone = environment_outside_jobs(os.environ)
    hidden = {name: text for name, text in os.environ.items() if name not in alone and not is_of_launcher(name)}
    temporary = {name: hidden[name] for name in ("TMPDIR",) if name in hidden}  # the job's own directory
    return {**alone, **temporary, _HIDDEN: json_compact(hidden)}


def _with_launcher(call_file: CallFile) -> CallFile:
    """Return the call with the launcher for the nodes of this job, perhaps other ones than the submitter expected."""
    job = current_job()
    if call_file.spread and (job.nodes or 1) > 1:
        return call_file.replace(launcher=call_file.spread)
    if call_file.launcher[0] != MPIEXEC:
        return call_file
    found = find_launcher()
    if found is None:
        raise ResourceError(
            f"{call_file.order.name!r} asks for {call_file.ranks} ranks, and on {node_name()} neither mpiexec nor "
            "mpirun is in PATH; load an MPI by setup="
        )
    return call_file.replace(launcher=(found, *call_file.launcher[1:]))


def _plugins(launcher: tuple[str, ...]) -> MpiPlugins | None:
    """Return the launcher's ways to start ranks, if it is a scheduler's."""
    scheduler = scheduler_of_launcher(launcher[0])
    chosen = next((word[len(_MPI) :] for word in launcher if word.startswith(_MPI)), None)
    return None if scheduler is None else MpiPlugins(scheduler.site(), open_host(scheduler.site()), chosen)


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


def _rank_command(folder: CallFiles, number: int, apart: bool) -> list[str]:
    code = (
        "import sys; sys.path[:] = sys.argv.pop().split('\\n'); from callyard.worker.mpi_job_rank import main; main()"
    )
    # With the import path of this process, whatever the launcher does to the environment.
    arguments = [folder.home.path, folder.home.trust or "", folder.token, str(number), "apart" if apart else ""]
    arguments.append(_told(running.options.get(DEADLINE)))
    return [sys.executable, "-c", code, *arguments, "\n".join(sys.path)]


def _told(deadline: float | None) -> str:
    """Return the deadline for ranks on other nodes, too (s since 1970): each node has its own monotonic clock."""
    return "" if deadline is None else repr(time.time() + deadline - running.now())


def _heard(text: str) -> float | None:
    """Return the deadline by this node's monotonic clock."""
    return float(text) - time.time() + time.monotonic() if text else None


def _order(place: str, ranks: int) -> list[int]:
    """Return the ranks, failed ones first: the others may only report an end because of these."""
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
        raise RankLost(error) from None


def main() -> None:
    """Run as `python -c "... main()" HOME TRUST TOKEN NUMBER APART DEADLINE`, by the launcher, once for each rank."""
    home, trust, token, number, apart, deadline = sys.argv[1:7]
    os.environ.update(json_loads(os.environ.pop(_HIDDEN, "{}")))
    default_signals()
    sys.argv[:] = [""]
    folder = CallFiles(CacheDirectory.open(home, trust=trust or None), token)
    call_file = CallFile.load(folder.call(int(number)))
    if call_file.gpus_per_rank is not None:  # before MPI is loaded, because MPI may look at the variables
        os.environ.update(gpus_by_local_rank(os.environ, call_file.gpus_per_rank))
    place = f"{folder.path}/{number}.ranks"
    rank = _meet(place, call_file.ranks)
    path = f"{place}/{rank}"
    kept = folder.again(int(number))
    again = pickle.loads(kept.arguments)[0][rank] if kept is not None and kept.arguments else None
    running.attempt = 1 if kept is None else kept.attempt
    running.listen_in_job(call_file.options, _heard(deadline), current_job().ends, None, None)
    try:
        _keep_end(place, call_file, _heard(deadline))
        _make(path, lambda: _returned(folder, call_file, bool(apart), again))
    except BaseException as error:
        _write(f"{path}.failed", dump_error(error, traceback_text(error)))
        sys.exit(1)


def _keep_end(place: str, call_file: CallFile, deadline: float | None) -> None:
    job_ends = current_job().ends
    ends = [deadline, None if job_ends is None else job_ends - time.time() + time.monotonic()]
    until = min((at for at in ends if at is not None), default=None)
    end = RankEnd(call_file.options, deadline, until, _KILL_WAIT)
    keep_in_thread(end, lambda: _text(f"{place}/{_TOLD}"), _LOOK if current_job().nodes == 1 else _LOOK_FAR)


def _meet(place: str, ranks: int) -> int:
    """Return this rank if the ranks know each other; otherwise write that down, and end."""
    world = join_world()
    alone = world is not None and world.size != ranks
    with open(f"{place}/{_ALONE if alone else _TOGETHER}", "w", encoding="utf-8") as file:  # all ranks write the same
        file.write(f"{world.size} {world.library}" if world is not None else "")
    if alone:
        sys.exit(1)
    return rank_in(world)


def _make(path: str, call: Callable[[], bytes]) -> None:
    """Make the call, and write down the returned value, or the arguments of the next run."""
    try:
        result = call()
    except Again as error:
        _write(f"{path}.again", _packed_again(error))
    else:
        _write(path, result)


def _packed_again(error: Again) -> bytes:
    try:
        return dumps((error.args, error.kwargs))
    except Exception as reason:
        raise unpicklable_again(error, reason) from reason


def _returned(folder: CallFiles, call_file: CallFile, apart: bool, again: bytes | None) -> bytes:
    """Return the packed result, of a run with the arguments `again` if they are given."""
    inputs = [given.result() for given in inputs_of(folder, call_file)]
    data = call_file.apart if apart and call_file.apart is not None else call_file.data
    fn, args, kwargs = load_call(folder, data, inputs)
    if again is not None:
        args, kwargs = pickle.loads(again)
    running.begin_in_job(call_file.options, call_file.order.key, call_file.order.name, None)
    value = Initialized.load(call_file.initializer).apply(fn, args, kwargs)
    running.hand_over()
    check_used_world(call_file.ranks)
    try:
        return dumps(value)
    except Exception as error:
        raise unpicklable_result(call_file.order.name, value, error) from error


def _bytes(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def _text(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except FileNotFoundError:
        return ""


def _write(path: str, data: bytes) -> None:
    # Renamed at the end, because the call's process takes a name for a whole result.
    with open(f"{path}.part", "xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.rename(f"{path}.part", path)
