"""The cache as its users have it, over records that were written as runners write them."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from concurrent.futures import TimeoutError as FutureTimeout
from datetime import datetime, timedelta, timezone

import pytest

from callyard import Cache
from callyard.cache.claims import Claim, Claims
from callyard.cache.entry import Entry
from callyard.cache.format.record_writer import Record, write
from callyard.cache.inspect.find import age, volume
from callyard.errors import CacheError, RemoteTraceback, UnsafeCache, VersionMismatch, WorkerLost
from callyard.jobs.check_and_prune import Problem

BEGAN = 1_700_000_000.0
NOW = datetime.now(timezone.utc).timestamp()


def digest(number: int) -> str:
    """A key whose beginning says which it is."""
    return f"{number:08x}" + "0" * 32


def store(cache: Cache, number: int, output: object = 42, **others: object) -> str:
    """Store a call as the process that ran it does; the files are the older, the smaller the number."""
    name = str(others.pop("key", digest(number)))
    fields = {"name": "relax", "state": "finished", "token": "", "args": (number,), "kwargs": {}}
    fields |= {"facts": {"host": "node1", "ingredients": {"argument x": f"7f {number}"}}, "created": BEGAN + number}
    record = Record(key=name, output=output, **(fields | others))
    cache._directory.publish(name, lambda descriptor: write(descriptor, record))
    moment = int((BEGAN + number) * 1e9)
    os.utime(cache._directory.record(name), ns=(moment, moment))
    return name


def fail(cache: Cache, number: int, error: BaseException) -> str:
    return store(cache, number, (error, "Traceback: here"), state="failed")


@pytest.fixture
def cache(tmp_path) -> Cache:
    return Cache(tmp_path / "results")


@pytest.fixture
def read_only(cache) -> Cache:
    return Cache(cache.directory, mode="read-only")


@pytest.fixture
def claim_of_the_dead(cache):
    """A claim that a process has made which is gone."""

    def make(name: str) -> None:
        code = "import sys; from callyard import Cache; Cache(sys.argv[1])._claims.take(sys.argv[2], 'relax')"
        subprocess.run([sys.executable, "-c", code, cache.path, name], check=True)

    return make


# ------------------------------------------------------------------ how it is opened


def test_the_directory_is_made_for_its_user_alone(cache):
    assert os.stat(cache.path).st_mode & 0o777 == 0o700
    assert cache.path == os.path.realpath(cache.directory)


@pytest.mark.parametrize(
    ("arguments", "options", "error", "words"),
    [
        ((3,), {}, TypeError, "a path, not 3"),
        ((b"results",), {}, TypeError, "a path, not b'results'"),
        (("",), {}, CacheError, "must have a name"),
        (("x",), {"mode": "readonly"}, CacheError, "'read-only', not 'readonly'"),
        (("x",), {"trust": "world"}, CacheError, 'trust is None or "group"'),
        (("x",), {"failures": "yes"}, TypeError, "failures is True or False, not 'yes'"),
        (("x", "refresh"), {}, TypeError, "positional"),
    ],
)
def test_what_makes_no_sense_is_refused(arguments, options, error, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=words):
        Cache(*arguments, **options)
    assert not list(tmp_path.iterdir())


def test_only_to_read_it_must_be_there(tmp_path):
    with pytest.raises(CacheError, match="there is no cache"):
        Cache(tmp_path / "results", mode="read-only")


def test_what_others_can_write_is_refused(tmp_path):
    (tmp_path / "results").mkdir()
    (tmp_path / "results").chmod(0o777)
    with pytest.raises(UnsafeCache, match="everybody"):
        Cache(tmp_path / "results")


def test_it_cannot_be_changed(cache):
    with pytest.raises(AttributeError):
        cache.mode = "refresh"


def test_what_it_says_of_itself(tmp_path):
    assert repr(Cache(tmp_path)) == f"Cache({str(tmp_path)!r})"
    assert repr(Cache(tmp_path, mode="refresh", failures=True)).endswith("mode='refresh', failures=True)")


def test_it_travels(cache):
    store(cache, 1)
    other = pickle.loads(pickle.dumps(Cache(cache.directory, failures=True)))
    assert other.failures
    assert other == Cache(cache.path, failures=True) != cache
    assert other[digest(1)] == cache[digest(1)]


def test_an_empty_cache_is_true(cache):
    assert cache
    assert len(cache) == 0
    assert list(cache) == []


def test_another_directory_in_the_same_way(cache, tmp_path):
    store(cache, 1)
    other = Cache(cache.directory, failures=True)._at(tmp_path / "more")
    assert (other.failures, len(other), other.path) == (True, 0, str(tmp_path / "more"))


# ------------------------------------------------------------------ a mapping


def test_entries_come_as_they_were_stored(cache):
    keys = [store(cache, number) for number in (3, 1, 2)]
    assert [entry.args for entry in cache] == [(1,), (2,), (3,)]
    assert sorted(keys) == cache.keys()
    assert len(cache) == 3
    assert dict(cache) == dict(cache.items()) == {entry.key: entry for entry in cache}
    assert [*cache.values()] == [*cache]


def test_what_an_entry_says(cache):
    ingredients = {"python": "3.11", "argument x": "7f 2", "package numpy": "7c 2.1", "package ase": "7d"}
    facts = {"ingredients": ingredients, "resources": {"memory": 2}, "host": "node1", "python": "3.11.2"}
    facts |= {"callyard": "1.0", "log": "one\ntwo\n"}
    store(cache, 1, {"a": 1}, kwargs={"y": 2.5}, source="def relax(): ...\n", facts=facts, seconds=1.5)
    (entry,) = cache
    assert (entry.key, entry.function, entry.state, entry.seconds) == (digest(1), "relax", "finished", 1.5)
    assert entry.created == datetime.fromtimestamp(BEGAN + 1, timezone.utc)
    assert entry.created.tzinfo is not None
    assert (entry.args, entry.kwargs, entry.output, entry.error) == ((1,), {"y": 2.5}, {"a": 1}, None)
    assert (entry.resources, entry.host) == ({"memory": 2}, "node1")
    assert entry.versions == {"python": "3.11.2", "callyard": "1.0", "numpy": "2.1"}
    assert (entry.ingredients, entry.source, entry.log) == (ingredients, "def relax(): ...\n", "one\ntwo\n")
    assert entry.size == entry.path.stat().st_size
    assert repr(entry).startswith(f"<Entry {digest(1)[:12]} 'relax' finished 2023-11-1")
    assert entry == cache[digest(1)] == pickle.loads(pickle.dumps(entry))
    assert len({entry, cache[digest(1)]}) == 1
    assert entry != 3


def test_little_has_to_be_known_of_a_call(cache):
    store(cache, 1, facts={})
    (entry,) = cache
    assert (entry.resources, entry.host, entry.versions, entry.ingredients) == ({}, None, {}, {})
    assert (entry.log, entry.traceback) == (None, None)


def test_an_entry_of_a_failure(cache):
    fail(cache, 1, ValueError("too small"))
    (entry,) = cache
    assert (entry.state, entry.output) == ("failed", None)
    assert repr(entry.error) == "ValueError('too small')"
    assert isinstance(entry.error.__cause__, RemoteTraceback)
    assert entry.traceback == "Traceback: here"


def test_a_log_that_is_a_file_of_its_own(cache, tmp_path):
    store(cache, 1, facts={"log": str(tmp_path / "log")})
    assert cache[digest(1)].log is None
    (tmp_path / "log").write_text("one\n")
    assert cache[digest(1)].log == "one\n"
    store(cache, 2, facts={"log": str(tmp_path / "log/of/another/computer")})
    assert cache[digest(2)].log is None


def test_the_beginning_of_a_key_is_enough(cache):
    for number in (0x12345678, 0x12345699, 0xABCDEF00):
        store(cache, number)
    assert cache["abcdef"].key == digest(0xABCDEF00)
    assert cache["1234567"].args == (0x12345678,)
    assert digest(0xABCDEF00) in cache
    assert "abcdef" not in cache  # whose it may be changes with the next call
    assert cache.get("abcdef").key == digest(0xABCDEF00)
    assert cache.get("fedcba") is None
    assert "../x" not in cache
    assert 3 not in cache


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        ("123456", "the beginning of 2 keys in .*results: 1234567[0-9a-f]+, 12345699"),
        ("1234", "give at least 6 characters of the key"),
        ("abcdee00", "did you mean 'abcdef00"),
        ("zzzzzzzz", "`callyard list` shows"),
        ("../x", "there is no call '../x'"),
    ],
)
def test_an_unknown_key_says_which_there_are(cache, wanted, words):
    for number in (0x12345678, 0x12345699, 0xABCDEF00):
        store(cache, number)
    with pytest.raises(KeyError, match=words) as raised:
        cache[wanted]
    assert isinstance(raised.value, CacheError)


def test_keys_of_other_kinds(cache):
    with pytest.raises(KeyError, match="which is empty"):
        cache["abcdef"]
    with pytest.raises(TypeError, match="a key is a string, not 3"):
        cache[3]


def test_a_key_of_the_users_own(cache):
    store(cache, 1, key="bulk-copper")
    assert cache["bulk-copper"].output == cache["bulk-c"].output == 42
    assert cache.keys() == ["bulk-copper"]


def test_what_vanishes_meanwhile_is_left_out(cache):
    for number in (1, 2, 3):
        store(cache, number)
    found = iter(cache)
    first = next(found)
    cache._directory.remove(digest(2))
    assert [first.args, *(entry.args for entry in found)] == [(1,), (3,)]


def test_what_is_damaged_is_left_out_with_a_warning(cache):
    store(cache, 1)
    with open(cache._directory.record(store(cache, 2)), "r+b") as file:
        file.truncate(100)
    with pytest.warns(UserWarning, match="left out: .*is damaged"):
        assert [entry.args for entry in cache] == [(1,)]
    with pytest.raises(CacheError, match="damaged"):
        cache[digest(2)]


def test_an_entry_whose_file_is_gone(cache):
    entry = cache[store(cache, 1)]
    cache._directory.remove(entry.key)
    assert entry.function == "relax"
    with pytest.raises(CacheError, match=r"is not in .*results any more: run it again"):
        entry.output  # noqa: B018


def test_a_file_under_the_name_of_another_call(cache):
    os.rename(cache._directory.record(store(cache, 1)), cache._directory.record(digest(2)))
    with pytest.raises(CacheError, match="it holds another call"):
        cache[digest(2)]


def test_nothing_is_written_to_read(cache, read_only):
    store(cache, 1)
    assert [entry.output for entry in read_only] == [42]
    with pytest.raises(CacheError, match="is only read here"):
        read_only.prune(max_size=0)
    with pytest.raises(CacheError, match="is only read here"):
        read_only.check(repair=True)
    assert [entry.key for entry in read_only.prune(max_size=0, dry_run=True)] == [digest(1)]
    assert read_only.check().ok
    assert len(cache) == 1


@pytest.mark.needs("pandas")
def test_a_table(cache):
    store(cache, 1, [1.5, 2.5])
    fail(cache, 2, ValueError("too small"))
    table = cache.to_dataframe()
    assert list(table["key"]) == cache.keys()
    assert list(table["arguments"]) == ["x=1", "x=2"]
    assert list(table["state"]) == ["finished", "failed"]
    assert table["created"].dt.tz is not None
    assert "output" not in table
    full = cache.to_dataframe(values=True)
    assert full["output"][0] == [1.5, 2.5]
    assert isinstance(full["error"][1], ValueError)
    assert full["args"][1] == (2,)


@pytest.mark.needs("pandas")
def test_a_table_of_nothing(cache):
    assert list(cache.to_dataframe().columns)[:3] == ["key", "function", "state"]


def test_a_table_needs_pandas(cache, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(CacheError, match="to_dataframe needs pandas: pip install"):
        cache.to_dataframe()


# ------------------------------------------------------------------ futures


def test_the_future_of_a_stored_call(cache):
    future = cache.future(store(cache, 1)[:8])
    assert future.done()
    assert (future.result(), future.key, future.cached) == (42, digest(1), True)


def test_the_future_of_a_stored_failure(cache):
    error = cache.future(fail(cache, 1, ValueError("too small"))).exception()
    assert repr(error) == "ValueError('too small')"
    assert "Traceback: here" in str(error.__cause__)


def test_the_future_of_a_running_call(cache):
    claim = Claims(cache._directory).take(digest(1), "relax")
    first, second = cache.future(digest(1)), cache.future(digest(1)[:9])
    assert first.running()
    assert not second.done()
    with pytest.raises(FutureTimeout):
        first.result(timeout=0)
    store(cache, 1)
    claim.release()
    assert (first.result(30), second.result(30)) == (42, 42)


def test_the_future_of_a_running_call_says_who_runs_it(cache):
    claim = Claims(cache._directory).take(digest(1), "relax")
    future = cache.future(digest(1))
    assert f"state=running, by process {os.getpid()} on " in repr(future)
    assert (future.key, future.cached, future.cancel()) == (digest(1), False, False)
    store(cache, 1)
    claim.release()
    assert future.result(30) == 42


def test_a_running_call_that_leaves_no_result(cache):
    claim = Claims(cache._directory).take(digest(1), "relax")
    future = cache.future(digest(1))
    claim.release()
    assert isinstance(future.exception(30), CacheError)
    assert "no result was stored" in str(future.exception())


def test_a_running_call_whose_process_is_gone(cache, claim_of_the_dead):
    claim_of_the_dead(digest(1))
    error = cache.future(digest(1)).exception(30)
    assert isinstance(error, WorkerLost)
    assert "is gone, without a result: submit the call again" in str(error)


def test_no_future_of_what_is_not_there(cache):
    with pytest.raises(KeyError, match="there is no call"):
        cache.future(digest(1))


# ------------------------------------------------------------------ prune


def test_prune_needs_a_condition(cache):
    store(cache, 1)
    with pytest.raises(CacheError, match="prune needs a condition"):
        cache.prune()
    assert len(cache) == 1


@pytest.mark.parametrize(
    ("conditions", "left"),
    [
        ({"older_than": 3600}, [4]),
        ({"older_than": timedelta(days=1)}, [4]),
        ({"older_than": "30d"}, [4]),
        ({"older_than": "500y"}, [1, 2, 3, 4]),
        ({"larger_than": "100 kB"}, [1, 3, 4]),
        ({"larger_than": 100_000}, [1, 3, 4]),
        ({"function": "energy"}, [1, 2, 4]),
        ({"state": "failed"}, [2, 3, 4]),
        ({"keys": digest(3)}, [1, 2, 4]),
        ({"keys": [digest(3)[:8], digest(1)]}, [2, 4]),
        ({"keys": []}, [1, 2, 3, 4]),
        ({"max_size": 0}, []),
        ({"max_size": "1GB"}, [1, 2, 3, 4]),
        ({"max_size": "50kB"}, [3, 4]),
        ({"older_than": "1d", "function": "relax"}, [3, 4]),
        ({"function": "relax", "max_size": "50kB"}, [3, 4]),
    ],
)
def test_what_prune_removes(cache, conditions, left):
    fail(cache, 1, ValueError())
    store(cache, 2, os.urandom(200_000))
    store(cache, 3, name="energy")
    store(cache, 4, created=NOW)
    all_keys = cache.keys()
    would = cache.prune(**conditions, dry_run=True)
    assert cache.keys() == all_keys
    assert cache.prune(**conditions) == would
    assert cache.keys() == [digest(number) for number in left]
    assert {entry.key for entry in would} == set(all_keys) - set(cache.keys())


@pytest.mark.parametrize(
    ("conditions", "words"),
    [
        ({"older_than": "30 parsecs"}, "'30 parsecs' should be seconds, a timedelta"),
        ({"older_than": "30"}, "'30' has no unit: it should be seconds, a timedelta, or a text as \"90min\""),
        ({"larger_than": "100"}, "'100' has no unit: it should be a number of bytes, or a text"),
        ({"older_than": -1}, "-1 should be seconds"),
        ({"larger_than": True}, "True should be a number of bytes"),
        ({"max_size": "1XB"}, "should be a number of bytes, or a text"),
        ({"max_size": float("nan")}, "should be"),
        ({"state": "running"}, "state is 'finished' or 'failed', not 'running'"),
        ({"keys": ["zzzzzzz"]}, "there is no call 'zzzzzzz'"),
    ],
)
def test_what_prune_does_not_understand(cache, conditions, words):
    store(cache, 1)
    with pytest.raises(CacheError, match=words):
        cache.prune(**conditions)
    assert len(cache) == 1


def test_prune_leaves_what_is_running(cache):
    store(cache, 1)
    store(cache, 2)
    claim = cache._claims.take(digest(1), "relax")
    assert [entry.key for entry in cache.prune(max_size=0)] == [digest(2)]
    claim.release()
    assert [entry.key for entry in cache.prune(max_size=0)] == [digest(1)]


def test_prune_removes_what_the_dead_left(cache, claim_of_the_dead):
    claim_of_the_dead(digest(1))
    store(cache, 1)
    assert len(cache.prune(max_size=0)) == 1
    assert list(cache._claims.running()) == []


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("0", 0), ("1.5h", 5400), ("2 min", 120), ("3m", 180), ("2W", 1209600), (0, 0), ("1y", 31536000)],
)
def test_ages(text, seconds):
    assert age(text) == seconds


@pytest.mark.parametrize(
    ("text", "count"), [("0", 0), ("1kB", 1000), ("1.5 MB", 1_500_000), ("2GiB", 2 << 30), ("3k", 3000), (7, 7)]
)
def test_volumes(text, count):
    assert volume(text) == count


# ------------------------------------------------------------------ check


def kinds(problems: list[Problem]) -> list[str]:
    return [problem.kind for problem in problems]


def test_all_is_well(cache):
    sizes = [cache[store(cache, number)].size for number in (1, 2)]
    found = cache.check()
    assert (found.ok, found.whole, found.size, found.problems) == (True, 2, sum(sizes), [])
    assert str(found).startswith("2 calls are whole, ")


def test_one_byte_is_noticed(cache):
    path = cache._directory.record(store(cache, 1, "a" * 3000))
    store(cache, 2)
    with open(path, "r+b") as file:
        file.seek(file.read().index(b"aaaa") + 1000)
        file.write(b"b")
    found = cache.check()
    assert (found.ok, found.whole, kinds(found.problems)) == (False, 1, ["damaged"])
    assert "does not match its checksum" in str(found)
    assert digest(1) in cache
    repaired = cache.check(repair=True)
    assert (repaired.ok, kinds(repaired.problems)) == (True, ["damaged", "aside"])
    assert "moved to" in repaired.problems[0].done
    assert cache.keys() == [digest(2)]
    again = cache.check()
    assert (again.ok, kinds(again.problems)) == (True, ["aside"])
    assert "was set aside: " in again.problems[0].text


def test_what_does_not_belong_there(cache):
    store(cache, 1)
    folder = os.path.dirname(cache._directory.record(digest(1)))
    strangers = [f"{cache.path}/notes.txt", f"{folder}/copy of.h5", f"{folder}/{'ff' * 20}.h5"]
    for path in strangers:
        open(path, "w").close()
    found = cache.check()
    assert (found.ok, found.whole) == (False, 1)
    assert {problem.path for problem in found.problems} == set(strangers)
    assert set(kinds(found.problems)) == {"foreign"}
    assert kinds(cache.check(repair=True).problems) == ["foreign"] * 3


def test_what_is_unsafe_is_not_touched(cache):
    os.chmod(cache._directory.record(store(cache, 1)), 0o666)
    found = cache.check(repair=True)
    assert (found.ok, kinds(found.problems)) == (False, ["unsafe"])
    assert digest(1) in cache


def test_what_a_newer_callyard_wrote_is_not_touched(cache):
    path = cache._directory.record(store(cache, 1))
    with open(path, "r+b") as file:
        file.write(b"CALLYARD 9")
    found = cache.check(repair=True)
    assert (found.ok, kinds(found.problems)) == (False, ["newer"])
    with pytest.raises(VersionMismatch):
        cache[digest(1)]


def test_what_the_dead_left(cache, claim_of_the_dead):
    claim_of_the_dead(digest(1))
    alive = cache._claims.take(digest(2), "relax")
    assert isinstance(alive, Claim)
    found = cache.check()
    assert (found.ok, kinds(found.problems)) == (False, ["left"])
    assert "is gone and left its claim" in str(found)
    assert cache.check(repair=True).ok
    assert cache.check().problems == []
    alive.release()


def test_a_half_written_file(cache):
    code = "import os, sys; from callyard import Cache; Cache(sys.argv[1])._directory.temporary('00'); os._exit(0)"
    subprocess.run([sys.executable, "-c", code, cache.path], check=True)
    assert kinds(cache.check().problems) == ["left"]
    assert cache.check(repair=True).ok
    assert cache.check().problems == []


def test_an_entry_is_what_its_file_says(cache):
    entry = cache[store(cache, 1)]
    assert isinstance(entry, Entry)
    assert entry.path.suffix == ".h5"
