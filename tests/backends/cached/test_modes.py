"""`Cache(mode=..., failures=...)`: run again, change nothing, keep errors."""

from __future__ import annotations

import concurrent.futures as standard
import os
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import remembered_calls as calls
from remembered_calls import noted

from callyard import Cache, CacheError, ResourceError

# ------------------------------------------------------------------ refresh


def counted(journal: str) -> int:
    """How often it was called, itself included."""
    calls.note(journal, "counted")
    return len(noted(journal))


def test_refresh_runs_again_once_for_each_executor(make: Any, results: Path, journal: str) -> None:
    make().submit(calls.square, journal, 3).result()
    for _ in range(2):
        ex = make(cache=Cache(results, mode="refresh"))
        again = ex.submit(calls.square, journal, 3)
        assert not again.cached
        assert again.result() == 9
        assert ex.submit(calls.square, journal, 3).cached
    assert make().submit(calls.square, journal, 3).cached
    assert noted(journal) == ["square 3"] * 3
    assert len(Cache(results)) == 1


def test_refresh_replaces_what_was_there(make: Any, results: Path, journal: str) -> None:
    assert make().submit(counted, journal).result() == 1
    assert make().submit(counted, journal).result() == 1
    assert make(cache=Cache(results, mode="refresh")).submit(counted, journal).result() == 2
    assert make().submit(counted, journal).result() == 2


def test_refresh_runs_dependents_again(make: Any, results: Path, journal: str) -> None:
    for mode in ("use", "refresh", "use"):
        ex = make(cache=Cache(results, mode=mode))
        two = ex.submit(calls.plus, journal, 1, 1)
        four = ex.submit(calls.square, journal, two)
        last = ex.submit(calls.square, journal, [four][0])
        assert last.result() == 16
        waiting: standard.Future[int] = standard.Future()
        late = ex.submit(calls.square, journal, waiting)
        waiting.set_result(7)
        assert late.result() == 49
    assert noted(journal) == ["plus 1 1", "square 2", "square 4", "square 7"] * 2


def test_identical_calls_share_the_run_that_refreshes(
    make: Any, results: Path, journal: str, gate: Any, place: str
) -> None:
    ex = make(cache=Cache(results, mode="refresh"))
    futures = [ex.submit(calls.held, journal, place, 3) for _ in range(3)]
    gate.open()
    assert [future.result() for future in futures] == [3, 3, 3]
    assert noted(journal) == ["held 3"]


def test_a_refresh_that_fails_leaves_what_was_there(make: Any, results: Path, journal: str, tmp_path: Path) -> None:
    flag = tmp_path / "flag"
    assert make().submit(fails_if, journal, str(flag)).result() == 1
    flag.touch()
    ex = make(cache=Cache(results, mode="refresh"))
    for _ in range(2):
        with pytest.raises(ValueError, match="the flag is up"):
            ex.submit(fails_if, journal, str(flag)).result()
    assert make().submit(fails_if, journal, str(flag)).result() == 1
    assert noted(journal) == ["fails_if"] * 3


def fails_if(journal: str, flag: str) -> int:
    calls.note(journal, "fails_if")
    if os.path.exists(flag):
        raise ValueError("the flag is up")
    return 1


# ------------------------------------------------------------------ read-only


@pytest.fixture
def sealed(make: Any, results: Path, journal: str) -> Iterator[Path]:
    """A cache with one call, in directories that cannot be written."""
    with make() as ex:
        ex.submit(calls.square, journal, 3).result()
    folders = [results, *(path for path in results.rglob("*") if path.is_dir())]
    for folder in folders:
        folder.chmod(0o500)
    yield results
    for folder in folders:
        folder.chmod(0o700)


def content(place: Path) -> dict[str, tuple[int, int]]:
    return {str(path): (path.stat().st_mtime_ns, path.stat().st_size) for path in place.rglob("*")}


def test_read_only_answers_and_stores_nothing(make: Any, sealed: Path, journal: str) -> None:
    before = content(sealed)
    ex = make(cache=Cache(sealed, mode="read-only"))
    assert ex.submit(calls.square, journal, 3).cached
    futures = [ex.submit(calls.square, journal, 4) for _ in range(2)]
    assert [future.result() for future in futures] == [16, 16]
    assert [future.cached for future in futures] == [False, False]
    assert ex.submit(calls.square, journal, futures[0]).result() == 256
    assert ex.submit(calls.square, journal, ex.submit(calls.plus, journal, 1, 2)).result() == 9  # remembered
    assert ex.submit(calls.square, journal, 4).result() == 16
    assert content(sealed) == before
    assert noted(journal) == ["square 3", "square 4", "square 16", "plus 1 2", "square 4"]


def test_read_only_makes_no_directory(make: Any, tmp_path: Path) -> None:
    with pytest.raises(CacheError, match="missing"):
        Cache(tmp_path / "missing", mode="read-only")
    assert not (tmp_path / "missing").exists()


def test_read_only_leaves_damage_alone(make: Any, results: Path, journal: str) -> None:
    stored = make().submit(calls.square, journal, 3)
    stored.result()
    path = Path(Cache(results)._directory.record(stored.key))
    path.write_bytes(path.read_bytes()[:100])
    before = content(results)
    with pytest.warns(UserWarning, match="left alone"):
        assert make(cache=Cache(results, mode="read-only")).submit(calls.square, journal, 3).result() == 9
    assert content(results) == before


@pytest.mark.parametrize("options", [{"mode": "readonly"}, {"mode": None}, {"failures": "yes"}])
def test_what_makes_no_sense(results: Path, options: dict[str, Any]) -> None:
    with pytest.raises((CacheError, TypeError), match=next(iter(options))):
        Cache(results, **options)


# ------------------------------------------------------------------ failures


def test_failures_are_kept(make: Any, results: Path, journal: str) -> None:
    first = make(cache=Cache(results, failures=True)).submit(calls.failing, journal, 1)
    with pytest.raises(ValueError, match="the user's own"):
        first.result()
    kept = make(cache=Cache(results, failures=True)).submit(calls.failing, journal, 1)
    assert (kept.cached, kept.key, kept.done()) == (True, first.key, True)
    error = kept.exception()
    assert isinstance(error, ValueError)
    assert error.args == ("the user's own", 1)
    assert "in failing" in str(error.__cause__)
    assert "in failing" in "".join(traceback.format_exception(error))
    assert noted(journal) == ["failing 1"]
    entry = Cache(results)[first.key]
    assert entry.state == "failed"


def test_dependents_of_a_kept_failure(make: Any, results: Path, journal: str) -> None:
    cache = Cache(results, failures=True)
    for _ in range(2):
        ex = make(cache=cache)
        dependent = ex.submit(calls.square, journal, ex.submit(calls.failing, journal, 1))
        error = dependent.exception()
        assert isinstance(error, ValueError)
        assert error.__notes__ == ["callyard: square <- failing"]  # type: ignore[attr-defined]
    assert noted(journal) == ["failing 1"]
    assert len(cache) == 1


def test_failures_are_not_reused_unless_asked_for(make: Any, results: Path, journal: str, tmp_path: Path) -> None:
    flag = tmp_path / "flag"
    flag.touch()
    keeping = Cache(results, failures=True)
    assert make(cache=keeping).submit(fails_if, journal, str(flag)).exception() is not None
    flag.unlink()
    assert make(cache=keeping).submit(fails_if, journal, str(flag)).exception() is not None
    assert make(cache=results).submit(fails_if, journal, str(flag)).result() == 1
    assert make(cache=keeping).submit(fails_if, journal, str(flag)).result() == 1  # the failure is replaced
    assert noted(journal) == ["fails_if"] * 2


def test_a_failure_that_cannot_be_stored(make: Any, results: Path, journal: str) -> None:
    ex = make(cache=Cache(results, failures=True))
    for _ in range(2):
        assert ex.submit(calls.refusing, journal).exception() is not None
    assert noted(journal) == ["refusing"] * 2


def test_ends_from_outside_are_no_failures(make: Any, results: Path, journal: str) -> None:
    """A worker that dies and a limit that is passed say nothing about the call."""
    cache = Cache(results, failures=True)
    ex = make(cache=cache)
    assert ex.submit(calls.dying, journal, 1).exception() is not None
    assert ex.submit(calls.dying, journal, 1).result() == 2
    with pytest.raises(ResourceError):
        ex.submit(calls.square, journal, 1, resource_dict={"memory": 1e9})
    assert len(cache) == 1
