"""The last use of entries, and what is pruned by it."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from callyard import Cache, CacheError, Executor

DAY = 86400.0


def aged(cache: Cache, key: str, days: float) -> float:
    """Let an entry be stored and used last so many days ago; return that time."""
    moment = time.time() - days * DAY
    os.utime(cache[key].path, (moment, moment))
    return moment


@pytest.mark.needs("linux")
def test_a_hit_is_a_use_and_a_look_is_none(results: Path) -> None:
    with Executor(1, cache=results) as ex:
        key = str(ex.submit(divmod, 17, 5).key)
    cache = Cache(results)
    stored = aged(cache, key, 40)
    assert cache[key].output == (3, 2)
    assert cache.check().ok
    assert [entry.args for entry in cache] == [(17, 5)]
    assert cache[key].used.timestamp() == pytest.approx(stored, abs=2)
    assert [entry.key for entry in cache.prune(unused_for="30d", dry_run=True)] == [key]
    with Executor(1, cache=results) as ex:
        assert ex.submit(divmod, 17, 5).cached
    assert time.time() - cache[key].used.timestamp() < DAY
    assert cache[key].path.stat().st_mtime == pytest.approx(stored, abs=2)
    assert cache.prune(unused_for="30d") == []
    assert key in cache


def test_by_last_use(results: Path) -> None:
    with Executor(1, cache=results) as ex:
        keys = [str(ex.submit(divmod, number, 5).key) for number in (17, 18)]
    cache = Cache(results)
    aged(cache, keys[0], 40)
    assert [entry.key for entry in cache.prune(unused_for="30d")] == keys[:1]
    assert cache.keys() == keys[1:]
    with pytest.raises(CacheError, match="no unit"):
        cache.prune(unused_for="30")


def test_output_of_calls_that_nobody_runs(results: Path) -> None:
    cache = Cache(results)
    log = Path(cache._directory.log("a" * 40))
    log.parent.mkdir(mode=0o700)
    log.write_text("so far")
    (problem,) = cache.check().problems
    assert (problem.kind, problem.path) == ("left", str(log))
    cache.prune(max_size=0)
    assert not log.exists()
    assert cache.check().problems == []
