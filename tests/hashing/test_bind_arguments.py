"""Arguments are for parameters; what cannot be keyed is said; what the user says about keys counts."""

from __future__ import annotations

import functools
import inspect
import socket
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callyard.dependencies.map_chunks import run_chunk
from callyard.errors import CacheError
from callyard.hashing.bind_arguments import bind
from callyard.hashing.call_key import NOWHERE, KeyContext, call_key
from callyard.hashing.decorator import keyed
from callyard.hashing.digest import PendingFuture


def key(function: Callable[..., Any], *args: Any, **kwargs: Any) -> str:
    return call_key(function, args, kwargs).hex


# -- binding -----------------------------------------------------------------------------------------------


def plain(a: Any, b: Any = 2, *, c: Any = 3) -> None: ...
def positional(a: Any, b: Any = 2, /, c: Any = 3) -> None: ...
def packed(a: Any = 1, *rest: Any, c: Any = 3, **more: Any) -> None: ...
def nothing() -> None: ...
def keyword_only(*, a: Any, b: Any = 1) -> None: ...


class Methods:
    def method(self, a: Any, b: Any = 2) -> None: ...

    @classmethod
    def of_class(cls, a: Any, b: Any = 2) -> None: ...

    @staticmethod
    def static(a: Any, b: Any = 2) -> None: ...

    def __call__(self, a: Any, b: Any = 2) -> None: ...


@functools.wraps(plain)
def wrapper(*args: Any, **kwargs: Any) -> None: ...


FUNCTIONS = [
    *(plain, positional, packed, nothing, keyword_only, wrapper, Methods().method, Methods.of_class, Methods.static),
    *(Methods(), functools.partial(plain, 1), functools.lru_cache(plain), lambda a, b=2: None),
]


@given(
    st.sampled_from(FUNCTIONS),
    st.lists(st.integers(), max_size=4),
    st.dictionaries(st.sampled_from("abcd"), st.integers()),
)
def test_bound_as_inspect_does(function: Any, args: list[int], kwargs: dict[str, int]) -> None:
    bound, left = bind(function, tuple(args), kwargs)
    try:
        expected = inspect.signature(function).bind(*args, **kwargs)
    except TypeError:
        assert left
        return
    assert left == (len(expected.arguments) < len(expected.signature.parameters))
    if function is not wrapper:  # it could tell, and have defaults of its own
        expected.apply_defaults()
    assert bound == list(expected.arguments.items())


def test_equal_calls_are_spelled_in_many_ways() -> None:
    assert len({key(plain, 1), key(plain, 1, 2), key(plain, a=1), key(plain, b=2, a=1), key(plain, c=3, a=1, b=2)}) == 1
    assert len({key(packed), key(packed, 1), key(packed, a=1), key(packed, c=3)}) == 1
    assert key(packed, x=1, y=2) == key(packed, y=2, x=1)
    assert key(functools.partial(plain, 1), 5) == key(functools.partial(plain, 1), b=5)
    assert key(Methods().method, 1) == key(Methods().method, a=1, b=2)


def test_different_calls() -> None:
    found = [
        *(key(plain, 1), key(plain, 2), key(plain, 1, 3), key(plain, 1.0), key(plain, True), key(plain, "1")),
        *(
            key(plain, [1]),
            key(plain, (1,)),
            key(plain, 2, 1),
            key(positional, 1),
            key(packed, 1, 2),
            key(packed, 1, c=2),
        ),
        *(key(packed, 1, (2,)), key(packed, c=1), key(packed, **{"\ud800": 1}), key(wrapper, 1), key(nothing)),
        *(key(functools.partial(plain, 1)), key(functools.partial(plain, b=1), 1), key(Methods().method, 1)),
        *(key(Methods.of_class, 1), key(Methods.static, 1), key(Methods(), 1), key(keyword_only, a=1)),
        *(key(dict, [("a", 1)]), key(dict, **{"0": [("a", 1)]}), key(dict, positional=1), key(dict), key(max, 1, 2)),
    ]
    assert len(set(found)) == len(found)


def test_what_does_not_fit_is_the_calls_to_say() -> None:
    assert key(plain) == key(plain) != key(nothing, 1)


# -- surroundings ------------------------------------------------------------------------------------------


def test_surroundings_count() -> None:
    places = [NOWHERE, KeyContext(initializer=b"i"), KeyContext(ranks=2), KeyContext(env=b"e")]
    places.append(KeyContext(init_function=b"f"))
    found = [call_key(plain, (1,), {}, around).hex for around in places]
    assert len(set(found)) == len(found)
    assert call_key(plain, (1,), {}, KeyContext()).hex == found[0]


def test_an_init_function_counts_where_a_parameter_was_left_for_it() -> None:
    around = KeyContext(init_function=b"f")
    assert call_key(plain, (1,), {"b": 2, "c": 3}, around).hex == call_key(plain, (1,), {"b": 2, "c": 3}).hex
    assert call_key(plain, (1,), {}, around).hex != call_key(plain, (1,), {}).hex


def test_what_went_into_a_key_has_names() -> None:
    call = call_key(plain, (1,), {"b": "x" * 200})
    found = call.ingredients()
    assert found["argument a"].endswith(" 1")
    assert len(found["argument b"]) < 120
    assert call.names == ["a", "b", "c"]
    assert any(label.startswith("code of") and label.endswith("plain") for label in found)
    assert [place[:2] for place in call.references] in ([], [(plain.__module__, "plain")])


@pytest.mark.needs("numpy")
def test_numbers_and_arrays_of_numpy_are_described() -> None:
    import numpy as np

    found = call_key(plain, (np.float64(-0.5),), {"b": np.zeros((2, 3)), "c": np.str_("x" * 200)}).ingredients()
    assert found["argument a"].endswith(" float64 -0.5")
    assert found["argument b"].endswith(" ndarray float64 (2, 3)")
    assert found["argument c"].partition(" ")[2] == f"str_ {'x' * 72}..."


# -- futures -----------------------------------------------------------------------------------------------


def test_a_future_counts_as_its_result() -> None:
    from concurrent.futures import Future

    future: Future[Any] = Future()
    with pytest.raises(PendingFuture):
        key(plain, {"deep": [future]})
    future.set_result([1, 2])
    assert key(plain, {"deep": [future]}) == key(plain, {"deep": [[1, 2]]})


pending: Any = None


def with_a_future() -> Any:
    return pending


def test_a_future_in_a_global(monkeypatch: pytest.MonkeyPatch) -> None:
    from concurrent.futures import Future

    future: Future[Any] = Future()
    monkeypatch.setitem(globals(), "pending", future)
    with pytest.warns(UserWarning, match="pending holds: it is a Future"):
        first = key(with_a_future)
    future.set_result(1)
    assert key(with_a_future) != first


# -- what cannot be keyed ----------------------------------------------------------------------------------


class Deep:
    def __init__(self, value: Any) -> None:
        self.value = value


def test_an_argument_without_a_meaning_is_named(tmp_path: Path) -> None:
    with open(tmp_path / "file", "w") as file, socket.socket() as connection:
        for value in (file, threading.Lock(), (x for x in ()), connection):
            expected = rf"argument 'b' of 'plain' cannot be cached: b\['k'\]\[1\]\.value is a {type(value).__name__}"
            with pytest.raises(CacheError, match=expected):
                key(plain, 1, {"k": [0, Deep(value)]})
            with pytest.raises(CacheError, match="the function 'partial' cannot be cached"):
                key(functools.partial(plain, value), 1)


def test_an_argument_that_is_nested_too_deeply() -> None:
    value: Any = []
    for _ in range(5000):
        value = [value]
    with pytest.raises(CacheError, match="argument 'a' of 'plain' is nested too deeply"):
        key(plain, value)


lock = threading.Lock()


def with_a_lock() -> Any:
    return lock


def test_a_global_without_a_meaning_is_warned_of_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("callyard.hashing.call_key._warned", set())
    with pytest.warns(UserWarning, match="with_a_lock.*lock holds: it is a lock"):
        first = key(with_a_lock)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert key(with_a_lock) == first
        monkeypatch.setitem(globals(), "lock", threading.Lock())
        assert key(with_a_lock) == first
    monkeypatch.setitem(globals(), "lock", threading.RLock())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert key(with_a_lock) != first


# -- keyed -------------------------------------------------------------------------------------------------


def test_a_version_instead_of_the_code() -> None:
    def made(version: Any, number: int) -> Any:
        @keyed(version=version)
        def function(x: Any) -> Any:
            return x + number

        return function

    assert key(made(1, 1), 1) == key(made(1, 2), 1)
    found = {key(made(version, 1), 1) for version in (1, 2, "1", 1.0, (1, 2), None)}
    assert len(found) == 6
    assert key(made(None, 1), 1) != key(made(None, 2), 1)


def test_a_version_of_another_function() -> None:
    @keyed(version=1)
    def one(x: Any) -> None: ...

    @keyed(version=1)
    def two(x: Any) -> None: ...

    assert key(one, 1) != key(two, 1)


def test_a_version_holds_for_what_is_decorated_not_for_what_decorates() -> None:
    def made(number: int, other: int) -> Any:
        def deco(function: Any) -> Any:
            @functools.wraps(function)
            def wrapper(x: Any) -> Any:
                return function(x) + number

            return wrapper

        @deco
        @keyed(version=1, ignore=["x"])
        def function(x: Any) -> Any:
            return other

        return function

    assert key(made(1, 1), 1) == key(made(1, 2), 2)
    assert key(made(1, 1), 1) != key(made(2, 1), 1)
    assert key(keyed(version=2)(made(1, 1)), 1) == key(keyed(version=2)(made(2, 1)), 1)


def test_a_version_of_a_helper_a_class_and_a_cached_function() -> None:
    def made(version: int, number: int) -> list[Any]:
        @keyed(version=version)
        def helper(x: Any) -> Any:
            return number

        @keyed(version=version)
        class Thing:
            x = number

        @keyed(version=version)
        @functools.lru_cache
        def cached(x: Any) -> Any:
            return number

        return [lambda x: helper(x), lambda x: Thing, cached, lambda x: cached]

    for same, other, changed in zip(made(1, 1), made(1, 2), made(2, 1), strict=True):
        assert key(same, 1) == key(other, 1) != key(changed, 1)


def test_a_version_changed_while_it_runs() -> None:
    @keyed(version=1)
    def helper(x: Any) -> Any:
        return x

    def function(x: Any) -> Any:
        return helper(x)

    first = key(function, 1)
    keyed(version=2)(helper)
    assert key(function, 1) != first
    keyed(version=1)(helper)
    assert key(function, 1) == first
    del helper.__callyard_keyed__  # type: ignore[attr-defined]
    assert key(function, 1) != first


def test_parameters_left_out() -> None:
    @keyed(ignore=["verbose"])
    def function(x: Any, verbose: Any = False) -> Any:
        return x

    assert key(function, 1) == key(function, 1, verbose=True) == key(function, 1, threading.Lock())
    assert key(function, 1) != key(function, 2)
    assert key(keyed(ignore="x")(lambda x: 1), 1) == key(keyed(ignore="x")(lambda x: 1), 2)


def test_what_keyed_refuses() -> None:
    with pytest.raises(CacheError, match="'y' is no parameter of"):
        keyed(ignore=["y"])(plain)
    with pytest.raises(CacheError, match="a version is a string or a number"):
        keyed(version=object())
    with pytest.raises(CacheError, match="cannot be marked"):
        keyed(version=1)(len)


@keyed(ignore=["verbose"])
def fits(x: Any, verbose: Any = False) -> None: ...


class Fits:
    @keyed(ignore=["verbose"])
    def __call__(self, x: Any, verbose: Any = False) -> None: ...

    @keyed(ignore=["verbose"])
    @staticmethod
    def static(x: Any, verbose: Any = False) -> None: ...

    @keyed(ignore=["verbose"])
    @classmethod
    def of_class(cls, x: Any, verbose: Any = False) -> None: ...


@pytest.mark.parametrize("function", [Fits(), Fits.static, Fits.of_class, Fits().of_class, functools.partial(fits)])
def test_parameters_left_out_of_methods_and_partials(function: Any) -> None:
    assert key(function, 1) == key(function, 1, True) == key(function, 1, verbose=2) != key(function, 2)


def test_parameters_left_out_that_a_partial_gives() -> None:
    def partials(verbose: bool) -> list[str]:
        found = [functools.partial(fits, verbose=verbose), functools.partial(fits, x=1, verbose=verbose)]
        return [key(found[0], 1), key(found[1]), key(functools.partial(fits, 1, verbose)), key(plain, found)]

    assert partials(True) == partials(False)
    assert key(functools.partial(fits, 1)) != key(functools.partial(fits, 2))


@pytest.mark.parametrize("wrong", [functools.partial(fits, 1, 2, 3), functools.partial(fits, unknown=1)])
def test_a_wrong_partial_has_a_key_so_that_the_call_can_fail(wrong: Any) -> None:
    assert key(wrong, 1) == key(wrong, 1) != key(functools.partial(fits, 1))


def test_parameters_left_out_in_the_chunks_of_map() -> None:
    one, same, other = (key(run_chunk, fits, chunk) for chunk in (((1, True),), ((1,),), ((2, True),)))
    assert one == same != other
