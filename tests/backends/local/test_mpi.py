"""Calls of several ranks. Two ranks nearly everywhere: what holds for two holds for more."""

from __future__ import annotations

import os
import signal
import socket
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import ending_calls
import pytest
from gate import Gate

import callyard
from callyard import Executor, Local, ResourceError, SchedulerError, unzip

pytestmark = pytest.mark.needs("mpi")
Make = Callable[..., Executor]


@pytest.fixture
def pair(make: Make) -> Executor:
    """Calls of two ranks, with room for two of them."""
    return make(backend=Local(cores=4, memory=8)).with_resources(ranks=2)


@contextmanager
def counting_files() -> Iterator[None]:
    """Nothing new in the places where launchers keep files.

    What Open MPI has in /dev/shm itself is of other programs: ranks of this one have a directory there.
    """
    places = [Path("/dev/shm"), Path(os.environ["TMPDIR"])]
    ours = (f"callyard-{os.getpid()}-", "ompi", "vader")

    def found() -> set[Path]:
        there = {path for place in places if place.exists() for path in place.iterdir()}
        return {path for path in there if path.name.startswith(ours[:1] if path.parent.name == "shm" else ours)}

    before = found()
    yield
    assert not found() - before


def rank_of(*values: Any) -> tuple[Any, ...]:
    from mpi4py import MPI

    return (MPI.COMM_WORLD.rank, MPI.COMM_WORLD.size, *values)


def process_ids() -> int:
    from mpi4py import MPI

    assert MPI.COMM_WORLD.size > 1
    return os.getpid()


def test_ranks_that_ask_to_be_run_again(pair: Executor) -> None:
    future = pair.submit(ending_calls.count_down_on_ranks, 2)
    assert future.result() == [(0, 2, 3), (1, 4, 3)]
    assert future.attempts == 3
    with pytest.raises(callyard.CallyardError, match="on 1 of its 2 ranks, and returned on the others"):
        pair.submit(ending_calls.ask_on_one_rank).result()
    assert pair.submit(rank_of).result() == [(0, 2), (1, 2)]


def sum_of_ranks() -> tuple[int, list[int]]:
    from mpi4py import MPI

    comm = MPI.COMM_WORLD
    return comm.allreduce(comm.rank + 1), comm.allgather(comm.rank * 10)


def fail_on(rank: int) -> None:
    from mpi4py import MPI

    if MPI.COMM_WORLD.rank == rank:
        raise ValueError(f"rank {rank} cannot go on")
    MPI.COMM_WORLD.barrier()


def die_on(rank: int, how: str) -> None:
    from mpi4py import MPI

    comm = MPI.COMM_WORLD
    if comm.rank == rank:
        if how == "exit":
            os._exit(7)
        os.kill(os.getpid(), signal.SIGSEGV)
    comm.barrier()


def leave_a_message() -> int:
    from mpi4py import MPI

    comm = MPI.COMM_WORLD
    if comm.rank == 0:
        comm.send("for nobody", 1)
    comm.barrier()
    return os.getpid()


def exchange() -> str:
    from mpi4py import MPI

    comm = MPI.COMM_WORLD
    if comm.rank == 0:
        comm.send("expected", 1)
        return "sent"
    return str(comm.recv())


def hold_on_ranks(gate: Gate) -> int:
    from mpi4py import MPI

    gate.hold()
    return MPI.COMM_WORLD.allreduce(1)


# A launcher of another MPI library: it starts ranks, and this library does not hear of it.
STRANGER = """\
#!/bin/sh
count=$2
shift 2
for rank in $(seq 0 $((count - 1))); do
    {variable} "$@" &
done
wait
"""


@pytest.fixture
def stranger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Put such a launcher first in PATH, which tells its ranks their numbers in this way."""

    def install(variable: str) -> Path:
        path = tmp_path / "mpiexec"
        path.write_text(STRANGER.format(variable=variable))
        path.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
        return path

    return install


def leave_word(path: Path) -> tuple[int, int]:
    path.touch()
    from mpi4py import MPI

    return MPI.COMM_WORLD.rank, MPI.COMM_WORLD.size


def set_and_import(**settings: Any) -> bool:
    import mpi4py

    mpi4py.rc(**settings)
    from mpi4py import MPI

    return MPI.Is_initialized()


def initialise() -> tuple[int, int]:
    from mpi4py import MPI

    assert not MPI.Is_initialized()
    MPI.Init()
    return MPI.COMM_WORLD.rank, MPI.COMM_WORLD.size


# ------------------------------------------------------------------ ranks that do not know each other


@pytest.mark.parametrize("variable", ["MV2_COMM_WORLD_RANK=$rank", ""])
def test_ranks_that_do_not_know_each_other(
    variable: str, stranger: Callable[[str], Path], make: Make, tmp_path: Path
) -> None:
    launcher, mark = stranger(variable), tmp_path / "mark"
    ex = make(backend=Local(cores=4, memory=8))
    pair = ex.with_resources(ranks=2)
    for function in leave_word, Path.touch:  # also one that never imports mpi4py
        with pytest.raises(ResourceError, match=r"was not run: its 2 ranks do not know each other, .* be one of 1"):
            pair.submit(function, mark).result()
    with pytest.raises(ResourceError, match=f"{launcher} is not the launcher of that library: put"):
        pair.submit(leave_word, mark).result()
    assert not mark.exists()
    assert ex.submit(abs, -1).result() == 1


def test_the_same_module_is_imported_as_usual(pair: Executor) -> None:
    def modules() -> bool:
        import importlib

        import mpi4py

        assert "mpi4py.MPI" not in sys.modules
        assert not hasattr(mpi4py, "MPI")
        module = importlib.import_module("mpi4py.MPI")
        spec: Any = module.__spec__
        return mpi4py.MPI is module is sys.modules["mpi4py.MPI"] and spec.loader.is_package("mpi4py.MPI") is False

    assert pair.submit(modules).result() == [True, True]


def test_settings_come_too_late_in_a_function(pair: Executor) -> None:
    assert pair.submit(set_and_import).result() == [True, True]
    with pytest.raises(RuntimeError, match=r"mpi4py\.rc was changed to .* say it by variables"):
        pair.with_resources(env={"FRESH": "1"}).submit(set_and_import, initialize=False).result()


def test_settings_by_variables(pair: Executor, stranger: Callable[[str], Path]) -> None:
    late = pair.with_resources(env={"MPI4PY_RC_INITIALIZE": "0"})
    assert late.submit(initialise).result() == [(0, 2), (1, 2)]
    stranger("MV2_COMM_WORLD_RANK=$rank")
    with pytest.raises(SchedulerError, match="ranks of the call did not know each other"):
        pair.with_resources(env={"MPI4PY_RC_INITIALIZE": "no"}).submit(initialise).result()


# ------------------------------------------------------------------ results


def test_a_list_of_the_ranks_results(pair: Executor) -> None:
    with counting_files():
        assert pair.submit(rank_of, "x").result() == [(0, 2, "x"), (1, 2, "x")]
        pair.shutdown()


def test_by_executorlibs_name(make: Make) -> None:
    ex = make(backend=Local(cores=3))
    assert ex.submit(rank_of, resource_dict={"cores": 3}).result() == [(0, 3), (1, 3), (2, 3)]
    assert ex.submit(os.getpid).result() > 0  # calls of one rank beside them


def test_ranks_speak_with_each_other(pair: Executor) -> None:
    assert pair.submit(sum_of_ranks).result() == [(3, [0, 10])] * 2
    assert pair.submit(exchange).result() == ["sent", "expected"]


def test_ranks_stay_warm(pair: Executor) -> None:
    pids = pair.submit(process_ids).result()
    assert len(set(pids)) == 2
    assert pair.submit(process_ids).result() == pids
    pair.submit(exchange).result()
    assert pair.submit(process_ids).result() == pids


def test_map_and_functions_by_value(pair: Executor) -> None:
    def times(value: int) -> int:
        return int(rank_of()[0]) * value

    assert list(pair.map(times, [1, 5])) == [[0, 1], [0, 5]]


def test_ranks_with_futures(pair: Executor) -> None:
    ex = pair.with_resources(ranks=1)
    values = ex.submit(abs, -3)
    ranks = pair.submit(rank_of, [values])
    again = pair.submit(rank_of, ranks)
    total = ex.submit(len, again)
    first, second = unzip(ranks, 2)
    assert (first.result(), second.result()) == ((0, 2, [3]), (1, 2, [3]))
    assert again.result()[1] == (1, 2, [(0, 2, [3]), (1, 2, [3])])
    assert total.result() == 2


def test_large_arrays(pair: Executor) -> None:
    np = pytest.importorskip("numpy")

    def double(array: Any) -> Any:
        array *= 2 + rank_of()[0]
        return array

    array = np.ones(1 << 20)
    results = pair.submit(double, array).result()
    assert [float(r.min()) for r in results] == [float(r.max()) for r in results] == [2, 3]
    assert array.max() == 1
    inputs = pair.with_resources(ranks=1).submit(np.ones, 1 << 20)
    assert [float(r[-1]) for r in pair.submit(double, inputs).result()] == [2, 3]
    assert [len(r) for r in pair.submit(lambda pair: pair[0], pair.submit(double, inputs)).result()] == [1 << 20] * 2


def test_two_groups_at_once(pair: Executor, gate: Gate) -> None:
    futures = [pair.submit(hold_on_ranks, gate) for _ in range(2)]
    gate.arrived(4)
    assert all(future.running() for future in futures)
    gate.open(4)
    assert [future.result() for future in futures] == [[2, 2]] * 2


def test_what_ranks_see(pair: Executor, tmp_path: Path) -> None:
    def look() -> tuple[str, str, str, str]:
        rank_of()
        print("from a rank", file=sys.stderr)
        return os.environ["OMP_NUM_THREADS"], os.getcwd(), os.environ["MINE"], os.environ["CUDA_VISIBLE_DEVICES"]

    log = tmp_path / "log"
    resources = {"cores_per_rank": 2, "cwd": tmp_path, "env": {"MINE": "x"}, "error_log_file": log}
    assert pair.submit(look, resource_dict=resources).result() == [("2", str(tmp_path), "x", "")] * 2
    assert log.read_text().count("from a rank") == 2


def test_each_rank_sees_its_own_gpus(make: Make) -> None:
    def look() -> str:
        rank_of()
        return os.environ["CUDA_VISIBLE_DEVICES"]

    ex = make(backend=Local(cores=2, gpus=4), resource_dict={"ranks": 2, "gpus_per_rank": 2})
    assert ex.submit(look).result() == ["0,1", "2,3"]


def test_ranks_meet_by_the_variables_of_torch(pair: Executor) -> None:
    def meet(*names: str) -> list[str]:
        from mpi4py import MPI

        with ExitStack() as stack:
            place = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
            if os.environ["RANK"] == "0":
                stack.enter_context(socket.create_server(("", place[1])))
            MPI.COMM_WORLD.Barrier()
            stack.enter_context(socket.create_connection(place))
            MPI.COMM_WORLD.Barrier()
        return [os.environ[name] for name in names]

    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
    for _ in range(2):  # the second on the same ranks
        assert pair.submit(meet, *names).result() == [["0", "2", "0", "2"], ["1", "2", "1", "2"]]
    own = {"env": {"MASTER_ADDR": "localhost", "LOCAL_RANK": "0"}}  # as each rank sees its own GPU alone
    assert pair.submit(meet, "MASTER_ADDR", "LOCAL_RANK", resource_dict=own).result() == [["localhost", "0"]] * 2


# ------------------------------------------------------------------ initializers


def test_initializer_on_every_rank(make: Make) -> None:
    def start(value: str) -> None:
        global state
        state = value

    def read() -> tuple[int, str]:
        return rank_of()[0], state

    ex = make(backend=Local(cores=2), initializer=start, initargs=("set",), resource_dict={"ranks": 2})
    assert ex.submit(read).result() == [(0, "set"), (1, "set")]
    made = make(backend=Local(cores=2), init_function=lambda: {"extra": rank_of()[0]}, resource_dict={"ranks": 2})
    assert made.submit(lambda extra: extra).result() == [0, 1]


state: str


def test_an_initializer_that_fails(make: Make) -> None:
    ex = make(backend=Local(cores=2), initializer=fail_on, initargs=(1,), resource_dict={"ranks": 2})
    with pytest.raises(callyard.WorkerLost, match="initializer raised ValueError: rank 1 cannot go on"):
        ex.submit(rank_of).result()


# ------------------------------------------------------------------ failures


@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_that_fails(pair: Executor, rank: int) -> None:
    pids = pair.submit(process_ids).result()
    with pytest.raises(ValueError, match=f"rank {rank} cannot go on") as info:
        pair.submit(fail_on, rank).result()
    assert "in fail_on" in str(info.value.__cause__)
    assert not set(pids) & set(pair.submit(process_ids).result())  # the other one waited for ever


@pytest.mark.parametrize(("how", "said"), [("exit", "exit code 7"), ("signal", "SIGSEGV|signal 11|exit code 139")])
def test_a_rank_that_dies(pair: Executor, how: str, said: str, capfd: pytest.CaptureFixture[str]) -> None:
    with counting_files():
        with pytest.raises(callyard.WorkerLost, match=rf"'die_on' lost its worker: rank 1 of 2.*({said})"):
            pair.submit(die_on, 1, how).result()
        assert pair.submit(sum_of_ranks).result() == [(3, [0, 10])] * 2
        pair.shutdown()


def test_run_time(pair: Executor, gate: Gate) -> None:
    with counting_files():
        with pytest.raises(callyard.TimeLimitExceeded):
            pair.submit(hold_on_ranks, gate, resource_dict={"run_time": 0.5}).result()
        assert pair.submit(rank_of).result() == [(0, 2), (1, 2)]
        pair.shutdown()


def test_cancelling(pair: Executor, gate: Gate) -> None:
    running = [pair.submit(hold_on_ranks, gate) for _ in range(2)]
    gate.arrived(4)
    waiting = pair.submit(rank_of)
    assert waiting.cancel()
    assert not running[0].cancel()
    gate.open(4)
    assert running[0].result() == [2, 2]


def test_killing(pair: Executor, gate: Gate) -> None:
    with counting_files():
        running = pair.submit(hold_on_ranks, gate)
        gate.arrived(2)
        pair.kill_workers()
        assert isinstance(running.exception(), callyard.WorkerLost)
        pair.shutdown()


def test_a_message_that_nobody_received(pair: Executor) -> None:
    pids = pair.submit(leave_a_message).result()
    assert not set(pids) & set(pair.submit(process_ids).result())


def test_fresh_ranks_for_each_call(make: Make) -> None:
    ex = make(backend=Local(cores=2), max_tasks_per_child=1, resource_dict={"ranks": 2})
    first, second = ex.submit(process_ids).result(), ex.submit(process_ids).result()
    assert not set(first) & set(second)


def test_arguments_and_results_that_cannot_be_sent(pair: Executor) -> None:
    def give() -> Any:
        import threading

        return rank_of, threading.Lock()

    with pytest.raises(callyard.UnpicklableCall, match="the result of 'give', of type tuple"):
        pair.submit(give).result()
    assert pair.submit(rank_of).result() == [(0, 2), (1, 2)]


# ------------------------------------------------------------------ what its author meant


def test_a_warning_where_mpi4py_was_never_imported(make: Make) -> None:
    seen: list[str] = []
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = lambda message, *_: seen.append(str(message))
        with Executor(backend=Local(cores=2)) as ex:
            assert ex.submit(abs, -1, resource_dict={"cores": 2}).result() == [1, 1]
    (text,) = seen
    assert "'abs' ran 2 times" in text
    assert "cores_per_rank=2" in text
    assert "\n" not in text


def import_torch() -> None:
    sys.modules["torch"] = type(sys)("torch")


def test_no_warning_where_it_was(make: Make) -> None:
    seen: list[str] = []
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = lambda message, *_: seen.append(str(message))
        with Executor(backend=Local(cores=2)) as ex:
            ex.submit(rank_of, resource_dict={"cores": 2}).result()
            ex.submit(import_torch, resource_dict={"cores": 2}).result()
    assert not seen


def test_without_a_launcher(make: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(callyard.ResourceError, match="ranks=2 needs MPI, and neither mpiexec nor mpirun"):
        Executor(backend=Local(cores=2)).submit(abs, 1, resource_dict={"ranks": 2})
