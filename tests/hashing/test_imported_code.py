"""The quick comparison of imported code: it accepts only what a walk accepts, and most of that."""

from __future__ import annotations

import importlib
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from callyard.hashing.call_key import references_of
from callyard.hashing.definition_tokens import token_at
from callyard.hashing.imported_code import CodePlaces, is_imported

LAB = """
import math
from dataclasses import dataclass, field
from functools import wraps

import lab_other
from lab_other import Deep

TABLE = {"a": [1, 2.5], "b": {"x", "y"}}
NAMES = frozenset(("p", "q"))

def twice(function):
    @wraps(function)
    def inner(*args):
        return function(function(*args))
    return inner

def helper(x, scale=2, *, more=()):
    return math.sqrt(x) * scale + TABLE["a"][0] + lab_other.K

@twice
def wrapped(x):
    return helper(x) if x not in {"a", "b"} else NAMES

class Point(Deep):
    N = 3

    def __init__(self, x):
        self.x = x

    @property
    def y(self):
        return self.x * self.zero() + self.N

    @staticmethod
    def zero():
        return 0

@dataclass
class Pair:
    left: int = 1
    right: list = field(default_factory=list, metadata={"unit": "m"})

def f(x):
    from lab_late import late
    return wrapped(x), Point(x).y, Pair(), late
"""
FILES = {
    "lab.py": LAB,
    "lab_other.py": "K = 5\nL = 6\nclass Deep:\n    def deep(self): return 1\n",
    "lab_late.py": "def late(x): return x\n",
}


class Lab:
    """A directory with modules of the user's, which are loaded anew after each change."""

    def __init__(self, place: Path) -> None:
        self.place, self.count = place, 0

    def load(self, files: dict[str, str]) -> Any:
        self.unload()
        self.count += 1
        directory = self.place / str(self.count)
        directory.mkdir()
        for name, source in files.items():
            (directory / name).write_text(source)
        sys.path.insert(0, str(directory))
        importlib.invalidate_caches()
        return importlib.import_module("lab")

    def unload(self) -> None:
        sys.path[:] = [path for path in sys.path if not path.startswith(str(self.place))]
        for name in [name for name in sys.modules if name.partition("_")[0] == "lab"]:
            del sys.modules[name]


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    found = Lab(tmp_path)
    yield found
    found.unload()


def places_of(function: Any) -> CodePlaces | None:
    [reference], _ = references_of(function, (), {})
    return reference[3]


def test_other_processes_find_the_same(lab: Lab) -> None:
    places = places_of(lab.load(FILES).f)
    assert places is not None
    code = (
        "import pickle, sys; from callyard.hashing.imported_code import is_imported as same; sys.path[:] = sys.argv[1:]"
    )
    code += "; print(same(pickle.load(sys.stdin.buffer)), 'callyard.hashing.definitions' in sys.modules)"
    for seed in ("1", "2"):
        answer = subprocess.run(
            [sys.executable, "-c", code, *sys.path],
            check=True, input=pickle.dumps(places), capture_output=True, env={**os.environ, "PYTHONHASHSEED": seed},
        )  # fmt: skip
        assert answer.stdout.split() == [b"True", b"False"]


CHANGES = [
    ("lab.py", "function(function(*args))", "function(*args)"),
    ("lab.py", "scale=2", "scale=3"),
    ("lab.py", "more=()", "more=(1,)"),
    ("lab.py", '"a": [1, 2.5]', '"a": [1, 2]'),
    ("lab.py", '"b": {"x", "y"}', '"b": {"x"}'),
    ("lab.py", 'frozenset(("p", "q"))', 'frozenset(("p", "r"))'),
    ("lab.py", "math.sqrt(x)", "math.exp(x)"),
    ("lab.py", 'not in {"a", "b"}', 'not in {"a", "c"}'),
    ("lab.py", "class Point(Deep)", "class Point"),
    ("lab.py", "N = 3", "N = 3.0"),
    ("lab.py", "self.x * self.zero()", "self.zero() * self.x"),
    ("lab.py", "return 0", "return -0.0"),
    ("lab.py", "@staticmethod", "@classmethod"),
    ("lab.py", "left: int", "left: float"),
    ("lab.py", '{"unit": "m"}', '{"unit": "s"}'),
    ("lab.py", "default_factory=list", "default_factory=tuple"),
    ("lab.py", "import math", "import cmath as math"),
    ("lab.py", "def f(x):", "def str(x): pass\ndef sqrt(x): pass\ndef f(x):\n    str(x)"),
    ("lab_other.py", "K = 5", "K = True"),
    ("lab_other.py", "return 1", "return 2"),
    ("lab_late.py", "return x", "return x, x"),
]


@pytest.mark.parametrize(("file", "old", "new"), CHANGES)
def test_what_means_something_else_is_not_accepted(lab: Lab, file: str, old: str, new: str) -> None:
    [(module, name, token, places)], _ = references_of(lab.load(FILES).f, (), {})
    assert places is not None
    assert is_imported(places)
    assert old in FILES[file]
    lab.load({**FILES, file: FILES[file].replace(old, new)})
    assert token_at(module, name) != token
    assert not is_imported(places)


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [("lab.py", "import math", "# said differently\nimport math"), ("lab_other.py", "L = 6", "L = 7; M = object()")],
)
def test_what_means_the_same_is_accepted(lab: Lab, file: str, old: str, new: str) -> None:
    places = places_of(lab.load(FILES).f)
    lab.load({**FILES, file: FILES[file].replace(old, new)})
    assert places is not None
    assert is_imported(places)


def test_names_that_appear_or_vanish_count(lab: Lab) -> None:
    found = lab.load({"lab.py": "def f(x): return max(x, LATER)\nLATER = 1\n"})
    places = places_of(found.f)
    assert places is not None
    assert is_imported(places)
    found.max = min
    assert not is_imported(places)
    del found.max, found.LATER
    assert not is_imported(places)


def test_a_function_under_another_name_counts_by_its_code(lab: Lab) -> None:
    source = "def made(n):\n    return lambda x: x + n\ng = made({n})\ndef f(x): return g(x)\n"
    places = places_of(lab.load({"lab.py": source.replace("{n}", "1")}).f)
    assert places is not None
    assert is_imported(places)
    lab.load({"lab.py": source.replace("{n}", "2")})
    assert not is_imported(places)


@pytest.mark.parametrize(
    "source",
    [
        "import threading\nLOCK = threading.Lock()\ndef f(x): return LOCK\n",
        "from enum import Enum\nclass E(Enum):\n    A = 1\ndef f(x): return E.A\n",
        "import functools\n@functools.lru_cache\ndef g(x): return x\ndef f(x): return g(x)\n",
        "def f(x): return f.__doc__\n",
        "LOOP = []\nLOOP.append(LOOP)\ndef f(x): return LOOP\n",
        "import lab as whole\ndef f(x): return vars(whole)\n",
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_other_values_are_left_to_a_walk(lab: Lab, source: str) -> None:
    assert places_of(lab.load({"lab.py": source}).f) is None


def test_another_version_of_a_package_is_not_accepted(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> None:
    site = tmp_path_factory.mktemp("environment") / "site-packages"
    for name, content in {
        "labtools/__init__.py": "def tool(x): return x\n",
        "labtools-1.0.dist-info/METADATA": "Name: labtools\nVersion: 1.0\n",
    }.items():
        (site / name).parent.mkdir(parents=True)
        (site / name).write_text(content)
    sys.path.insert(0, str(site))
    try:
        places = places_of(lab.load({"lab.py": "from labtools import tool\ndef f(x): return tool(x)\n"}).f)
        assert places is not None
        assert places.packages == ("labtools",)
        assert is_imported(places)
        metadata = site / "labtools-1.0.dist-info/METADATA"
        kept = metadata.stat()
        metadata.write_text("Name: labtools\nVersion: 2.0\n")  # as in an image in which all files have one time
        os.utime(metadata, ns=(kept.st_atime_ns, kept.st_mtime_ns))
        assert not is_imported(places)
        metadata.write_text("Name: labtools\nVersion: 1.0\n")
        assert is_imported(places)
        (site / "labtools-1.0.dist-info").rename(site / "labtools-1.1.dist-info")
        assert not is_imported(places)
    finally:
        sys.path.remove(str(site))
        sys.modules.pop("labtools", None)
