"""A call on several MPI ranks in a job: each rank is a process of its own that the launcher of the cluster starts.

the call's process                      rank 0, rank 1, ...
--------------------------------------- ---------------------------------------------------------
claims, starts the launcher, waits  --> reads the call from its file, runs the function
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

from ..cache.home import Home
from ..errors import RemoteTraceback, WorkerLost
from ..jobs.folder import Folder
from ..jobs.parcel import Parcel
from ..system.processes import default_signals
from ..wire.functions import dumps
from ..wire.packed import Packed, load_with_inputs
from .endings import how_it_ended
from .failures import dump_error, traceback_text, unpicklable_result
from .init import Initialized
from .mpi import rank_of_process


def value_of_ranks(folder: Folder, number: int, parcel: Parcel, apart: bool) -> list[Any]:
    """What each rank returns. Raises what the first that failed has raised."""
    name = f"{number}.ranks"
    place = f"{folder.path}/{name}"
    shutil.rmtree(place, ignore_errors=True)  # of an earlier start of this job
    os.mkdir(place, 0o700)
    try:
        command = [*parcel.launcher, *_rank_command(folder, number, apart)]
        code = subprocess.run(command, stdin=subprocess.DEVNULL, check=False).returncode
        return [_result(f"{place}/{rank}", rank, parcel, code) for rank in _order(place, parcel.ranks)]
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _rank_command(folder: Folder, number: int, apart: bool) -> list[str]:
    code = "import sys; sys.path[:] = sys.argv.pop().split('\\n'); from penstock.worker.ranked import main; main()"
    arguments = [folder.home.path, folder.home.trust or "", folder.token, str(number), "apart" if apart else ""]
    return [sys.executable, "-c", code, *arguments, "\n".join(sys.path)]


def _order(place: str, ranks: int) -> list[int]:
    """Those that failed first: the others may only say that they were ended for it."""
    failed = [rank for rank in range(ranks) if os.path.exists(f"{place}/{rank}.failed")]
    return [*failed, *(rank for rank in range(ranks) if rank not in failed)]


def _result(path: str, rank: int, parcel: Parcel, code: int) -> Any:
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
    folder = Folder(Home.open(home, trust=trust or None), token)
    parcel = Parcel.load(folder.call(int(number)))
    rank = rank_of_process()
    path = f"{folder.path}/{number}.ranks/{rank}"
    try:
        _write(path, _returned(folder.home, parcel, bool(apart)))
    except BaseException as error:
        _write(f"{path}.failed", dump_error(error, traceback_text(error)))
        sys.exit(1)


def _returned(home: Home, parcel: Parcel, apart: bool) -> bytes:
    from .detached import inputs_of  # here, because that module leads here

    inputs = [given.result() for given in inputs_of(home, parcel)]
    data = parcel.apart if apart and parcel.apart is not None else parcel.data
    fn, args, kwargs = load_with_inputs(Packed(data), inputs)
    value = Initialized.load(parcel.initializer).apply(fn, args, kwargs)
    try:
        return dumps(value)
    except Exception as error:
        raise unpicklable_result(value, error) from error


def _write(path: str, data: bytes) -> None:
    with open(f"{path}.part", "xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.rename(f"{path}.part", path)
