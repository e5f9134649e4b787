"""The explanation of a hit or a miss."""

from __future__ import annotations

import os
import time

import pytest

from callyard import Cache, Future
from callyard.cache.format.record_writer import Record, write
from callyard.cache.inspect.call_parts import CallParts, differences
from callyard.errors import CacheError, ResourceError
from callyard.hashing.call_key import call_key

SCALE = 2


def helper(x):
    return x * SCALE


def relax(x, force=0.1):
    return helper(x) + force


def slow(x):
    return x, time.time()


def other(x):
    return x


def store(cache: Cache, function, *args, moment: float = 0.0, **kwargs) -> str:
    """Store a call as if it had been run."""
    call = call_key(function, args, kwargs)
    return store_ingredients(cache, call.hex, function.__name__, call.ingredients(), moment)


def store_ingredients(cache: Cache, key: str, name: str, ingredients: dict, moment: float = 0.0, **facts) -> str:
    state = facts.pop("state", "finished")
    output = (ValueError("too small"), "") if state == "failed" else 1
    facts["ingredients"] = ingredients
    record = Record(key, name, state, "", output, (), {}, facts=facts, created=1.7e9 + moment, seconds=2.0)
    cache._directory.publish(key, lambda descriptor: write(descriptor, record))
    os.utime(cache._directory.record(key), (1.7e9 + moment, 1.7e9 + moment))
    return key


@pytest.fixture
def cache(tmp_path) -> Cache:
    return Cache(tmp_path / "results")


# ------------------------------------------------------------------ what is no call


@pytest.mark.parametrize(
    ("args", "kwargs", "why"),
    [
        ((1,), {"weight": 3}, "got an unexpected keyword argument 'weight'"),
        ((1, 2, 3), {}, "too many positional arguments"),
        ((1,), {"x": 2}, "multiple values for argument 'x'"),
    ],
)
def test_arguments_that_the_function_does_not_take(cache, args, kwargs, why) -> None:
    store(cache, relax, 1)
    found = cache.explain(relax, *args, **kwargs)
    assert (found.key, found.hit, found.refused) == ("", False, why)
    assert str(found) == f"'relax' cannot be called so: {why}"


def test_what_is_no_function(cache) -> None:
    with pytest.raises(TypeError, match=r"explain\(\) takes a function and its arguments, .*'relax' is not callable"):
        cache.explain("relax", 1)


# ------------------------------------------------------------------ what differs

BASE = {
    "python": "3.11",
    "code of lab.relax": "aa",
    "code of lab.h.help": "bb",
    "class lab.Atom": "cc",
    "global lab.SCALE": "dd",
    "global lab.OTHER": "dd 2",
    "package numpy": "ee 2.0",
    "argument x": "ff 2",
    "argument t": "ff float64 300.0",
    "argument y": "00 ndarray float64 (3,)",
}


def lines(then: dict, now: dict) -> list[str]:
    return [each.words for each in differences(CallParts("then", then), CallParts("now", now))]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, []),
        ({"argument x": "11 3"}, ["argument x: 2 -> 3"]),
        ({"argument t": "11 float64 310.0"}, ["argument t: 300.0 -> 310.0"]),
        ({"argument t": "11 300.0"}, ["argument t: float64 300.0 -> 300.0"]),
        ({"argument y": "11 ndarray float64 (3,)"}, ["argument y: ndarray float64 (3,) with another content"]),
        ({"argument z": "11 4"}, ["argument z is new: 4"]),
        ({"argument x": None}, ["argument x is not there any more; it was 2"]),
        ({"argument x": ""}, ["argument x is missing"]),
        ({"code of lab.h.help": "11"}, ["code of lab.h.help changed"]),
        ({"code of lab.h.more": "11"}, ["code of lab.h.more is new"]),
        ({"code of lab.h.help": None}, ["code of lab.h.help is not there any more"]),
        ({"code of lab.relax": "11"}, ["code of lab.relax changed"]),
        ({"class lab.Atom": "11"}, ["class lab.Atom changed"]),
        ({"global lab.SCALE": "11"}, ["global lab.SCALE changed"]),
        ({"global lab.OTHER": "11 3"}, ["global lab.OTHER: 2 -> 3"]),
        ({"package numpy": "11 2.1"}, ["package numpy: 2.0 -> 2.1"]),
        ({"package numpy": "11 2.0"}, ["package numpy has another version"]),
        ({"package scipy": "11"}, ["package scipy is new"]),
        ({"python": "3.12"}, ["Python: 3.11 -> 3.12"]),
        ({"version of lab.relax": "11"}, ["version of lab.relax is new"]),
        ({"ranks": "4"}, ["ranks: 1 -> 4"]),
        ({"env": "11"}, ["env is new"]),
        ({"initializer": "11"}, ["the initializer of the executor is new"]),
        ({"something else": "11"}, ["something else is new"]),
        (
            {"argument x": "11 3", "code of lab.h.help": "11", "python": "3.12"},
            ["code of lab.h.help changed", "argument x: 2 -> 3", "Python: 3.11 -> 3.12"],
        ),
    ],
)
def test_differences(changes, expected):
    now = {label: value for label, value in (BASE | changes).items() if value is not None}
    assert lines(BASE, now) == expected


def test_an_initializer_cannot_be_seen_from_here():
    assert lines(BASE | {"initializer": "11"}, BASE) == ["the initializer of the executor, which is not known here"]


def test_nothing_is_noted():
    assert lines({}, BASE) == ["what went into its key is not noted"]


def test_code_that_has_moved_to_another_module():
    then, now = {"code of study.help": "aa", "code of study.relax": "11"}, {"code of help": "aa", "code of relax": "22"}
    old = CallParts("then", then, lambda: {"code of study.relax": "def relax():\n    return 1\n"})
    new = CallParts("now", now, lambda: {"code of relax": "def relax():\n    return 2\n"})
    (found,) = differences(old, new)
    assert found.words == "code of relax changed"
    assert found.diff.splitlines()[:2] == ["--- then", "+++ now"]
    assert found.diff.splitlines()[-2:] == ["-    return 1", "+    return 2"]


# ------------------------------------------------------------------ calls


def test_a_call_that_is_cached(cache):
    key = store(cache, relax, 2)
    found = cache.explain(relax, x=2, force=0.1)
    assert (found.hit, found.key, found.function, found.differences) == (True, key, "relax", [])
    assert found.nearest == cache[key]
    assert (
        str(found) == f"'relax' is cached since 2023-11-14 {cache[key].created:%H:%M:%S}, when it took 2 s; key {key}"
    )


def test_a_call_that_is_not(cache):
    key = store(cache, relax, 2)
    found = cache.explain(relax, 3, force=0.2)
    assert not found.hit
    assert found.nearest.key == key
    assert found.differences == ["argument force: 0.1 -> 0.2", "argument x: 2 -> 3"]
    text = str(found)
    assert text.startswith(
        f"'relax' is not in the cache; its key would be {found.key}\nthe nearest entry is {key} of 2023"
    )
    assert text.endswith("  argument force: 0.1 -> 0.2\n  argument x: 2 -> 3")


def test_a_helper_that_changed(cache, monkeypatch):
    store(cache, relax, 2)
    monkeypatch.setattr(f"{__name__}.helper", lambda x: x)
    differing = cache.explain(relax, 2).differences
    assert any(line.startswith("code of ") and line.endswith("helper is not there any more") for line in differing)


def test_a_global_that_changed(cache, monkeypatch):
    store(cache, relax, 2)
    monkeypatch.setattr(f"{__name__}.SCALE", 3)
    assert cache.explain(relax, 2).differences == [f"global {__name__}.SCALE: 2 -> 3"]


def test_a_function_that_was_never_cached(cache):
    store(cache, other, 2)
    found = cache.explain(relax, 2)
    assert (found.hit, found.nearest, found.differences) == (False, None, [])
    assert "'relax' is not in the cache, with any arguments" in str(found)


def test_an_argument_is_missing(cache):
    assert str(cache.explain(relax)) == "'relax' cannot be called so: argument x is missing"
    assert str(cache.explain(divmod)).startswith("'divmod' cannot be called so: arguments x, y are missing")
    store(cache, relax, 2)
    found = cache.explain(relax, force=0.2)
    assert (found.key, found.missing) == ("", ["x"])
    assert found.differences == ["argument force: 0.1 -> 0.2", "argument x is missing"]
    assert cache.explain(relax).differences == ["argument x is missing"]


def test_an_argument_that_init_function_gave_is_not_missing(cache):
    key = call_key(relax, (), {"force": 0.2})
    store_ingredients(cache, "0" * 40, "relax", {**key.ingredients(), "init_function": "11"})
    assert cache.explain(relax, force=0.2).differences == ["the init_function of the executor, which is not known here"]


def test_the_nearest_has_most_in_common(cache):
    store(cache, relax, 3, 0.2, moment=9)
    wanted = store(cache, relax, 2, moment=1)
    store(cache, relax, 3, moment=8)
    assert cache.explain(relax, 2, 0.2).nearest.key in (wanted, call_key(relax, (3, 0.2), {}).hex)
    assert cache.explain(relax, 2, 0.3).nearest.key == wanted


def test_of_several_the_newest(cache):
    store(cache, relax, 3, moment=1)
    wanted = store(cache, relax, 4, moment=3)
    store(cache, relax, 5, moment=2)
    assert cache.explain(relax, 2).nearest.key == wanted


def test_one_of_which_nothing_is_known_comes_last(cache):
    store_ingredients(cache, "my-own", "relax", {}, 5)
    assert cache.explain(relax, 2).differences == ["what went into its key is not noted"]
    wanted = store(cache, relax, 3, 0.2)
    assert cache.explain(relax, 2).nearest.key == wanted


def test_what_no_key_can_follow(cache):
    found = cache.explain(slow, 1)
    assert "time.time" in found.unfollowed
    assert "what no key can follow: time.time; if the result depends on it, pass it in" in str(found)


def test_a_failure(cache):
    call = call_key(relax, (2,), {})
    store_ingredients(cache, call.hex, "relax", {}, state="failed")
    found = cache.explain(relax, 2)
    assert (found.hit, found.nearest.state) == (False, "failed")
    assert "so it would be run again" in str(found)
    kept = Cache(cache.directory, failures=True).explain(relax, 2)
    assert kept.hit
    assert "which is kept" in str(kept)


def test_a_cache_that_is_refreshed(cache):
    store(cache, relax, 2)
    found = Cache(cache.directory, mode="refresh").explain(relax, 2)
    assert not found.hit
    assert 'it would be run again, as the cache is opened with mode="refresh"' in str(found)


def test_a_call_that_is_running(cache):
    claim = cache._claims.take(cache.explain(relax, 2).key, "relax")
    found = cache.explain(relax, 2)
    assert not found.hit
    assert f"process {os.getpid()}" in found.running
    assert "is being run by process" in str(found)
    claim.release()


def test_resources_that_change_the_key(cache):
    key = store(cache, relax, 2)
    assert cache.explain(relax, 2, resource_dict={"memory": 3}).key == key
    assert cache.explain(relax, 2, resource_dict={"ranks": 2}).differences == ["ranks: 1 -> 2"]
    assert cache.explain(relax, 2, resource_dict={"env": {"A": "1"}}).key != key
    assert cache.explain(relax, 2, resource_dict={"cache_key": "mine"}).key == "mine"
    with pytest.raises(ResourceError, match="memroy"):
        cache.explain(relax, 2, resource_dict={"memroy": 3})


def test_what_was_asked_for_as_env_is_shown(cache):
    parts = call_key(relax, (2,), {}).ingredients() | {"env": "11"}
    store_ingredients(cache, "0" * 40, "relax", parts, resources={"env": "{'A': '1'}"})
    assert cache.explain(relax, 2, resource_dict={"env": {"A": "2"}}).differences == ["env: {'A': '1'} -> {'A': '2'}"]
    assert cache.explain(relax, 2).differences == ["env: {'A': '1'} -> none"]


def test_the_same_arguments_come_first(cache, monkeypatch):
    old = store(cache, relax, 2, moment=1)
    monkeypatch.setattr(f"{__name__}.SCALE", 3)
    store(cache, relax, 3, moment=2)
    found = cache.explain(relax, 2)
    assert (found.nearest.key, found.differences) == (old, [f"global {__name__}.SCALE: 2 -> 3"])


def test_values_of_a_stored_call_count_only_if_they_are_those_of_its_key(cache):
    call = call_key(relax, ([1, 2],), {})
    facts = {"ingredients": call.ingredients()}
    for key, args in (("0" * 40, ([1, 2],)), ("1" * 40, ([1, 5],))):
        record = Record(key, "relax", "finished", "", 1, args, {}, facts=facts, created=1.7e9)
        cache._directory.publish(key, lambda descriptor, record=record: write(descriptor, record))
    os.utime(cache._directory.record("0" * 40), (1.8e9, 1.8e9))
    assert cache.explain(relax, [1, 3]).differences == ["argument x[1]: 2 -> 3"]
    os.utime(cache._directory.record("1" * 40), (1.9e9, 1.9e9))
    assert cache.explain(relax, [1, 3]).differences == ["argument x: a list with another content"]


def test_another_directory(cache, tmp_path):
    store(cache, relax, 2)
    assert not cache.explain(relax, 2, resource_dict={"cache_directory": tmp_path / "more"}).hit


def test_futures_among_the_arguments(cache):
    pending, done = Future(), Future()
    done.set_result(2)
    key = store(cache, relax, 2)
    assert cache.explain(relax, done).key == key
    with pytest.raises(CacheError, match="a future that is not done"):
        cache.explain(relax, pending)


def test_what_has_no_key(cache):
    with pytest.raises(CacheError, match="'x'"), open(os.devnull) as file:
        cache.explain(relax, file)


def test_nothing_is_changed_by_looking(cache, tmp_path):
    store(cache, relax, 2)
    before = sorted(os.walk(cache.path))
    Cache(cache.directory, mode="read-only").explain(relax, 3)
    assert sorted(os.walk(cache.path)) == before
