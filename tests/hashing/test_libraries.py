"""Arrays, tables and structures mean dtype, shape and content, however they lie in memory."""

from __future__ import annotations

import copy
import ctypes
import importlib
import pickle
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from callyard.hashing.call_key import call_key
from callyard.hashing.digest import UnkeyableError
from callyard.hashing.values import value_token


def distinct(*values: Any) -> bool:
    return len({value_token(value) for value in values}) == len(values)


def same(*values: Any) -> bool:
    return len({value_token(value) for value in values}) == 1


# -- numpy -------------------------------------------------------------------------------------------------


@pytest.mark.needs("numpy")
class TestNumpy:
    def test_layout_does_not_count(self, tmp_path: Path) -> None:
        import numpy as np

        a = np.arange(24.0).reshape(4, 6)
        wide = np.zeros((8, 12))
        wide[::2, ::2] = a
        read_only = a.copy()
        read_only.flags.writeable = False
        assert same(a, np.asfortranarray(a), wide[::2, ::2], a[::-1][::-1], a.T.T, read_only, copy.deepcopy(a))
        assert same(a, pickle.loads(pickle.dumps(a)), np.array(a.tolist()))
        mapped = np.memmap(tmp_path / "a", dtype=float, mode="w+", shape=a.shape)
        mapped[:] = a
        other = np.memmap(tmp_path / "b", dtype=float, mode="w+", shape=a.shape)
        other[:] = a
        assert same(mapped, other)
        assert distinct(mapped, a)

    def test_type_shape_and_content_count(self) -> None:
        import numpy as np

        assert distinct(
            *(
                np.arange(6),
                np.arange(6.0),
                np.arange(6, dtype="i4"),
                np.arange(6, dtype=">i8"),
                np.arange(6, dtype="u8"),
            ),
            *(np.arange(6).reshape(2, 3), np.arange(6).reshape(3, 2), np.arange(6).reshape(1, 6), np.arange(1, 7)),
            *(
                np.zeros(0),
                np.zeros((0, 3)),
                np.zeros((3, 0)),
                np.zeros(0, "i4"),
                np.array(1),
                np.array(1.0),
                np.array([1]),
            ),
            *(
                np.int64(1),
                np.int32(1),
                np.float64(1),
                np.bool_(True),
                1,
                1.0,
                True,
                np.str_("a"),
                "a",
                np.bytes_(b"a"),
            ),
            *(np.array(["a"]), np.array(["a"], "U2"), np.array([b"a"]), np.array([""]), np.array(["a"], object)),
            *(np.array([0.0]), np.array([-0.0]), np.array([np.nan]), np.array([None]), np.array([[1], [2, 3]], object)),
            *(np.array(["2020-01-01"], "M8[D]"), np.array(["2020-01-01"], "M8[s]"), np.array([1], "m8[s]")),
            *(
                np.datetime64("2020-01-01"),
                np.datetime64("NaT", "D"),
                np.dtype("f8"),
                np.dtype("f4"),
                np.float64,
                np.float32,
            ),
            *(np.dtype([("a", "i4")]), np.dtype([("b", "i4")]), np.dtype([("a", "i4")], align=True, metadata={"k": 1})),
            *(np.arange(6, dtype=np.dtype("i8", metadata={"unit": "m"})), np.array([1 + 0j]), np.array([True])),
        )

    def test_what_lies_between_fields_does_not_count(self) -> None:
        import numpy as np

        dtype = np.dtype([("a", "i1"), ("b", "f8"), ("c", [("d", "i2"), ("e", "i8", (2,))])], align=True)
        one, two = (np.frombuffer(bytearray([fill]) * dtype.itemsize * 3, dtype) for fill in (0, 255))
        for array in (one, two):
            array["a"], array["b"] = 1, 2.0
            array["c"]["d"], array["c"]["e"] = 3, [4, 5]
        assert one.tobytes() != two.tobytes()
        assert same(one, two)
        assert same(one[0], two[0])
        two["c"]["e"][1, 1] = 6
        assert distinct(one, two)

    def test_what_fills_a_long_double_does_not_count(self) -> None:
        import numpy as np

        for kind in (np.longdouble, np.clongdouble):
            one, two = (np.frombuffer(bytes([fill]) * 64, np.uint8).copy().view(kind) for fill in (0, 255))
            one[:] = two[:] = 1
            assert same(one, two)
            assert distinct(one, one * 2)

    def test_objects_in_arrays(self) -> None:
        import numpy as np

        a = np.array([{"a": 1, "b": 2}, "x", None], dtype=object)
        assert same(a, np.array([{"b": 2, "a": 1}, "x", None], dtype=object), copy.deepcopy(a))
        inside = np.array([None, None], dtype=object)
        inside[0] = inside
        again = np.array([None, None], dtype=object)
        again[0] = again
        assert same(inside, again)

    def test_masked_arrays_and_other_classes(self) -> None:
        import numpy as np

        masked = np.ma.array([[1, 2], [3, 4]], mask=[[0, 1], [0, 0]])
        assert same(masked, masked.copy(), np.ma.array(np.asfortranarray(masked.data), mask=masked.mask))
        assert same(np.ma.array([1, 2]), np.ma.array([1, 2], mask=[0, 0]))
        assert distinct(masked, np.ma.array(masked.data, mask=[[0, 0], [0, 1]]), masked.data)
        assert distinct(masked, np.ma.array(masked, fill_value=7))
        unit = np.arange(6.0).reshape(2, 3).view(WithUnit())
        assert distinct(unit, np.asarray(unit))
        again = np.asfortranarray(np.arange(6.0).reshape(2, 3)).view(WithUnit())
        unit.unit = again.unit = "m"  # type: ignore[attr-defined]
        assert same(unit, again)
        again.unit = "cm"  # type: ignore[attr-defined]
        assert distinct(unit, again)
        assert distinct(np.array([[1]]).view(np.matrix), np.array([[1]]), np.rec.array([(1,)], dtype=[("a", "i8")]))

    def test_random_generators_count_by_their_state(self) -> None:
        import numpy as np

        one, two = np.random.default_rng(1), np.random.default_rng(1)
        assert same(one, two)
        two.random()
        assert distinct(one, two, np.random.default_rng(2), np.random.RandomState(1))
        assert same(np.random.RandomState(1), np.random.RandomState(1))

    def test_functions(self) -> None:
        import numpy as np

        assert distinct(np.sin, np.cos, np.mean, np.linalg.norm, np.add.reduce, np.random.rand)
        before = value_token(np.random.rand)
        np.random.rand()  # noqa: NPY002
        assert value_token(np.random.rand) == before
        assert distinct(np.vectorize(lambda x: x + 1), np.vectorize(lambda x: x + 2))
        assert distinct(np.frompyfunc(lambda x: x, 1, 1), np.frompyfunc(lambda x: -x, 1, 1))
        assert distinct(np.polynomial.Polynomial([1]), np.polynomial.Polynomial([2]))

    def test_a_function_that_uses_it(self) -> None:
        import numpy as np

        table = np.arange(5.0)

        def function(x: Any) -> Any:
            return np.sin(x) + table

        first = call_key(function, (1,), {}).hex
        table[2] = 7
        assert call_key(function, (1,), {}).hex != first
        table[2] = 2
        assert call_key(function, (1,), {}).hex == first


def WithUnit() -> Any:
    import numpy as np

    global _with_unit
    if _with_unit is None:
        _with_unit = type("_with_unit", (np.ndarray,), {"__module__": __name__})
    return _with_unit


_with_unit: Any = None


# -- pandas ------------------------------------------------------------------------------------------------


@pytest.mark.needs("pandas")
class TestPandas:
    def test_equal_frames_built_in_different_ways(self) -> None:
        import numpy as np
        import pandas as pd

        one = pd.DataFrame({"a": [1.0, 2.0], "b": [3.0, 4.0], "s": ["x", "y"]})
        two = pd.DataFrame({"a": [1.0, 2.0]})
        two["b"] = [3.0, 4.0]
        two["s"] = ["x", "y"]
        three = pd.DataFrame(np.asfortranarray(np.array([[1.0, 3.0], [2.0, 4.0]])), columns=["a", "b"])
        three.insert(2, "s", ["x", "y"])
        assert same(
            one,
            two,
            three,
            one.copy(),
            pickle.loads(pickle.dumps(one)),
            pd.concat([one[["a", "b"]], one[["s"]]], axis=1),
        )
        assert same(one, one.iloc[::-1].iloc[::-1].reset_index(drop=True))

    def test_what_counts(self) -> None:
        import pandas as pd

        frame = pd.DataFrame({"a": [1, 2], "b": [3, 4]})
        flagged = frame.copy()
        flagged.attrs["unit"] = "m"
        assert distinct(
            *(frame, flagged, frame[["b", "a"]], frame.T, frame.astype(float), frame.rename(columns={"a": "c"})),
            *(
                frame.set_index("a"),
                frame.rename_axis("i"),
                frame.set_index(["a", "b"]),
                frame.iloc[:1],
                frame.iloc[:0],
            ),
            *(
                frame["a"],
                frame["a"].rename("c"),
                frame["a"].astype("Int64"),
                frame["a"].astype("category"),
                frame.index,
            ),
            *(
                frame["a"].astype(str),
                pd.Series([1, None], dtype="Int64"),
                pd.Series([1, None]),
                pd.Series([1, None], dtype=object),
            ),
            *(pd.Series(["a"], dtype="string"), pd.Series(["a"], dtype="category"), pd.Series(["a"], dtype=object)),
            *(
                pd.Categorical(["a"], ["a", "b"]),
                pd.Categorical(["a"], ["b", "a"]),
                pd.Categorical(["a"], ordered=True),
            ),
            *(
                pd.date_range("2020", periods=2),
                pd.date_range("2020", periods=2, tz="UTC"),
                pd.date_range("2020", periods=3),
            ),
            *(pd.Timestamp("2020"), pd.Timestamp("2020", tz="UTC"), pd.NaT, pd.NA, pd.Timedelta(1), pd.Period("2020")),
            *(
                pd.interval_range(0, 2),
                pd.period_range("2020", periods=2, freq="M"),
                pd.Interval(0, 1),
                pd.RangeIndex(3),
            ),
            *(pd.Index([0, 1, 2]), pd.MultiIndex.from_tuples([(1, "a")]), pd.MultiIndex.from_tuples([(1, "b")])),
        )

    def test_levels_count(self) -> None:
        import pandas as pd

        index = pd.MultiIndex.from_product([["a", "b"], [1, 2]], names=["x", "y"])
        assert same(index[:2].remove_unused_levels(), pd.MultiIndex.from_product([["a"], [1, 2]], names=["x", "y"]))
        assert distinct(index[:2], index[:2].remove_unused_levels())  # whoever asks for .levels sees them

    def test_what_was_asked_before_does_not_count(self) -> None:
        import pandas as pd

        frame = pd.DataFrame({"a": [2, 1]}, index=["x", "y"])
        before = value_token(frame)
        frame.loc["x"], frame.index.is_unique, frame["a"].index.get_loc("y")
        assert value_token(frame) == before


# -- ASE ---------------------------------------------------------------------------------------------------


@pytest.mark.wide
@pytest.mark.needs("ase")
@pytest.mark.filterwarnings("ignore::DeprecationWarning:ase")
class TestAtoms:
    def test_structures(self) -> None:
        from ase.build import bulk, molecule
        from ase.calculators.emt import EMT
        from ase.constraints import FixAtoms

        atoms = bulk("Cu")
        assert same(atoms, bulk("Cu"), atoms.copy(), pickle.loads(pickle.dumps(atoms)))
        moved = atoms.copy()
        moved.positions[0, 0] += 1e-12
        fixed = atoms.copy()
        fixed.set_constraint(FixAtoms([0]))
        noted = atoms.copy()
        noted.info["k"] = 1
        calculated = atoms.copy()
        calculated.calc = EMT()
        assert distinct(atoms, moved, fixed, noted, calculated, bulk("Al"), bulk("Cu", cubic=True), molecule("H2O"))
        again = atoms.copy()
        again.calc = EMT()
        assert same(calculated, again)
        assert distinct(EMT(), EMT(asap_cutoff=True))


# -- ctypes ------------------------------------------------------------------------------------------------


def test_libraries_that_ctypes_loads(tmp_path: Path) -> None:
    """By content, not by where they lie and what was looked up in them."""
    content = Path(str(importlib.import_module("blake3.blake3").__file__)).read_bytes()
    paths = [tmp_path / name / "own.so" for name in ("here", "there", "changed")]
    for path in paths:
        path.parent.mkdir()
        path.write_bytes(content + b"more" * (path is paths[-1]))
    here, there, changed = (ctypes.CDLL(str(path)) for path in paths)
    name = "PyInit_blake3"
    getattr(there, name)
    assert value_token(here) == value_token(there) != value_token(changed)
    assert value_token(here[name]) == value_token(there[name]) != value_token(changed[name])
    before = value_token(here)
    getattr(here, name).restype = ctypes.c_void_p
    assert value_token(here) != before


def test_libraries_of_the_system() -> None:
    with pytest.raises(UnkeyableError):
        value_token(ctypes.CFUNCTYPE(None)(lambda: None))
    here = ctypes.CDLL(None)
    assert value_token(here) == value_token(ctypes.CDLL(None))
    assert value_token(here.strlen) == value_token(ctypes.CDLL(None).strlen) != value_token(here.strcmp)


# -- attrs ---------------------------------------------------------------------------------------------------


def test_a_hash_that_attrs_has_made() -> None:
    """It has a number in it that another process has another one for."""

    def made(number: int, *names: str) -> Any:
        def hashed(self: Any) -> int:
            return hash((number, *names))

        return type("Point", (), {"__attrs_attrs__": names, "__hash__": hashed})

    assert same(made(1, "x"), made(2, "x"))
    assert distinct(made(1, "x"), made(1, "y"))


# -- torch -------------------------------------------------------------------------------------------------


@pytest.mark.needs("torch")
def test_tensors() -> None:
    import torch

    a = torch.arange(6.0).reshape(2, 3)
    assert same(a, a.clone(), a.T.contiguous().T, torch.arange(6.0).reshape(2, 3))
    assert distinct(a, a.double(), a.reshape(3, 2), a + 1, a.clone().requires_grad_(), torch.nn.Parameter(a))
    assert distinct(
        torch.zeros(2, dtype=torch.bfloat16), torch.zeros(2, dtype=torch.float16), torch.zeros(2, dtype=torch.cfloat)
    )


def test_tensors_of_a_library_like_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where torch is not installed, that its tensors are known at all."""
    torch = types.ModuleType("torch")
    torch.strided, torch.uint8 = "strided", "uint8"  # type: ignore[attr-defined]

    class Tensor:
        layout, is_quantized, dtype, requires_grad, shape = "strided", False, "float32", False, (2,)
        device = types.SimpleNamespace(type="cpu")

        def __init__(self, data: bytes) -> None:
            self._data = data

        def __getattr__(self, name: str) -> Any:
            if name in ("detach", "cpu", "resolve_conj", "resolve_neg", "contiguous", "reshape", "view"):
                return lambda *_: self
            raise AttributeError(name)

        def numpy(self) -> Any:
            import numpy as np

            return np.frombuffer(self._data, np.uint8)

    Tensor.__module__ = "torch"
    torch.Tensor = Tensor  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch", torch)
    assert same(Tensor(b"ab"), Tensor(b"ab"))
    assert distinct(Tensor(b"ab"), Tensor(b"ac"))
