"""What is stored and what is not, where it cannot be, and which caches are refused."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import remembered_calls as calls
from remembered_calls import noted

from callyard import Cache, Executor, UnsafeCache
from callyard.cache import claims as claims_module
from callyard.cache.directory import CacheDirectory
from callyard.errors import CacheError, RemoteTraceback

root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away and mount")


@pytest.fixture(params=["local", "threads"])
def either(request: Any) -> Executor:
    """An executor with processes, and one that runs calls in threads of this one."""
    executor: Executor = request.getfixturevalue("ex" if request.param == "local" else "threads")
    return executor


def files(results: Path) -> list[Path]:
    return [path for path in results.rglob("*") if path.is_file()]


def claimed(results: Path) -> list[str]:
    return [key for key, _ in Cache(results)._claims.running()]


# ------------------------------------------------------------------ files


def test_one_small_file_for_its_user_alone(tmp_path: Path, journal: str) -> None:
    before = os.umask(0)
    try:
        with Executor(1, cache=tmp_path / "a" / "b") as ex:
            future = ex.submit(calls.square, journal, 3)
            assert future.result() == 9
    finally:
        os.umask(before)
    (file,) = files(tmp_path / "a" / "b")
    assert file.name == f"{future.key}.h5"
    assert file.stat().st_size < 8192
    assert file.stat().st_mode & 0o777 == 0o600
    assert {path.stat().st_mode & 0o777 for path in (file.parent, file.parents[1])} == {0o700}


def test_arguments_are_stored_as_they_were(either: Executor, results: Path, journal: str) -> None:
    np = pytest.importorskip("numpy")
    items, array = [1, 2, 3], np.ones((300, 300))
    future = either.submit(calls.consume, journal, list(items), more=array.copy())
    assert future.result() == 6
    entry = Cache(results)[future.key or ""]
    assert entry.args == (journal, items)
    assert (entry.kwargs["more"] == array).all()
    again = either.submit(calls.consume, journal, list(items), more=array.copy())
    assert again.cached
    assert len(noted(journal)) == 1


def test_results_as_arguments_are_stored_as_they_were(either: Executor, results: Path, journal: str) -> None:
    np = pytest.importorskip("numpy")
    items, array = either.submit(list, (1, 2, 3)), either.submit(np.ones, (300, 300))
    future = either.submit(calls.consume, journal, items, array)
    assert future.result() == 6
    entry = Cache(results)[future.key or ""]
    assert entry.args[1] == [1, 2, 3]
    assert (entry.args[2] == 1).all()


@pytest.mark.needs("linux")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_function_that_forks(ex: Executor, ended: Any, gate: Any, results: Path, place: str, journal: str) -> None:
    """Both sides come back, and one of them is the worker."""
    future = ex.submit(calls.fork_and_both_return, journal, place)
    result = future.result()
    (child,) = noted(journal)
    gate.open()
    ended(int(child))
    assert result != int(child)
    assert Cache(results)[future.key or ""].output == result
    assert not claimed(results)


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_function_that_forks_and_fails(make: Any, results: Path, journal: str) -> None:
    cache = Cache(results, failures=True)
    ex = make(cache=cache)
    with pytest.raises(ValueError) as caught:
        ex.submit(calls.fork_and_both_raise, journal).result()
    assert len(cache) == 1
    assert not claimed(results)
    again = ex.submit(calls.fork_and_both_raise, journal)
    assert again.cached
    assert str(again.exception()) == str(caught.value)


# ------------------------------------------------------------------ failures


def test_failures_are_not_remembered(either: Executor, results: Path, journal: str) -> None:
    for _ in range(2):
        future = either.submit(calls.failing, journal, 1)
        with pytest.raises(ValueError, match="own"):
            future.result()
        assert future.cached is False
        assert not claimed(results)
    assert noted(journal) == ["failing 1"] * 2
    assert [file.parent.name for file in files(results)] == ["failed"]


def test_failures_are_remembered_if_asked_for(make: Any, results: Path, journal: str) -> None:
    cache = Cache(results, failures=True)
    first = make(cache=cache).submit(calls.failing, journal, 1)
    assert first.exception().args == ("the user's own", 1)
    again = make(cache=cache).submit(calls.failing, journal, 1)
    assert again.cached
    error = again.exception()
    assert type(error) is ValueError
    assert error.args == ("the user's own", 1)
    assert isinstance(error.__cause__, RemoteTraceback)
    text = "".join(traceback.format_exception(error))
    assert 'remembered_calls.py", line' in text
    assert 'raise ValueError("the user\'s own", x)' in text
    assert noted(journal) == ["failing 1"]


def test_a_remembered_failure_is_nothing_to_those_who_did_not_ask(make: Any, results: Path, journal: str) -> None:
    """They run the call, and what it returns then replaces the failure."""
    keeping, other = make(cache=Cache(results, failures=True)), make()
    assert isinstance(keeping.submit(calls.failing_at_first, journal).exception(), ValueError)
    future = other.submit(calls.failing_at_first, journal)
    assert future.result() == 2
    again = keeping.submit(calls.failing_at_first, journal)
    assert (again.cached, again.result()) == (True, 2)


def test_dependents_of_remembered_failures(make: Any, results: Path, journal: str) -> None:
    ex = make(cache=Cache(results, failures=True))
    for _ in range(2):
        dependent = ex.submit(calls.plus, journal, ex.submit(calls.failing, journal, 1), 1)
        with pytest.raises(ValueError, match="own"):
            dependent.result()
    assert noted(journal) == ["failing 1"]


@pytest.mark.parametrize("failures", [False, True])
def test_a_failure_that_cannot_be_pickled(make: Any, results: Path, journal: str, failures: bool) -> None:
    ex = make(cache=Cache(results, failures=failures))
    for _ in range(2):
        error = ex.submit(calls.refusing, journal).exception()
        assert "Refusal" in f"{type(error).__name__}: {error}"
    assert [file.parent.name for file in files(results)] == ["failed"]
    assert noted(journal) == ["refusing"] * 2


def test_a_result_that_cannot_be_pickled(ex: Executor, results: Path, journal: str) -> None:
    for _ in range(2):
        with pytest.raises(Exception, match="generator"):
            ex.submit(calls.unpicklable, journal).result()
    assert [file.parent.name for file in files(results)] == ["failed"]
    assert noted(journal) == ["unpicklable"] * 2


def test_a_result_that_can_be_had_but_not_stored(threads: Executor, results: Path, journal: str, messages: Any) -> None:
    assert list(threads.submit(calls.unpicklable, journal).result()) == []
    message = messages.wait("was not stored")
    assert "'unpicklable'" in message
    assert "generator" in message
    assert files(results) == []


# ------------------------------------------------------------------ where nothing can be written


def full(*_: object, **__: object) -> Any:
    raise OSError(28, "No space left on device")


def test_storing_fails_and_the_call_does_not(
    threads: Executor, results: Path, journal: str, messages: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(CacheDirectory, "publish", full)
    future = threads.submit(calls.square, journal, 3)
    dependent = threads.submit(calls.plus, journal, future, 1)
    assert future.result() == 9
    message = messages.wait("the result of 'square' was not stored")
    assert str(results) in message
    assert "No space left" in message
    assert dependent.result() == 10
    assert messages.wait("the result of 'plus' was not stored")
    assert files(results) == []


def test_an_interpreter_that_forbids_comparisons_of_bytes(results: Path) -> None:
    program = (
        "import sys; from callyard import Executor\n"
        "with Executor(1, cache=sys.argv[1]) as ex:\n"
        "    futures = [ex.submit(divmod, 17, number) for number in (5, 5.0)]\n"
        "    print([future.result() for future in futures], ex.submit(divmod, 17, 5).cached)\n"
    )
    command = [sys.executable, "-bb", "-W", "error", "-c", program, str(results)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("[(3, 2), (3.0, 2.0)] True\n", "")


def test_the_user_is_warned(results: Path, journal: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CacheDirectory, "publish", full)
    with pytest.warns(UserWarning, match="was not stored in"):
        with ThreadPoolExecutor(1) as pool, Executor(backend=pool, cache=results) as ex:
            assert ex.submit(calls.square, journal, 3).result() == 9


def test_no_claim_can_be_made(
    threads: Executor, results: Path, journal: str, messages: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claims_module.Claims, "take", full)
    assert threads.submit(calls.square, journal, 3).result() == 9
    assert messages.wait("runs without a claim")


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """Mount a small disk, and mount it again with other options."""
    place = tmp_path / "disk"
    place.mkdir()

    def run(options: str) -> Path:
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", place], capture_output=True, check=False)
        if done.returncode:
            pytest.skip("this machine does not let us mount")
        return place

    yield run
    subprocess.run(["umount", "-l", place], check=False)


@root
@pytest.mark.needs("linux")
def test_a_full_disk(make: Any, mount: Any, journal: str, messages: Any) -> None:
    disk = mount("size=160k,mode=0700")
    ex = make(cache=disk / "results")
    futures = [ex.submit(calls.bytes_of, journal, x, 40_000) for x in range(6)]
    assert [future.result() for future in futures] == [bytes([x]) * 40_000 for x in range(6)]
    assert "No space left" in messages.wait("was not stored")
    cache = Cache(disk / "results")
    assert 0 < len(cache) < 6
    assert all(len(entry.output) == 40_000 for entry in cache)
    assert cache.check().problems == []

    with open(disk / "filler", "wb", buffering=0) as filler:  # to the last byte: not even a claim can be made
        with pytest.raises(OSError, match="No space left"):
            while True:
                filler.write(bytes(1024))
    assert ex.submit(calls.square, journal, 3).result() == 9
    assert "No space left" in messages.wait("was not stored")
    assert isinstance(ex.submit(divmod, 3, 0).exception(), ZeroDivisionError)
    assert cache.check().problems == []
    (disk / "filler").unlink()
    assert ex.submit(calls.square, journal, 3).result() == 9
    assert ex.submit(calls.square, journal, 3).cached


@root
@pytest.mark.needs("linux")
def test_a_disk_that_is_only_read(make: Any, mount: Any, journal: str, messages: Any) -> None:
    disk = mount("size=1m,mode=0700")
    with Executor(1, cache=disk) as ex:
        assert ex.submit(calls.square, journal, 3).result() == 9
    mount("remount,ro")
    for mode in ("use", "read-only"):
        ex = make(cache=Cache(disk, mode=mode))
        assert ex.submit(calls.square, journal, 3).cached
        assert ex.submit(calls.square, journal, 4).result() == 16
        if mode == "use":
            assert "Read-only" in messages.wait("was not stored")
    assert len(Cache(disk, mode="read-only")) == 1


def test_a_cache_that_is_only_read(make: Any, results: Path, journal: str) -> None:
    with Executor(1, cache=results) as ex:
        assert ex.submit(calls.square, journal, 3).result() == 9
    before = sorted(results.rglob("*"))
    for path in (*before, results):
        path.chmod(0o500 if path.is_dir() else 0o400)
    try:
        ex = make(cache=Cache(results, mode="read-only"))
        assert ex.submit(calls.square, journal, 3).cached
        for _ in range(2):
            assert ex.submit(calls.plus, journal, ex.submit(calls.square, journal, 4), 1).result() == 17
    finally:
        for path in (results, *before):
            path.chmod(0o700 if path.is_dir() else 0o600)
    assert sorted(results.rglob("*")) == before
    assert "read-only" in repr(ex)


@root
@pytest.mark.needs("linux")
def test_a_damaged_file_on_a_disk_that_is_only_read(make: Any, mount: Any, journal: str, messages: Any) -> None:
    disk = mount("size=1m,mode=0700")
    with Executor(1, cache=disk) as ex:
        future = ex.submit(calls.square, journal, 3)
        assert future.result() == 9
    os.truncate(Cache(disk)._directory.record(future.key or ""), 1500)
    mount("remount,ro")
    with ThreadPoolExecutor(1) as pool:
        for ex in (make(cache=disk), make(None, cache=disk, backend=pool)):
            assert ex.submit(calls.square, journal, 3).result() == 9
            assert "cannot be moved away" in messages.wait("the call runs again")
    with pytest.raises(CacheError, match="cannot be repaired: Read-only file system"):
        Cache(disk).check(repair=True)


ERRORS = [errno.EIO, errno.EACCES, errno.ESTALE, errno.ENOSPC, errno.EMFILE]


@pytest.mark.parametrize("number", ERRORS, ids=errno.errorcode.get)
@pytest.mark.parametrize("where", ["open", "read"])
def test_a_file_that_cannot_be_read(
    threads: Executor, journal: str, messages: Any, monkeypatch: Any, number: int, where: str
) -> None:
    key = threads.submit(calls.square, journal, 3).key or ""
    threads.submit(calls.square, journal, 4).result()
    plain, system = CacheDirectory.open_record, OSError(number, os.strerror(number))

    def failing(home: CacheDirectory, wanted: str) -> int:
        if wanted == key and where == "open":
            raise system
        return plain(home, wanted)

    def unread(*_: Any) -> bytes:
        raise system

    monkeypatch.setattr(CacheDirectory, "open_record", failing)
    if where == "read":
        monkeypatch.setattr("callyard.cache.format.header.read_at", unread)
    assert threads.submit(calls.square, journal, 3).result() == 9
    assert os.strerror(number) in messages.wait("cannot be read")
    monkeypatch.undo()
    assert threads.submit(calls.square, journal, 3).cached
    assert noted(journal) == ["square 3", "square 4", "square 3"]


@pytest.mark.parametrize("number", ERRORS, ids=errno.errorcode.get)
def test_a_damaged_file_that_cannot_be_moved(
    threads: Executor, results: Path, journal: str, messages: Any, monkeypatch: Any, number: int
) -> None:
    future = threads.submit(calls.square, journal, 3)
    future.result()
    os.truncate(Cache(results)._directory.record(future.key or ""), 1500)

    def refuse(*_: Any) -> str:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(CacheDirectory, "set_aside", refuse)
    assert threads.submit(calls.square, journal, 3).result() == 9
    assert messages.wait("cannot be moved away")
    assert threads.submit(calls.square, journal, 3).cached  # it was replaced


@pytest.mark.parametrize("number", ERRORS, ids=errno.errorcode.get)
@pytest.mark.parametrize("what", ["inode", "subdirectory", "publish", "temporary_in"])
def test_whatever_the_system_cannot_do(
    threads: Executor, journal: str, monkeypatch: Any, number: int, what: str
) -> None:
    """No call fails for it."""

    def refuse(*_: Any, **__: Any) -> Any:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(CacheDirectory, what, refuse)
    future = threads.submit(calls.square, journal, 3)
    assert future.result() == 9
    assert threads.submit(calls.plus, journal, future, 1).result() == 10


def test_the_cache_is_deleted_while_calls_run(
    either: Executor, results: Path, journal: str, gate: Any, place: str
) -> None:
    first, second = either.submit(calls.held, journal, place, 1), either.submit(calls.held, journal, place, 2)
    gate.arrived()
    shutil.rmtree(results)
    gate.open(2)
    assert (first.result(), second.result()) == (1, 2)
    assert either.submit(calls.square, journal, 3).result() == 9


def test_the_cache_is_a_file_from_now_on(threads: Executor, results: Path, journal: str, messages: Any) -> None:
    assert threads.submit(calls.square, journal, 3).result() == 9
    shutil.rmtree(results)
    results.touch()
    assert threads.submit(calls.square, journal, 4).result() == 16
    assert messages.wait("was not stored")


# ------------------------------------------------------------------ whom to trust


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o777])
def test_a_directory_that_others_can_write(results: Path, mode: int) -> None:
    results.chmod(mode)
    with pytest.raises(UnsafeCache, match="chmod") as caught:
        Executor(cache=results)
    assert "\n" not in str(caught.value)


@root
def test_a_directory_of_somebody_else(results: Path) -> None:
    os.chown(results, 1, 1)
    with pytest.raises(UnsafeCache, match="belongs to"):
        Executor(cache=results)


@root
def test_a_link_of_somebody_else(results: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(results)
    with Executor(1, cache=link):  # one's own is as good as the directory
        pass
    os.chown(link, 1, 1, follow_symlinks=False)
    with pytest.raises(UnsafeCache, match="symbolic link"):
        Executor(cache=link)


def test_a_link_to_what_others_can_write(results: Path, tmp_path: Path) -> None:
    results.chmod(0o777)
    (tmp_path / "link").symlink_to(results)
    with pytest.raises(UnsafeCache, match="chmod"):
        Executor(cache=tmp_path / "link")


def writable_by_all(file: Path) -> None:
    file.chmod(0o606)


def writable_by_the_group(file: Path) -> None:
    file.chmod(0o660)


def in_a_folder_of_all(file: Path) -> None:
    file.parent.chmod(0o777)


def linked(file: Path) -> None:
    file.rename(file.parents[2] / "moved")
    file.symlink_to(file.parents[2] / "moved")


def given_away(file: Path) -> None:
    os.chown(file, 1, 1)


def folder_given_away(file: Path) -> None:
    os.chown(file.parent, 1, 1)


DANGERS = [writable_by_all, writable_by_the_group, in_a_folder_of_all, linked]
DANGERS_OF_ROOT = [pytest.param(danger, marks=root) for danger in (given_away, folder_given_away)]


@pytest.mark.parametrize("danger", [*DANGERS, *DANGERS_OF_ROOT])
def test_files_that_others_could_have_written(
    threads: Executor, results: Path, journal: str, danger: Callable[[Path], None]
) -> None:
    """They are refused, not set aside: somebody has to look."""
    future = threads.submit(calls.square, journal, 3)
    assert future.result() == 9
    file = Path(Cache(results)._directory.record(future.key or ""))
    danger(file)
    with pytest.raises(UnsafeCache):
        threads.submit(calls.square, journal, 3)
    dependent = threads.submit(calls.square, journal, threads.submit(calls.plus, journal, 1, 2))
    with pytest.raises(UnsafeCache):
        dependent.result()
    assert os.path.lexists(file)
    assert not (results / "damaged").exists()


def test_a_directory_that_others_may_write_from_now_on(ex: Executor, results: Path, journal: str) -> None:
    """Nothing is stored where somebody else could exchange it."""
    assert ex.submit(calls.square, journal, 3).result() == 9
    (results / "claims").chmod(0o777)
    with pytest.raises(UnsafeCache, match="claims"):
        ex.submit(calls.square, journal, 4).result()
