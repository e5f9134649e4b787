"""What a call sees of the resources that it asked for, and what is refused."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from gate import Gate

import callyard
from callyard import CallyardError, Executor, Local, ResourceError, current
from callyard.events.event import Started, Waiting

Make = Callable[..., Executor]
THREADS = ["OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS", "NUMBA_NUM_THREADS"]


def variables(*names: str) -> list[str | None]:
    return [os.environ.get(name) for name in names]


# ------------------------------------------------------------------ threads, GPUs, environment


@pytest.mark.parametrize("cores", [1, 2, 4])
def test_libraries_are_told_how_many_threads(make: Make, cores: int) -> None:
    ex = make(backend=Local(cores=4)).with_resources(cores_per_rank=cores)
    assert ex.submit(variables, *THREADS).result() == [str(cores)] * len(THREADS)


def test_a_call_sees_no_gpu_that_is_not_its_own(make: Make) -> None:
    ex = make(backend=Local(gpus=4))
    names = "CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES"
    assert ex.submit(variables, *names).result() == ["", ""]
    one = ex.submit(variables, *names, resource_dict={"gpus_per_rank": 1}).result()
    assert one[0] in set("0123")
    assert one[1] == one[0]
    four = ex.submit(variables, *names, resource_dict={"gpus_per_rank": 4}).result()
    assert four[0] == "0,1,2,3"


def test_gpus_by_name(make: Make) -> None:
    ex = make(backend=Local(gpus=["GPU-a", "GPU-b"]), resource_dict={"gpus_per_core": 2})
    assert ex.submit(variables, "CUDA_VISIBLE_DEVICES").result() == ["GPU-a,GPU-b"]


def use_gpus(directory: Path) -> list[str]:
    """Hold a lock file for each GPU, which must not be there yet."""
    gpus = os.environ["CUDA_VISIBLE_DEVICES"].split(",")
    for gpu in gpus:
        os.close(os.open(directory / gpu, os.O_CREAT | os.O_EXCL))
    for gpu in gpus:
        os.remove(directory / gpu)
    return gpus


def test_gpus_are_never_given_out_twice(make: Make, tmp_path: Path) -> None:
    ex = make(backend=Local(cores=4, gpus=4))
    counts = [1, 2, 3, 1, 4, 2, 1, 1] * 6
    futures = [ex.submit(use_gpus, tmp_path, resource_dict={"gpus_per_rank": n}) for n in counts]
    assert [len(future.result()) for future in futures] == counts


def test_environment(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FROM_THE_DRIVER", "yes")
    ex = make(2, resource_dict={"env": {"MINE": "1", "OMP_NUM_THREADS": "7"}})
    names = "FROM_THE_DRIVER", "MINE", "OMP_NUM_THREADS"
    assert ex.submit(variables, *names).result() == ["yes", "1", "7"]
    assert ex.submit(variables, *names, resource_dict={"env": None}).result() == ["yes", None, "1"]


def test_variables_that_are_read_at_start(make: Make) -> None:
    ex = make(2, resource_dict={"env": {"PYTHONHASHSEED": "0", "LD_LIBRARY_PATH": "/nowhere"}})
    expected = subprocess.run(
        [sys.executable, "-c", "print(hash('callyard'))"],
        env={**os.environ, "PYTHONHASHSEED": "0"},
        capture_output=True,
        check=True,
    )
    assert ex.submit(hash, "callyard").result() == int(expected.stdout)
    assert ex.submit(variables, "LD_LIBRARY_PATH").result() == ["/nowhere"]


# ------------------------------------------------------------------ directory and error log


def test_working_directory(make: Make, tmp_path: Path) -> None:
    ex = make(1)
    here, there = os.getcwd(), tmp_path / "not" / "there yet"
    assert ex.submit(os.getcwd).result() == here
    assert ex.submit(os.getcwd, resource_dict={"cwd": there}).result() == str(there)
    assert ex.submit(os.getcwd).result() == here
    with pytest.raises(ZeroDivisionError):
        ex.submit(lambda: 1 / 0, resource_dict={"cwd": str(there)}).result()
    assert ex.submit(os.getcwd).result() == here


def test_a_relative_directory_is_that_of_submit(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ex = make(1)
    monkeypatch.chdir(tmp_path)
    wide = ex.with_resources(cwd="run")
    assert wide.submit(os.getcwd).result() == str(tmp_path / "run")


def test_a_directory_that_cannot_be_made(make: Make, tmp_path: Path) -> None:
    ex = make(1)
    (tmp_path / "file").touch()
    for key, kind in [("cwd", NotADirectoryError), ("error_log_file", NotADirectoryError)]:
        words = f"the {key} of the call cannot be used: Not a directory; choose another path: .*file/under"
        with pytest.raises(kind, match=words):
            ex.submit(os.getcwd, resource_dict={key: tmp_path / "file" / "under"}).result()
    assert ex.submit(abs, -1).result() == 1


def speak(text: str) -> None:
    print(text, "from Python", file=sys.stderr)
    ctypes.CDLL(None).dprintf(2, text.encode() + b" from C\n")
    os.system(f"echo {text} from a shell >&2")


def speak_and_fail(text: str) -> None:
    speak(text)
    raise ValueError("spoke too much")


def test_error_log(make: Make, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    log = tmp_path / "errors"
    ex = make(1)
    logged = ex.with_resources(error_log_file=log)
    logged.submit(speak, "one").result()
    with pytest.raises(ValueError, match="spoke"):
        logged.submit(speak_and_fail, "two").result()
    ex.submit(speak, "three").result()
    text = log.read_text()
    assert [line for line in text.splitlines() if " from " in line and "File" not in line] == [
        f"{word} from {what}" for word in ("one", "two") for what in ("Python", "C", "a shell")
    ]
    assert "in speak_and_fail" in text
    assert text.rstrip().endswith("ValueError: spoke too much")
    assert "three from C" in capfd.readouterr().err


def test_the_log_is_named_when_a_worker_dies(make: Make, tmp_path: Path) -> None:
    log = tmp_path / "errors"
    with pytest.raises(callyard.WorkerLost, match=f"exit code 3, see {log}"):
        make(1).submit(os._exit, 3, resource_dict={"error_log_file": log}).result()


def test_an_error_log_that_cannot_be_written(make: Make, tmp_path: Path) -> None:
    ex = make(1)
    with pytest.raises(OSError, match="nowhere"):
        ex.submit(abs, 1, resource_dict={"error_log_file": tmp_path / "nowhere" / "log"}).result()
    assert ex.submit(abs, -1).result() == 1


# ------------------------------------------------------------------ order and number


def append(path: Path, text: str) -> None:
    with path.open("a") as file:
        file.write(text)


def test_priority(make: Make, gate: Gate, tmp_path: Path) -> None:
    ex = make(1)
    ex.submit(gate.hold)
    gate.arrived()
    for name, priority in [("c", 0), ("e", -5), ("a", 10), ("d", 0), ("b", 10)]:
        ex.submit(append, tmp_path / "order", name, resource_dict={"priority": priority})
    gate.open()
    ex.shutdown()
    assert (tmp_path / "order").read_text() == "abcde"


def test_exclusive(make: Make, gate: Gate) -> None:
    ex = make(backend=Local(cores=3))
    alone = ex.submit(gate.hold, resource_dict={"exclusive": True})
    gate.arrived()
    others = [ex.submit(gate.hold, i) for i in range(2)]
    assert not any(other.running() for other in others)
    assert alone.running()
    gate.open(3)
    assert [other.result() for other in others] == [0, 1]


def test_cores_are_never_given_out_twice(make: Make, gate: Gate) -> None:
    ex = make(backend=Local(cores=3))
    wide = ex.with_resources(cores_per_rank=2)
    first, second, small = wide.submit(gate.hold, 1), wide.submit(gate.hold, 2), ex.submit(gate.hold, 3)
    gate.arrived(2)  # the small one passes
    assert (first.running(), second.running(), small.running()) == (True, False, True)
    gate.open(3)
    assert second.result() == 2


def test_max_workers(make: Make, gate: Gate) -> None:
    ex = make(2, backend=Local(cores=4))
    futures = [ex.submit(gate.hold, i) for i in range(4)]
    gate.arrived(2)
    assert [future.running() for future in futures].count(True) == 2
    gate.open(4)


def test_workers_are_used_again_and_replaced(make: Make) -> None:
    ex = make(1)
    assert len({ex.submit(os.getpid).result() for _ in range(5)}) == 1
    fresh = make(1, max_tasks_per_child=1)
    assert len({fresh.submit(os.getpid).result() for _ in range(3)}) == 3
    assert fresh.submit(os.getpid).result() != os.getpid()


def test_memory_is_a_limit(make: Make) -> None:
    ex = make(2)
    with pytest.raises(callyard.OutOfMemory, match=r"memory of 0.25 GiB"):
        ex.submit(bytearray, 1 << 29, resource_dict={"memory": 0.25}).result()
    assert ex.submit(len, b"abc", resource_dict={"memory_max": 0.25}).result() == 3


def test_run_time_is_a_limit(make: Make, gate: Gate) -> None:
    ex = make(2)
    with pytest.raises(callyard.TimeLimitExceeded, match=r"run_time of 0.2 s"):
        ex.submit(gate.hold, resource_dict={"run_time": 0.2}).result()
    assert ex.submit(abs, -1, resource_dict={"run_time_max": 60}).result() == 1


def grow(start: list[int]) -> list[int]:
    """Let processes of the first attempt take memory, together more than its limit; return what came in."""
    if current().attempt == 1:
        start.append(1)  # another attempt gets the arguments as they were
        code = "import time; kept = b'x' * (60 << 20); time.sleep(600)"
        for process in [subprocess.Popen([sys.executable, "-c", code]) for _ in range(4)]:
            process.wait()
    return start


def test_each_attempt_has_the_same_arguments(make: Make, tmp_path: Path) -> None:
    """Here the memory of the call's processes is added up, and the worker is ended."""
    start = [7]
    for cache in None, tmp_path / "results":
        future = make(2, cache=cache).submit(grow, start, resource_dict={"memory": [0.125, 0.5]})
        start.clear()
        assert (future.result(), future.attempts) == ([7], 2)
        start.append(7)


def test_arguments_beyond_the_memory_of_a_call(make: Make) -> None:
    ex, numbers = make(2), list(range(6_000_000))
    assert ex.submit(len, numbers, resource_dict={"memory": [0.125, 1]}).result() == 6_000_000
    with pytest.raises(callyard.OutOfMemory):
        ex.submit(len, numbers, resource_dict={"memory": 0.125}).result()


def test_two_long_lists_are_a_grid(make: Make) -> None:
    """Of 20 x 20 plans, and not of all paths through them."""
    lists = {"memory": [0.25 + i / 1000 for i in range(20)], "run_time": list(range(10, 30))}
    assert make(2).submit(abs, -1, resource_dict=lists).result() == 1


def test_a_later_limit_that_can_never_be_had_is_refused(make: Make) -> None:
    for options in {}, {"dry_run": True}:
        ex = make(backend=Local(memory=1), **options)
        with pytest.raises(ResourceError, match=r"memory=2 GiB was asked for"):
            ex.submit(abs, -1, resource_dict={"memory": [0.5, 1, 2]})


def test_an_attempt_that_is_not_the_last_is_no_failure(make: Make, tmp_path: Path) -> None:
    cache, seen = callyard.Cache(tmp_path / "results", failures=True), list[object]()
    with make(cache=cache, events=seen.append) as ex:
        future = ex.submit(reserve, 2, resource_dict={"memory": [0.25, 0.5]})
        assert future.result() == 2
    assert [entry.state for entry in cache] == ["finished"]
    reasons = [event.reason for event in seen if isinstance(event, Waiting)]
    assert reasons[-1] == "for its next run, with the next limit after OutOfMemory"
    assert [event.attempt for event in seen if isinstance(event, Started)] == [1, 2]


def reserve(attempts: int) -> int:
    if current().attempt < attempts:
        bytearray(1 << 42)
    return current().attempt


def die_unless(path: Path) -> str:
    if not path.exists():
        path.touch()
        os._exit(3)
    return "survived"


def test_restart_limit(make: Make, tmp_path: Path) -> None:
    ex = make(1)
    assert ex.submit(die_unless, tmp_path / "a", resource_dict={"restart_limit": 1}).result() == "survived"
    with pytest.raises(callyard.WorkerLost, match=r"run 3 of 3.*exit code 4") as info:
        ex.submit(os._exit, 4, resource_dict={"restart_limit": 2}).result()
    assert info.value.exitcode == 4


# ------------------------------------------------------------------ initializers


def test_initializer_with_a_global(make: Make) -> None:
    def start(value: str) -> None:
        global state
        state = value

    def read() -> str:
        return state

    ex = make(2, initializer=start, initargs=("set",))
    assert {future.result() for future in [ex.submit(read) for _ in range(20)]} == {"set"}
    assert "state" not in globals()


state: str


def test_initializer_runs_once_per_worker(make: Make, tmp_path: Path) -> None:
    ex = make(1, initializer=append, initargs=(tmp_path / "starts", "x"))
    for _ in range(3):
        ex.submit(abs, 1).result()
    assert (tmp_path / "starts").read_text() == "x"


def test_entries_of_init_function(make: Make) -> None:
    def start() -> dict[str, Any]:
        return {"model": "m", "scale": 10, "value": -1, "nobody": 0}

    def use(value: int, scale: int = 1, *, model: str) -> tuple[int, int, str]:
        return value, scale, model

    ex = make(1, init_function=start)
    assert ex.submit(use, 5).result() == (5, 10, "m")
    assert ex.submit(use, 5, 2, model="own").result() == (5, 2, "own")
    assert ex.submit(use, value=6).result() == (6, 10, "m")
    assert ex.submit(use).result() == (-1, 10, "m")
    assert ex.submit(abs, -3).result() == 3


def test_entries_of_init_function_that_do_not_fit_are_named(make: Make) -> None:
    def use(value: int, table: dict[str, int]) -> int:
        return table["a"] * value

    def fail(value: int) -> None:
        raise TypeError("no")

    ex = make(1, init_function=lambda: {"tbl": {"a": 1}, "model": "m"})
    with pytest.raises(TypeError, match=r"use\(\) missing .* 'table'; init_function gives: tbl, model$"):
        ex.submit(use, 3).result()
    with pytest.raises(TypeError, match=r"'table'; init_function gives: tbl, model$"):
        list(ex.map(use, [3, 4], chunksize=2))
    with pytest.raises(TypeError, match=r"^no$"):
        ex.submit(fail, 3).result()
    assert ex.submit(use, 3, {"a": 2}).result() == 6


def test_an_initializer_that_fails(make: Make) -> None:
    ex = make(1, initializer=lambda: 1 / 0)
    with pytest.raises(callyard.WorkerLost, match=r"'abs'.*initializer raised ZeroDivisionError: division") as info:
        ex.submit(abs, 1).result()
    assert isinstance(info.value.__cause__, ZeroDivisionError)
    with pytest.raises(callyard.WorkerLost, match="init_function must return a dict, not int"):
        make(1, init_function=lambda: 3).submit(abs, 1).result()  # type: ignore[arg-type, return-value]


def test_an_initializer_that_cannot_be_sent() -> None:
    lock = threading.Lock()
    with pytest.raises(callyard.UnpicklableCall, match=r"initializer.*lock"):
        Executor(1, initializer=lambda: lock.acquire())


# ------------------------------------------------------------------ what is refused


REFUSED: dict[str, tuple[dict[Any, Any], str]] = {
    "text for a number": ({"cores_per_rank": "2"}, "cores_per_rank must be a whole number of at least 1, not '2'"),
    "none at all": ({"ranks": 0}, "ranks must be a whole number of at least 1, not 0"),
    "by the other name": ({"cores": -1}, "ranks must be a whole number of at least 1, not -1"),
    "a fraction": ({"cores_per_rank": 1.5}, "whole number"),
    "a truth value": ({"gpus_per_rank": True}, "whole number"),
    "text for memory": ({"memory": "4"}, "memory must be a positive number of GiB or a text as \"4GB\", not '4'"),
    "no time": ({"run_time": 0}, "run_time must be a positive number of seconds, not 0"),
    "no number": ({"memory": float("nan")}, "positive number"),
    "a word for priority": ({"priority": "high"}, "priority must be an integer, not 'high'"),
    "a number for exclusive": ({"exclusive": 1}, "exclusive must be True or False"),
    "a number for a path": ({"cwd": 3}, "cwd must be a path, not 3"),
    "no path": ({"cwd": ""}, "cwd must be a path, not ''"),
    "a number for a key": ({"cache_key": 5}, "cache_key must be a text on one line, not 5"),
    "a list for a key": ({"cache_key": ["a"]}, "cache_key must be a text on one line"),
    "a list for env": ({"env": ["A=1"]}, "env must be a mapping"),
    "a number in env": ({"env": {"A": 1}}, "env must map names to strings, which 'A': 1 does not"),
    "too many cores": ({"cores_per_rank": 99}, "cores_per_rank=99 was.* 4 cores.*Local"),
    "too many in ranks": ({"ranks": 2, "cores_per_rank": 3}, "ranks=2 with cores_per_rank=3 was.* 4 cores"),
    "too many GPUs": ({"gpus_per_rank": 3}, "gpus_per_rank=3 was.* 2 GPUs.*Local"),
    "too much memory": ({"memory": 9}, "9 GiB.* 8 GiB.*Local"),
    "more nodes": ({"nodes": 2}, "nodes=2.*this machine is one"),
    "misspelled": ({"cores_per_rnk": 2}, "unknown resource 'cores_per_rnk': did you mean 'cores_per_rank'"),
    "shortened": ({"mem": 2}, "did you mean 'memory'"),
    "GPUs": ({"gpus": 1}, "did you mean 'gpus_per_"),
    "no text": ({3: 1}, "unknown resource 3; known are"),
    "twice": ({"cores": 1, "ranks": 1}, "ranks is given twice, as 'cores' and as 'ranks'"),
    **{
        f"for a scheduler: {key}": ({key: "x"}, f"{key} is for a scheduler")
        for key in ("partition", "queue", "account", "qos", "constraint", "gres", "job_name", "slurm_cmd_args", "wckey")
    },
    "for a cache": ({"cache_key": "k"}, "cache_key is for a cache"),
    "no mapping": ([("cores", 1)], "resource_dict must be a mapping"),  # type: ignore[dict-item]
}


@pytest.fixture(scope="module")
def idle() -> Executor:
    """An executor that never starts anything."""
    return Executor(backend=Local(cores=4, gpus=2, memory=8))


@pytest.mark.parametrize("case", REFUSED)
def test_refused_at_submit(idle: Executor, case: str) -> None:
    asked, message = REFUSED[case]
    with pytest.raises(ResourceError, match=message) as info:
        idle.submit(abs, 1, resource_dict=asked)
    assert isinstance(info.value, ValueError)
    assert "\n" not in str(info.value)


REFUSED_OPTIONS: dict[str, tuple[Callable[[], object], type[Exception], str]] = {
    "backend by name": (
        lambda: Executor(backend="condor"),
        CallyardError,
        "'condor'.*'local', 'slurm', .*'gridengine', Local",
    ),
    "backend of no kind": (lambda: Executor(backend=5), CallyardError, "backend=5"),
    "a class": (lambda: Executor(backend=ThreadPoolExecutor), CallyardError, "ThreadPoolExecutor.*another executor"),
    "cache": (lambda: Executor(cache=3), TypeError, "the directory of a cache is a path, not 3"),  # type: ignore[arg-type]
    "no workers": (lambda: Executor(0), ValueError, "max_workers must be greater than 0, not 0"),
    "workers as text": (lambda: Executor("2"), TypeError, "max_workers must be an integer, not '2'"),  # type: ignore[arg-type]
    "no tasks": (lambda: Executor(max_tasks_per_child=0), ValueError, "max_tasks_per_child must be greater than 0"),
    "progress": (lambda: Executor(progress="x"), TypeError, "progress must be True or False, not 'x'"),  # type: ignore[arg-type]
    "dry_run": (lambda: Executor(dry_run="plan"), TypeError, "dry_run must be True or False"),  # type: ignore[arg-type]
    "initializer": (lambda: Executor(initializer=3), TypeError, "initializer must be a callable"),  # type: ignore[arg-type]
    "initargs": (lambda: Executor(initializer=abs, initargs=3), TypeError, "initargs must be a tuple"),  # type: ignore[arg-type]
    "a keyword": (lambda: Executor(max_cores=3), TypeError, "max_cores"),  # type: ignore[call-arg]
    "resources": (lambda: Executor(resource_dict={"core": 2}), ResourceError, "did you mean cores_per_rank"),
    "Local's cores": (lambda: Local(cores="4"), ResourceError, "^cores must be a whole number"),  # type: ignore[arg-type]
    "no cores": (lambda: Local(cores=0), ResourceError, "^cores must be.*at least 1"),
    "Local's memory": (lambda: Local(memory="4"), ResourceError, "^memory must be a positive number"),  # type: ignore[arg-type]
    "Local's GPUs": (lambda: Local(gpus=-1), ResourceError, "^gpus must be.*at least 0"),
    "GPUs as text": (lambda: Local(gpus="0,1"), ResourceError, "gpus must be a number of GPUs or a list"),
    "a GPU twice": (lambda: Local(gpus=[0, "0"]), ResourceError, "each GPU once"),
    "detached": (lambda: Local(detached=1), ResourceError, "detached must be True, False or None"),
    "for a scheduler": (lambda: Local(partition="x"), TypeError, "partition"),  # type: ignore[call-arg]
}


@pytest.mark.parametrize("case", REFUSED_OPTIONS)
def test_refused_at_construction(case: str) -> None:
    construct, error, message = REFUSED_OPTIONS[case]
    with pytest.raises(error, match=message) as info:
        construct()
    assert "\n" not in str(info.value)


def test_resources_of_a_wrapped_executor_are_refused() -> None:
    with ThreadPoolExecutor(1) as pool, Executor(backend=pool) as ex:
        with pytest.raises(ResourceError, match="ranks, memory cannot be passed on to ThreadPoolExecutor"):
            ex.submit(abs, 1, resource_dict={"memory": 1, "cores": 2})
        assert "ThreadPoolExecutor" in repr(ex)
        with pytest.raises(CallyardError, match="initializer belongs to"):
            Executor(backend=pool, initializer=abs)


def test_repr(idle: Executor) -> None:
    assert "4 cores, 2 GPUs, 8.0 GiB" in repr(idle)
    assert "live" in repr(idle)
    assert repr(idle.with_resources(cores=2)).endswith("ranks=2>")


def test_a_small_call_passes_a_large_one_that_waits(make: Make, gate: Gate) -> None:
    ex = make(backend=Local(cores=2, memory=8))
    first = ex.submit(gate.hold, resource_dict={"memory": 5})
    gate.arrived()
    large, small = ex.submit(abs, -1, resource_dict={"memory": 5}), ex.submit(abs, -2)
    assert small.result() == 2
    assert not large.done()
    gate.open()
    assert large.result() == 1
    assert first.result() is None
