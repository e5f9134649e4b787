"""What a value remembers of having been used does not count: ordinary use leaves its key as it was."""

from __future__ import annotations

import collections
import copy
import dataclasses
import enum
import fractions
import functools
import ipaddress
import pickle
import re
import subprocess
import sys
import typing
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import callyard
from callyard.hashing.call_key import call_key
from callyard.hashing.values import value_token

Make = Callable[[], Any]
Use = Callable[[Any], Any]


class Unit:
    def __init__(self, name: str = "m") -> None:
        self.name = name

    @functools.cached_property
    def square(self) -> str:
        return self.name * 2

    @functools.lru_cache  # noqa: B019
    def remembered(self) -> str:
        return self.name


@dataclasses.dataclass(frozen=True)
class Frozen:
    x: Annotated[int, Unit("m")] = 1
    y: "typing.Optional[Frozen]" = None  # noqa: UP037, UP045

    @functools.cached_property
    def twice(self) -> int:
        return self.x * 2


class Numbers(list):  # type: ignore[type-arg]
    @functools.cached_property
    def total(self) -> int:
        return sum(self)


class Flags(enum.Flag):
    A = 1
    B = 2
    C = 4


class Dispatching:
    @functools.singledispatchmethod
    def shown(self, x: Any) -> str:
        return "any"

    @shown.register
    def _(self, x: int) -> str:
        return "int"


def _dispatch() -> Any:
    @functools.singledispatch
    def shown(x: Any) -> str:
        return "any"

    shown.register(int, lambda x: "int")
    shown.register(collections.abc.Sequence, lambda x: "several")
    return shown


def _of(library: str, function: Callable[[Any], Any]) -> Make:
    def make() -> Any:
        return function(pytest.importorskip(library))

    return make


def _sparse(kind: str) -> Make:
    return _of("scipy.sparse", lambda sp: getattr(sp, kind)([[0.0, 1.0], [2.0, 0.0]]))


def _random(function: Callable[[Any, Any], Any]) -> Make:
    def make() -> Any:
        np = pytest.importorskip("numpy")
        return function(pytest.importorskip("scipy"), np.random.default_rng(1).random((8, 2)))

    return make


MADE: dict[str, Make] = {
    "cached property": Unit,
    "frozen dataclass": Frozen,
    "list with a cached property": lambda: Numbers([1, 2]),
    "flag": lambda: Flags.A,
    "dispatch": _dispatch,
    "dispatching method": Dispatching,
    "network": lambda: ipaddress.ip_network("10.0.0.0/29"),
    "fraction": lambda: fractions.Fraction(1, 3),
    "pattern": lambda: re.compile("a+"),
    "limits": _of("numpy", lambda np: np.finfo(float)),
    **{f"scipy {f}_{kind}": _sparse(f"{f}_{kind}") for f in ("csr", "csc", "coo", "bsr", "dia", "lil", "dok")
       for kind in ("matrix", "array")},
    "scipy Delaunay": _random(lambda scipy, points: __import__("scipy.spatial").spatial.Delaunay(points)),
    "pandas integers": _of("pandas", lambda pd: pd.array([1, 2, None])),
    "pandas booleans": _of("pandas", lambda pd: pd.array([True, None])),
    "pandas texts": _of("pandas", lambda pd: pd.array(["a", None], dtype="string")),
    "pandas categories": _of("pandas", lambda pd: pd.Categorical(["a", "b", "a"])),
    "pandas times": _of("pandas", lambda pd: pd.date_range("2020", periods=3, tz="UTC").array),
    "pandas durations": _of("pandas", lambda pd: pd.to_timedelta([1, 2], unit="s").array),
    "pandas periods": _of("pandas", lambda pd: pd.period_range("2020", periods=3, freq="M").array),
    "pandas intervals": _of("pandas", lambda pd: pd.interval_range(0, 3).array),
    "pandas sparse": _of("pandas", lambda pd: pd.arrays.SparseArray([0, 0, 1])),
    "pandas dtype": _of("pandas", lambda pd: pd.Int64Dtype()),
    "pandas offset": _of("pandas", lambda pd: pd.offsets.BusinessDay(2)),
    "pandas index": _of("pandas", lambda pd: pd.Index([3, 1, 2])),
    "pandas groups": _of("pandas", lambda pd: pd.DataFrame({"a": [1, 2], "b": [3, 4]}).groupby("a")),
    "pandas frame": _of("pandas", lambda pd: pd.DataFrame({"a": [1, 2], "b": ["x", "y"]})),
    "xarray variable": _of("xarray", lambda xr: xr.Variable("x", [1, 2, 3])),
    "xarray array": _of("xarray", lambda xr: xr.DataArray([[1, 2]], {"x": [1]}, ("x", "y"), "n", {"u": "m"})),
    "xarray dataset": _of("xarray", lambda xr: xr.Dataset({"a": ("x", [1, 2])}, {"x": [1, 2]})),
    "networkx graph": _of("networkx", lambda nx: nx.path_graph(4)),
    "networkx digraph": _of("networkx", lambda nx: nx.DiGraph([(0, 1), (1, 2)])),
    "networkx multigraph": _of("networkx", lambda nx: nx.MultiGraph([(0, 1), (0, 1)])),
    "networkx view": _of("networkx", lambda nx: nx.path_graph(4).subgraph([1, 2])),
}  # fmt: skip
USES: dict[str, Use] = {
    **{str(use.__name__): use for use in (repr, str, hash, len, list, bool, dir, copy.copy, pickle.dumps)},
    "deep copy": copy.deepcopy,
    "equal": lambda v: v == v,
    "sum": lambda v: v.sum(),
    "called": lambda v: [v(1), v("a"), v([1])],
    "method": lambda v: [v.shown(1), v.remembered()],
    "item": lambda v: v[0],
    "combined": lambda v: [type(v)(3), ~v, v | Flags.C],
    "product": lambda v: v @ v,
    "hints": lambda v: typing.get_type_hints(type(v), include_extras=True),
    "weak reference": weakref.ref,
    **{
        name: lambda v, name=name: getattr(v, name)()
        for name in ("max", "mean", "unique", "isna", "toarray", "tocsr", "diagonal", "copy", "load", "to_pandas")
    },
    "attributes": lambda v: [_asked(v, name) for name in dir(v) if not name.startswith("__")],
}  # fmt: skip


def _asked(value: Any, name: str) -> Any:
    try:
        return getattr(value, name)
    except Exception:
        return None


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", MADE)
def test_ordinary_use_does_not_count(case: str) -> None:
    value = MADE[case]()
    before = value_token(value)
    assert value_token(MADE[case]()) == before
    for name, use in USES.items():
        try:
            use(value)
        except Exception:  # not everything can be asked of everything
            continue
        assert value_token(value) == before, f"after {name}"


@pytest.mark.filterwarnings("ignore")
@settings(max_examples=20)
@given(st.sampled_from(sorted(set(MADE) - {"dispatch", "limits"})), st.lists(st.sampled_from(sorted(USES)), max_size=8))
def test_a_copy_of_what_was_used_means_the_same(case: str, uses: list[str]) -> None:
    try:
        value = MADE[case]()
    except pytest.skip.Exception:
        return
    for name in uses:
        _asked_use(value, USES[name])
    assert value_token(pickle.loads(pickle.dumps(value))) == value_token(MADE[case]())


def _asked_use(value: Any, use: Use) -> None:
    try:
        use(value)
    except Exception:
        pass


# -- what does count ---------------------------------------------------------------------------------------

DIFFERENT: dict[str, tuple[Make, Make]] = {
    "state beside a cached property": (Unit, lambda: Unit("s")),
    "csr": (_sparse("csr_matrix"), _of("scipy.sparse", lambda sp: sp.csr_matrix([[0.0, 1.0], [3.0, 0.0]]))),
    "dok": (_sparse("dok_matrix"), _of("scipy.sparse", lambda sp: sp.dok_matrix([[0.0, 1.0], [3.0, 0.0]]))),
    "format": (_sparse("csr_matrix"), _sparse("csc_matrix")),
    "matrix or array": (_sparse("csr_matrix"), _sparse("csr_array")),
    "missing": (_of("pandas", lambda pd: pd.array([1, None])), _of("pandas", lambda pd: pd.array([1, 0]))),
    "type": (MADE["pandas integers"], _of("pandas", lambda pd: pd.array([1, 2, None], dtype="Int32"))),
    "data": (MADE["xarray variable"], _of("xarray", lambda xr: xr.Variable("x", [1, 2, 4]))),
    "dimension": (MADE["xarray variable"], _of("xarray", lambda xr: xr.Variable("y", [1, 2, 3]))),
    "attribute": (MADE["xarray variable"], _of("xarray", lambda xr: xr.Variable("x", [1, 2, 3], {"a": 1}))),
    "coordinate": (
        MADE["xarray dataset"],
        _of("xarray", lambda xr: xr.Dataset({"a": ("x", [1, 2])}, {"x": [1, 3]})),
    ),
    "what is a coordinate": (
        MADE["xarray dataset"],
        _of("xarray", lambda xr: xr.Dataset({"a": ("x", [1, 2])}, {"x": [1, 2]}).set_coords("a")),
    ),
    "without an index": (MADE["xarray dataset"], lambda: MADE["xarray dataset"]().drop_indexes("x")),
    "name": (MADE["xarray array"], lambda: MADE["xarray array"]().rename("other")),
    "edge": (MADE["networkx graph"], _of("networkx", lambda nx: nx.path_graph(5))),
    "attribute of an edge": (MADE["networkx graph"], _of("networkx", lambda nx: _weighted(nx.path_graph(4)))),
}


def _weighted(graph: Any) -> Any:
    graph[0][1]["weight"] = 2
    return graph


@pytest.mark.parametrize("case", DIFFERENT)
def test_content_counts(case: str) -> None:
    one, other = DIFFERENT[case]
    assert value_token(one()) != value_token(other())


def test_what_a_subclass_of_xarray_has() -> None:
    xr = pytest.importorskip("xarray")
    mine = type("Mine", (xr.Dataset,), {"__slots__": ("more",), "__module__": "__main__"})
    found = []
    for more in (1, 1, 2):
        value = mine({"a": 1})
        value.more = more
        found.append(value_token(value))
    assert found[0] == found[1] != found[2]


@pytest.mark.needs("scipy")
def test_a_distribution_counts_without_the_global_generator() -> None:
    import numpy as np
    from scipy import stats

    made = [lambda: stats.norm, lambda: stats.norm(0, 1), lambda: stats.multivariate_normal([0, 0])]
    for make in made:
        before = value_token(make())
        np.random.random()  # noqa: NPY002
        assert value_token(make()) == before
    assert value_token(stats.norm) != value_token(stats.expon)
    assert value_token(stats.norm(0, 1)) != value_token(stats.norm(0, 2))


def test_weak_tables_count_by_what_is_in_them() -> None:
    units = [Unit(name) for name in "abc"]
    for kind in (weakref.WeakSet, lambda them: weakref.WeakKeyDictionary((one, 1) for one in them)):
        assert value_token(kind(units)) == value_token(kind(units[::-1])) != value_token(kind(units[:2]))


def test_what_was_set_for_a_function_that_is_cached() -> None:
    def make(rate: int) -> Any:
        @functools.lru_cache
        def cached(x: int) -> int:
            return x

        cached.rate = rate  # type: ignore[attr-defined]
        return cached

    assert value_token(make(1)) == value_token(make(1)) != value_token(make(2))


# -- annotations -------------------------------------------------------------------------------------------


def check(value: Any) -> Any:
    return value


def check_more(value: Any) -> Any:
    return [value]


def _annotated(annotation: Any) -> Any:
    cls = type("Held", (), {"__annotations__": {"x": annotation}, "__module__": "__main__"})
    return dataclasses.dataclass(cls)


ANNOTATIONS: list[Any] = [
    *(Annotated[int, Unit("m")], Annotated[int, Unit("s")], Annotated[int, check], Annotated[int, check_more]),
    *(Annotated[float, check], list[Annotated[int, check]], list[Annotated[int, check_more]], list[int], int),
    *(int | None, typing.Literal["a"], typing.Callable[[int], str], "int", typing.ForwardRef("int")),
    *(Annotated[int, lambda v: v], Annotated[int, lambda v: -v], Annotated["int", check]),
]  # fmt: skip


def test_objects_in_annotations() -> None:
    found = [value_token(_annotated(annotation)) for annotation in ANNOTATIONS]
    assert len(set(found)) == len(found)
    assert value_token(_annotated(Annotated[int, Unit("m")])) == found[0]
    resolved = _annotated(typing.List["Unit"])  # noqa: UP006
    before = value_token(resolved)
    typing.get_type_hints(resolved, globals())
    assert value_token(resolved) == before


PYDANTIC = """
from typing import Annotated
import pydantic
class Model(pydantic.BaseModel):
    x: Annotated[int, pydantic.Field(gt=0), pydantic.AfterValidator(lambda v: v)] = 1
    @pydantic.field_validator("x", mode="after")
    @classmethod
    def checked(cls, v): return v
@pydantic.validate_call
def called(a: Annotated[int, pydantic.Field(gt=1)]) -> int: return a
adapter = pydantic.TypeAdapter(Annotated[int, pydantic.Field(gt=2)])
def f(): return Model(), called(3), adapter
"""
EDITS = {"gt=0": "gt=-1", "lambda v: v)": "lambda v: -v)", '"after"': '"before"', "gt=1": "gt=-2", "gt=2": "gt=3"}


@pytest.fixture
def run(tmp_path: Path) -> Callable[[str, int], str]:
    """Tells the key of `f()` of a script in another process."""

    def run(text: str, seed: int) -> str:
        script = tmp_path / "script.py"
        ask = "from callyard.hashing.call_key import call_key\nprint(call_key(f, (), {}).hex)\n"
        script.write_text(text + ask)
        environ = {"PYTHONHASHSEED": str(seed), "PYTHONPATH": str(Path(callyard.__file__).parent.parent)}
        done = subprocess.run([sys.executable, script], capture_output=True, text=True, env=environ, check=True)
        return done.stdout

    return run


@pytest.mark.needs("pydantic")
def test_validators(run: Callable[[str, int], str]) -> None:
    import pydantic  # noqa: F401

    first = run(PYDANTIC, 1)
    assert run(PYDANTIC, 2) == first
    keys = {first}
    for old, new in EDITS.items():
        assert old in PYDANTIC
        keys.add(_key_of(PYDANTIC.replace(old, new)))
    assert len(keys) == len(EDITS) + 1


def _key_of(text: str) -> str:
    space: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(text, "<string>", "exec", dont_inherit=True), space)
    return call_key(space["f"], (), {}).hex


@pytest.mark.needs("pydantic")
def test_a_model_that_was_used() -> None:
    space: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(PYDANTIC, "<string>", "exec", dont_inherit=True), space)
    before, model = call_key(space["f"], (), {}).hex, space["Model"](x=2)
    model.x = 3
    model.model_dump()
    repr(model)
    space["Model"].model_json_schema()
    assert call_key(space["f"], (), {}).hex == before


ADDRESSES = """
import dataclasses, functools, typing, weakref
from typing import Annotated
class Unit:
    def __init__(self, name): self.name = name
@dataclasses.dataclass
class Held:
    x: Annotated[float, Unit("m"), lambda v: v] = 1.0
    y: Annotated[list[Annotated[int, Unit("s")]], len] = dataclasses.field(default_factory=list)
class Named(typing.NamedTuple):
    x: Annotated[int, Unit("m")] = 1
@functools.singledispatch
def shown(x): return x
shown.register(int)(lambda x: x)
shown(1), shown("a")
units = [Unit(name) for name in "abcdef"]
FUNCTIONS = {lambda: 1, lambda: 2, lambda: 3, lambda: 4, functools.partial(lambda: 5), functools.partial(lambda: 6)}
MADE = {(lambda n: lambda: n)(n) for n in range(6)}
WEAK = weakref.WeakSet(units)
TABLE = weakref.WeakKeyDictionary((unit, lambda: unit) for unit in units)
HOLDERS = {(unit, lambda: 1) for unit in units}
def f(): return Held(), Named(), shown, FUNCTIONS, MADE, WEAK, TABLE, HOLDERS
"""


def test_no_address_and_no_order_gets_into_a_key(run: Callable[[str, int], str]) -> None:
    assert len({run(ADDRESSES, seed) for seed in range(4)}) == 1
