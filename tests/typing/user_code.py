"""What users write, for mypy in strict mode: checked, never run. `assert_type` says what must be inferred."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import Executor as StandardExecutor
from concurrent.futures import Future as StandardFuture
from concurrent.futures import ThreadPoolExecutor, as_completed, wait
from pathlib import Path
from typing import Any

from typing_extensions import assert_type

import callyard
from callyard import (
    Cache,
    CacheError,
    CallyardError,
    Executor,
    Future,
    Local,
    OutOfMemory,
    ResourceError,
    Resources,
    Slurm,
    TimeLimitExceeded,
    UnpicklableCall,
    UnsafeCache,
    VersionMismatch,
    WorkerLost,
    batched,
    item,
    keyed,
    unzip,
)


def count(text: str, letter: str = "a") -> int:
    return text.count(letter)


def split(number: int) -> tuple[int, str]:
    return number, str(number)


def prepare() -> dict[str, Any]:
    return {"letter": "b"}


def submit_and_map() -> None:
    with Executor() as ex:
        assert_type(ex, Executor)
        future = ex.submit(count, "banana", letter="n")
        assert_type(future, Future[int])
        assert_type(future.result(timeout=1), int)
        assert_type(ex.submit(split, 1), Future[tuple[int, str]])
        assert_type(ex.map(count, ["a", "b"]), Iterator[int])
        assert_type(ex.map(count, ["a"], ["b"], timeout=1.0, chunksize=2, buffersize=8), Iterator[int])
        assert_type(ex.submit(lambda: 1.5), Future[float])


def futures_as_arguments() -> None:
    with Executor() as ex:
        word = ex.submit(str.upper, "word")
        length = ex.submit(count, word)
        assert_type(length, Future[int])
        assert_type(ex.submit(sum, [length, length, 3]).result(), int)


def options() -> None:
    limited = Executor(
        4,
        backend=Local(cores=4, gpus=0, memory=2.5),
        resource_dict={"memory": 0.5, "env": {"KEY": "value"}},
        initializer=print,
        initargs=("started",),
        init_function=prepare,
        max_tasks_per_child=10,
        progress=True,
    )
    wide = limited.with_resources(ranks=2, cores_per_rank=4, gpus_per_rank=1, memory=16, run_time=60.0)
    assert_type(wide, Executor)
    assert_type(wide.submit(count, "a", resource_dict={"priority": 3}), Future[int])
    limited.shutdown(wait=True, cancel_futures=True)
    limited.terminate_workers()
    limited.kill_workers()
    Executor(backend="local")
    with ThreadPoolExecutor() as threads:
        Executor(max_workers=2, backend=threads)


def resources() -> None:
    wanted = Resources(ranks=2, cores_per_rank=4, memory=1.5, run_time=60, cwd="run", env={"A": "1"})
    assert_type(wanted.ranks, int)
    texts = Resources(memory="500MB", run_time="90min")
    assert_type((texts.memory, texts.run_time), tuple[float | None, float | None])
    assert_type(Local(memory="16GB").memory, float | None)
    assert_type(Slurm(walltime="1-12:00:00").walltime, float | None)


def parts() -> None:
    with Executor() as ex:
        pair = ex.submit(split, 3)
        assert_type(item(pair, 0), Future[Any])
        first, second = unzip(pair, 2)
        assert_type(first, Future[Any])
        futures = [ex.submit(count, "a"), ex.submit(count, "b")]
        assert_type(batched(futures, 2), list[Future[tuple[int, ...]]])
        del second


def standard_library(ex: Executor) -> None:
    futures = [ex.submit(count, "a")]
    done, _ = wait(futures, timeout=1)
    assert_type(done, set[StandardFuture[int]])
    assert_type([future.result() for future in as_completed(futures)], list[int])
    standard: StandardFuture[int] = futures[0]
    standard.cancel()
    takes_any_executor(ex)
    takes_any_executor(ex.with_resources(memory=1))


def takes_any_executor(executor: StandardExecutor) -> StandardFuture[int]:
    return executor.submit(count, "a")


async def with_asyncio(ex: Executor) -> int:
    future = ex.submit(count, "a")
    assert_type(await future, int)
    assert_type(await asyncio.gather(future, ex.submit(split, 1)), tuple[int, tuple[int, str]])
    assert_type(await asyncio.wrap_future(ex.submit(count, "a")), int)
    return await asyncio.get_running_loop().run_in_executor(ex, count, "a")


def errors(future: Future[int]) -> int | str | None:
    try:
        return future.result()
    except WorkerLost as error:
        assert_type(error.exitcode, int | None)
        return error.exitcode
    except (OutOfMemory, TimeLimitExceeded, ResourceError, UnpicklableCall) as error:
        return str(error)
    except CallyardError:
        return None


def details(future: callyard.Future[int]) -> tuple[str | None, bool | None, str | None]:
    return future.key, future.cached, future.job_id


class Connection:
    def __init__(self, address: str) -> None:
        self.address = address


@keyed(version=2, ignore=["verbose"])
def measure(connection: Connection, verbose: bool = False) -> float:
    return float(len(connection.address))


@keyed(ignore="letter")
def count_letters(text: str, letter: str = "a") -> int:
    return text.count(letter)


def remembering() -> None:
    Cache.register(Connection, lambda connection: connection.address)
    with Executor(cache="results") as ex:
        future = ex.submit(measure, Connection("here"), verbose=True)
        assert_type(future, Future[float])
        assert_type(future.key, str | None)
        assert_type(ex.map(count_letters, ["a", "b"]), Iterator[int])
        ex.submit(count, "a", resource_dict={"cache_key": "mine", "cache_directory": Path("other")})
        assert_type(ex.with_resources(cache_directory="other"), Executor)
    Executor(cache=Path("results"))
    cache = Cache("results", mode="read-only", trust="group", failures=True)
    Executor(backend=Local(cores=2), cache=cache)
    with ThreadPoolExecutor() as threads:
        Executor(backend=threads, cache=cache)


def looking_in(cache: Cache) -> list[str]:
    assert_type(len(cache), int)
    assert_type(cache.keys(), list[str])
    for entry in cache:
        assert_type(entry.key, str)
        assert_type(entry.function, str)
    if "0123" in cache:
        assert_type(cache["0123"].key, str)
    assert_type(cache.future("0123"), Future[Any])
    print(cache.explain(count, "banana", letter="n", resource_dict={"ranks": 2}))
    removed = cache.prune(older_than="30d", max_size="1GB", dry_run=True)
    print(cache.check(repair=True))
    return [entry.key for entry in removed]


def cache_errors(directory: str) -> str:
    try:
        return Cache(directory, mode="refresh").path
    except UnsafeCache as error:
        return f"not safe: {error}"
    except (VersionMismatch, CacheError) as error:
        return str(error)


def wrong(cache: Cache) -> None:
    Cache("results", mode="readonly")  # type: ignore[arg-type]
    Executor(cache=3)  # type: ignore[arg-type]
    keyed(1)  # type: ignore[call-arg]
    Local(memory=[1])  # type: ignore[arg-type]
    with Executor() as ex:
        ex.submit(split, 1)["a"]  # type: ignore[index]
        ex.submit(3)  # type: ignore[arg-type]
