"""Whoever dies, and whatever is found in a cache: nothing is lost that was stored, nothing wrong is returned."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import remembered_calls as calls
from remembered_calls import noted

from callyard import Cache, Executor, VersionMismatch, WorkerLost
from callyard.cache.lookup import tell

linux = pytest.mark.needs("linux")  # elsewhere workers end a little later than their driver


def garbage(results: Path) -> list[str]:
    """What no finished call has to leave: claims, half-written files."""
    found = (f"{os.path.basename(folder)}/{name}" for folder, _, names in os.walk(results) for name in names)
    return [name for name in found if not name.endswith(".h5")]


# ------------------------------------------------------------------ workers


def test_a_killed_worker_leaves_nothing_but_its_failure(ex: Executor, results: Path, journal: str) -> None:
    assert isinstance(ex.submit(calls.dying, journal, 1).exception(), WorkerLost)
    assert not garbage(results)
    assert [entry.state for entry in Cache(results)] == ["failed"]
    future = ex.submit(calls.dying, journal, 1)
    assert future.result() == 2
    assert not garbage(results)
    assert ex.submit(calls.dying, journal, 1).cached


def test_a_killed_worker_is_restarted(ex: Executor, results: Path, journal: str) -> None:
    future = ex.submit(calls.dying, journal, 2, resource_dict={"restart_limit": 2})
    assert future.result() == 3
    assert len(noted(journal)) == 3
    assert not garbage(results)


def test_a_worker_that_dies_while_it_stores(ex: Executor, results: Path, journal: str) -> None:
    future = ex.submit(calls.deadly, journal, str(results))
    assert isinstance(future.exception(), WorkerLost)
    cache = Cache(results)
    assert [entry.state for entry in cache] == ["failed"]
    assert sorted(name[:6] for name in garbage(results) if ".tmp" in name) == [f"{future.key[:2]}/.tm"]  # type: ignore[index]
    assert cache.check(repair=True).ok
    assert not garbage(results)
    assert ex.submit(calls.square, journal, 3).result() == 9


def test_exactly_one_succeeds_a_dead_owner(make: Any, gate: Any, place: str, journal: str, messages: Any) -> None:
    owner, *others = (make() for _ in range(4))
    first = owner.submit(calls.held_with_pid, journal, place)
    gate.arrived()
    waiting = [ex.submit(calls.held_with_pid, journal, place) for ex in others]
    for _ in others:
        messages.wait("waiting for its result")
    (pid,) = noted(journal)
    os.kill(int(pid), signal.SIGKILL)
    assert isinstance(first.exception(), WorkerLost)
    gate.arrived()
    gate.open()
    _, successor = noted(journal)
    assert [future.result() for future in waiting] == [int(successor)] * 3
    assert len(noted(journal)) == 2


# ------------------------------------------------------------------ drivers


RUNNING = """
ex = Executor(1, cache=RESULTS)
future = ex.submit(calls.held_with_pid, JOURNAL, PLACE)
future.add_done_callback(lambda _: signal.pause())
ex.shutdown()
"""


@linux
def test_the_driver_is_killed_while_a_call_runs(
    make: Any, script: Any, ended: Any, gate: Any, place: str, journal: str, results: Path, messages: Any
) -> None:
    """Its worker ends with it, and who waits runs the call, once."""
    run = script(RUNNING)
    gate.arrived()
    waiting = [make().submit(calls.held_with_pid, journal, place) for _ in range(2)]
    for _ in waiting:
        messages.wait("waiting for its result")
    run.kill()
    ended(int(noted(journal)[0]))
    gate.arrived()
    gate.open()
    _, successor = noted(journal)
    assert [future.result() for future in waiting] == [int(successor)] * 2
    assert not garbage(results)


@linux
@pytest.mark.parametrize("sweep", ["check", "prune"])
def test_the_driver_is_killed_and_nobody_waits(
    script: Any, ended: Any, gate: Any, journal: str, results: Path, sweep: str
) -> None:
    run = script(RUNNING)
    gate.arrived()
    run.kill()
    ended(int(noted(journal)[0]))
    cache = Cache(results)
    (problem,) = cache.check().problems
    assert problem.kind == "left"
    assert len(garbage(results)) == 1
    if sweep == "check":
        assert cache.check(repair=True).ok
    else:
        cache.prune(older_than="1d")
    assert not garbage(results)
    assert cache.check().problems == []


@linux
@pytest.mark.parametrize("when", ["after it has heard of the result", "before"])
def test_a_finished_call_survives_the_driver(
    make: Any, script: Any, gate: Any, place: str, journal: str, results: Path, when: str
) -> None:
    run = script(RUNNING.replace("signal.pause()", "os.kill(os.getpid(), signal.SIGKILL)"))
    gate.arrived()
    if when == "before":
        run.process.send_signal(signal.SIGSTOP)
    ((key, _),) = Cache(results)._claims.running()
    future = Cache(results).future(key)
    gate.open()
    (pid,) = noted(journal)
    assert future.result() == int(pid)
    run.kill()
    again = make().submit(calls.held_with_pid, journal, place)
    assert (again.cached, again.result()) == (True, int(pid))
    assert not garbage(results)


def test_calls_that_finished_before_the_driver_died(
    make: Any, script: Any, gate: Any, place: str, journal: str
) -> None:
    """Short ones, whose results are on their way in bulk."""
    run = script(
        """
        ex = Executor(1, cache=RESULTS)
        futures = [ex.submit(calls.square, JOURNAL, x) for x in range(20)]
        last = ex.submit(calls.held, JOURNAL, PLACE, 0)
        ex.shutdown()
        """
    )
    gate.arrived()
    run.kill()
    futures = [make().submit(calls.square, journal, x) for x in range(20)]
    assert [future.cached for future in futures] == [True] * 20
    assert [future.result() for future in futures] == [x * x for x in range(20)]


# ------------------------------------------------------------------ what is found in the place of a record


def truncated(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 2)


def one_byte_short(file: Path) -> None:
    os.truncate(file, file.stat().st_size - 1)


def emptied(file: Path) -> None:
    os.truncate(file, 0)


def changed(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def zeroed(file: Path) -> None:
    file.write_bytes(bytes(file.stat().st_size))


def foreign(file: Path) -> None:
    file.write_text("a shopping list\n")


def foreign_hdf5(file: Path) -> None:
    import h5py

    with h5py.File(file, "w") as other:
        other["output"] = 16


def of_another_call(file: Path) -> None:
    (other,) = (path for path in file.parents[1].rglob("*.h5") if path != file)
    shutil.copy(other, file)


DAMAGES = [truncated, one_byte_short, emptied, changed, zeroed, foreign, foreign_hdf5, of_another_call]


def stored(ex: Executor, results: Path, journal: str) -> Path:
    """The files of two calls are there; return that of the first."""
    futures = [ex.submit(calls.square, journal, x) for x in (3, 4)]
    wait(futures)
    return Path(Cache(results)._directory.record(futures[0].key or ""))


@contextmanager
def one_warning(words: str) -> Iterator[None]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    (warning,) = caught
    assert words in str(warning.message)
    assert warning.category is UserWarning


def test_a_problem_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "callyard")
    with one_warning("no room"):
        tell("no room")
    tell("no room")  # warnings are errors here, and nobody would see it
    assert [record.levelname for record in caplog.records] == ["INFO", "WARNING"]


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_files_are_set_aside(
    threads: Executor, results: Path, journal: str, damage: Callable[[Path], None], messages: Any
) -> None:
    file = stored(threads, results, journal)
    damage(file)
    with one_warning(f"moved to {results}/damaged/"):
        future = threads.submit(calls.square, journal, 3)
        assert future.result() == 9
    assert messages.wait("the call runs again")
    assert future.cached is False
    assert noted(journal).count("square 3") == 2
    assert [path.suffix for path in sorted((results / "damaged").iterdir())] == [".h5", ".txt"]
    assert threads.submit(calls.square, journal, 3).cached
    assert Cache(results)[future.key or ""].output == 9


@pytest.mark.parametrize("damage", [truncated, emptied, of_another_call])
def test_damaged_files_of_dependents(
    threads: Executor, results: Path, journal: str, damage: Callable[[Path], None], gate: Any, place: str
) -> None:
    """Their keys are known when other threads look."""
    file = stored(threads, results, journal)
    three = threads.submit(calls.held, journal, place, 3)
    with one_warning("the call runs again"):
        future = threads.submit(calls.square, journal, three)
        damage(file)
        gate.open()
        assert future.result() == 9
    assert noted(journal).count("square 3") == 2


def test_the_warning_is_at_the_line_of_the_user(threads: Executor, results: Path, journal: str) -> None:
    emptied(stored(threads, results, journal))
    with pytest.warns(UserWarning, match="the call runs again") as caught:
        threads.submit(calls.square, journal, 3).result()
    assert [warning.filename for warning in caught] == [__file__]


def newer(file: Path) -> None:
    begin, content = b"CALLYARD 3 ", file.read_bytes()
    assert content.startswith(begin)
    file.write_bytes(content.replace(begin, b"CALLYARD 4 ", 1))


def test_a_file_of_a_newer_format(threads: Executor, results: Path, journal: str, gate: Any, place: str) -> None:
    """It is refused and left alone; other calls go on."""
    file = stored(threads, results, journal)
    three = threads.submit(calls.held, journal, place, 3)
    dependent = threads.submit(calls.square, journal, three)
    newer(file)
    with pytest.raises(VersionMismatch, match="newer") as caught:
        threads.submit(calls.square, journal, 3)
    assert "\n" not in str(caught.value)
    gate.open()
    assert isinstance(dependent.exception(), VersionMismatch)
    assert file.exists()
    assert threads.submit(calls.square, journal, 5).result() == 25
    assert noted(journal).count("square 3") == 1


def test_damaged_files_of_a_cache_that_is_only_read(threads: Executor, results: Path, journal: str) -> None:
    file = stored(threads, results, journal)
    emptied(file)
    with ThreadPoolExecutor(1) as pool:
        with Executor(backend=pool, cache=Cache(results, mode="read-only")) as ex:
            with one_warning("left alone"):
                assert ex.submit(calls.square, journal, 3).result() == 9
    assert file.stat().st_size == 0


def test_a_damaged_result_is_not_what_a_worker_declines_for(ex: Executor, results: Path, journal: str) -> None:
    """With processes too, and also where the file is damaged between two submissions."""
    file = stored(ex, results, journal)
    for damage in (truncated, foreign):
        damage(file)
        with one_warning("the call runs again"):
            assert ex.submit(calls.square, journal, 3).result() == 9
    assert noted(journal).count("square 3") == 3


# ------------------------------------------------------------------ the directory


def test_the_directory_is_removed_between_calls(ex: Executor, results: Path, journal: str) -> None:
    assert ex.submit(calls.square, journal, 3).result() == 9
    shutil.rmtree(results)
    for _ in range(2):
        assert ex.submit(calls.square, journal, 3).result() == 9
    assert noted(journal) == ["square 3"] * 2
    assert results.stat().st_mode & 0o777 == 0o700
    assert len(Cache(results)) == 1


def test_the_directory_is_removed_by_a_call(ex: Executor, results: Path, journal: str) -> None:
    future = ex.submit(calls.remove, journal, str(results))
    assert future.result() == str(results)
    assert ex.submit(calls.remove, journal, str(results)).result() == str(results)
    assert len(noted(journal)) == 1
    assert not garbage(results)


def test_another_directory_is_in_its_place(ex: Executor, results: Path, journal: str, tmp_path: Path) -> None:
    """As where the cache is moved away while it is in use."""
    assert ex.submit(calls.square, journal, 3).result() == 9
    results.rename(tmp_path / "moved")
    results.mkdir(mode=0o700)
    assert ex.submit(calls.square, journal, 3).result() == 9
    assert ex.submit(calls.square, journal, 4).result() == 16
    assert noted(journal) == ["square 3", "square 3", "square 4"]
    assert len(Cache(results)) == 2
    assert len(Cache(tmp_path / "moved")) == 1


def test_nothing_is_logged_without_reason(ex: Executor, journal: str, caplog: Any) -> None:
    caplog.set_level(logging.INFO, "callyard")
    for _ in range(2):
        assert ex.submit(calls.square, journal, 3).result() == 9
    assert caplog.messages == []
