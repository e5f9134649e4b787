"""The code that was keyed is the code that runs, whatever a worker finds under its name."""

from __future__ import annotations

import functools
import importlib
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import remembered_calls as calls
from remembered_calls import noted

from callyard import Cache, CallyardError, Local


class Lab:
    """A directory of modules of the user's, on the path, which the test edits as the user does."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, **modules: str) -> None:
        """Module `a__b` is `a.b`, and `a__init` the file of package `a`."""
        for name, text in modules.items():
            *packages, last = name.split("__")
            path = self.path.joinpath(*packages, "__init__.py" if last == "init" else f"{last}.py")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(textwrap.dedent(text))
        importlib.invalidate_caches()

    def load(self, *names: str) -> Any:
        """Import the modules, again if they are there; the last of them."""
        for name in names:
            loaded = sys.modules.get(name)
            found: ModuleType = importlib.reload(loaded) if loaded is not None else importlib.import_module(name)
        return found


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    path = tmp_path / "code"
    path.mkdir()
    monkeypatch.syspath_prepend(str(path))
    # A compiled file counts as current if it is of the same second and size.
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    before = set(sys.modules)
    yield Lab(path)
    for name in set(sys.modules) - before:
        if str(path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


NOTE = """
from remembered_calls import note
"""

WORK = (
    NOTE
    + """
SCALE = 10
def helper(x):
    return x * SCALE
def work(journal, x):
    note(journal, f"work {x}")
    return helper(x)
"""
)
OTHER_WORK = WORK.replace("x * SCALE", "x * SCALE + 1")


# ------------------------------------------------------------------ edited, reloaded, assigned


def test_a_file_that_is_edited_before_the_call_runs(make: Any, lab: Lab, gate: Any, place: str, journal: str) -> None:
    lab.write(lab_a=WORK)
    module = lab.load("lab_a")
    ex = make(1)
    blocker = ex.submit(calls.held, journal, place, 0)
    future = ex.submit(module.work, journal, 1)
    gate.arrived()
    lab.write(lab_a=OTHER_WORK)  # no worker has imported it yet
    gate.open()
    assert future.result() == 10
    assert blocker.result() == 0
    assert ex.submit(module.work, journal, 2).result() == 20
    assert noted(journal) == ["held 0", "work 1", "work 2"]
    new = lab.load("lab_a")
    changed = ex.submit(new.work, journal, 1)
    assert changed.result() == 11
    assert changed.key != future.key
    assert make(1).submit(new.work, journal, 1).cached


def test_a_module_that_is_reloaded(make: Any, lab: Lab, journal: str) -> None:
    """The worker has imported what it was before."""
    lab.write(lab_b=WORK)
    module = lab.load("lab_b")
    ex = make(1)
    assert ex.submit(module.work, journal, 1).result() == 10
    lab.write(lab_b=OTHER_WORK)
    lab.load("lab_b")
    assert ex.submit(module.work, journal, 1).result() == 11
    assert ex.submit(module.work, journal, 1).cached
    lab.write(lab_b=WORK)
    lab.load("lab_b")
    back = ex.submit(module.work, journal, 1)
    assert (back.cached, back.result()) == (True, 10)
    assert ex.submit(module.work, journal, 2).result() == 20
    assert noted(journal) == ["work 1", "work 1", "work 2"]


def test_a_value_that_is_assigned_at_runtime(make: Any, lab: Lab, journal: str) -> None:
    lab.write(lab_c=WORK)
    module = lab.load("lab_c")
    ex = make(1)
    assert ex.submit(module.work, journal, 1).result() == 10
    module.SCALE = 5
    assert ex.submit(module.work, journal, 1).result() == 5
    module.SCALE = 6
    assert ex.submit(module.work, journal, 1).result() == 6
    assert make(1).submit(module.work, journal, 3).result() == 18
    module.SCALE = 10
    assert ex.submit(module.work, journal, 1).cached
    assert ex.submit(module.work, journal, 4).result() == 40
    assert noted(journal) == ["work 1", "work 1", "work 1", "work 3", "work 4"]


def test_a_value_that_is_changed_in_place(make: Any, lab: Lab, journal: str) -> None:
    lab.write(lab_d=NOTE + "TABLE = {'a': [1]}\ndef work(journal, x):\n    note(journal, x)\n    return TABLE[x]\n")
    module = lab.load("lab_d")
    ex = make(1)
    assert ex.submit(module.work, journal, "a").result() == [1]
    module.TABLE["a"].append(2)
    assert ex.submit(module.work, journal, "a").result() == [1, 2]
    module.TABLE["a"].append(3)
    assert ex.submit(module.work, journal, "a").result() == [1, 2, 3]
    assert noted(journal) == ["a"] * 3


def test_a_function_that_was_kept(make: Any, lab: Lab, journal: str) -> None:
    lab.write(lab_e=NOTE + "def work(journal, x):\n    note(journal, 'old')\n    return x\n")
    old = lab.load("lab_e").work
    ex = make(1)
    assert ex.submit(old, journal, 1).result() == 1
    lab.write(lab_e=NOTE + "def work(journal, x):\n    note(journal, 'new')\n    return -x\n")
    new = lab.load("lab_e").work
    results = [ex.submit(function, journal, x).result() for x in (1, 2) for function in (old, new)]
    assert results == [1, -1, 2, -2]
    assert noted(journal) == ["old", "new", "old", "new"]


def test_what_was_keyed_is_gone(make: Any, lab: Lab, gate: Any, place: str, journal: str, results: Path) -> None:
    lab.write(lab_f=WORK)
    module = lab.load("lab_f")
    ex = make(1)
    blocker = ex.submit(calls.held, journal, place, 0)
    future = ex.submit(module.work, journal, 1)
    gate.arrived()
    lab.write(lab_f=OTHER_WORK)
    lab.load("lab_f")
    gate.open()
    with pytest.raises(CallyardError, match=r"'work' was not run: its code was changed .* submit it again"):
        future.result()
    assert blocker.result() == 0
    assert future.key not in Cache(results)
    again = ex.submit(module.work, journal, 1)
    assert again.result() == 11
    assert again.key != future.key
    assert noted(journal) == ["held 0", "work 1"]


def test_a_value_that_is_assigned_while_the_call_waits(
    make: Any, lab: Lab, gate: Any, place: str, journal: str
) -> None:
    lab.write(lab_g=WORK)
    module = lab.load("lab_g")
    ex = make(1)
    ex.submit(calls.held, journal, place, 0)
    future = ex.submit(module.work, journal, 1)
    gate.arrived()
    module.SCALE = 5  # the worker finds 10, which is what was keyed
    gate.open()
    assert future.result() == 10
    assert ex.submit(module.work, journal, 1).result() == 5
    assert make(1).submit(module.work, journal, 1).cached


@pytest.mark.parametrize("broken", ["def (", "raise RuntimeError('not today')", "", "work = None", None])
def test_a_file_that_is_broken_before_the_call_runs(
    make: Any, lab: Lab, gate: Any, place: str, journal: str, broken: str | None
) -> None:
    lab.write(lab_o=WORK)
    module = lab.load("lab_o")
    ex = make(1)
    ex.submit(calls.held, journal, place, 0)
    future = ex.submit(module.work, journal, 1)
    gate.arrived()
    if broken is None:
        (lab.path / "lab_o.py").unlink()
    else:
        lab.write(lab_o=broken)
    gate.open()
    assert future.result() == 10
    assert noted(journal) == ["held 0", "work 1"]


SHAPES = """
import functools
from remembered_calls import note

def doubled(function):
    @functools.wraps(function)
    def wrapper(*args):
        return 2 * function(*args)
    return wrapper

def inner(x):
    return x + 1

@doubled
def decorated(x):
    return inner(x)

@functools.lru_cache
def cached(x):
    return inner(x)

class Model:
    def __init__(self, y):
        self.y = y
    def run(self, x):
        return inner(x) + self.y
    __call__ = run
    @classmethod
    def make(cls, x):
        return cls(x).run(x)
    @staticmethod
    def plain(x):
        return inner(x)
"""


@pytest.mark.parametrize(
    "shape",
    ["decorated", "cached", "Model(1).run", "Model(1)", "Model.make", "Model.plain", "partial(decorated, 1)", "lambda"],
)
def test_whatever_shape_the_function_has(make: Any, lab: Lab, shape: str) -> None:
    name = "shapes_" + "".join(filter(str.isalnum, shape))
    lab.write(**{name: SHAPES})
    module = lab.load(name)
    ex = make(1)

    def submit() -> Any:
        args: tuple[int, ...] = (1,)
        if shape == "lambda":
            function: Any = lambda x: module.decorated(x) + module.Model(x).run(x)  # noqa: E731
        elif shape.startswith("partial"):
            function, args = functools.partial(module.decorated, 1), ()
        else:
            function = eval(shape, vars(module))
        return ex.submit(function, *args)

    first = submit()
    first.result()
    lab.write(**{name: SHAPES.replace("x + 1", "x + 1000")})
    lab.load(name)
    changed = submit()
    assert changed.result() > 1000
    assert not changed.cached
    assert submit().cached
    lab.write(**{name: SHAPES})
    lab.load(name)
    back = submit()
    assert (back.cached, back.key, back.result()) == (True, first.key, first.result())


# ------------------------------------------------------------------ classes

MODEL = """
class Base:
    def size(self):
        return 1

class Model(Base):
    def __init__(self, x):
        self.x = x
    def run(self):
        return self.x + self.size()
    def __eq__(self, other):
        return vars(self) == vars(other)
"""


def use(journal: str, model: Any) -> Any:
    calls.note(journal, "use")
    return model.run()


def test_the_class_of_an_argument(make: Any, lab: Lab, journal: str) -> None:
    lab.write(lab_h=MODEL)
    module = lab.load("lab_h")
    ex = make(1)
    assert ex.submit(use, journal, module.Model(1)).result() == 2
    assert ex.submit(use, journal, module.Model(1)).cached
    lab.write(lab_h=MODEL.replace("return 1", "return 100"))
    lab.load("lab_h")
    assert ex.submit(use, journal, module.Model(1)).result() == 101
    assert ex.submit(use, journal, [module.Model(1)][0]).cached
    made = ex.submit(module.Model, 5)
    assert made.result() == module.Model(5)
    assert type(made.result()) is module.Model
    assert ex.submit(use, journal, made).result() == 105
    assert noted(journal) == ["use"] * 3


def test_the_class_of_an_argument_that_comes_late(make: Any, lab: Lab, journal: str) -> None:
    lab.write(lab_i=MODEL)
    module = lab.load("lab_i")
    ex = make(1)
    assert ex.submit(use, journal, ex.submit(module.Model, 1)).result() == 2
    lab.write(lab_i=MODEL.replace("return 1", "return 100"))
    lab.load("lab_i")
    assert ex.submit(use, journal, ex.submit(module.Model, 1)).result() == 101
    assert make(1).submit(use, journal, module.Model(1)).cached
    assert noted(journal) == ["use"] * 2


# ------------------------------------------------------------------ several modules

HELPERS = {
    "from": ("from lab_{0}_help import helper", "helper(x)"),
    "import": ("import lab_{0}_help as helpers", "helpers.helper(x)"),
    "package": ("import pkg_{0}.deep.help", "pkg_{0}.deep.help.helper(x)"),
    "from package": ("from pkg_{0}.deep import help", "help.helper(x)"),
}


@pytest.mark.parametrize("inside", [False, True], ids=["outside", "inside"])
@pytest.mark.parametrize("way", HELPERS)
def test_a_helper_in_another_module(make: Any, lab: Lab, journal: str, way: str, inside: bool) -> None:
    tag = f"{list(HELPERS).index(way)}{int(inside)}"
    statement, use_it = (text.format(tag) for text in HELPERS[way])
    module = f"pkg_{tag}.deep.help" if "package" in way else f"lab_{tag}_help"
    outer, inner = ("", f"{statement}\n    ") if inside else (f"{statement}\n", "")
    text = f"{NOTE}{outer}def work(journal, x):\n    {inner}note(journal, x)\n    return {use_it}\n"
    lab.write(**{f"pkg_{tag}__init": "", f"pkg_{tag}__deep__init": "from . import help\n"})
    helper = "def helper(x):\n    return inner(x)\ndef inner(x):\n    return x + {0}\n"
    lab.write(**{module.replace(".", "__"): helper.format(1), f"work_{tag}": text})
    work = lab.load(f"work_{tag}").work
    ex = make(1)
    future = ex.submit(work, journal, 1)
    assert future.result() == 2
    lab.write(**{module.replace(".", "__"): helper.format(100)})
    names = [module, *([f"work_{tag}"] if way == "from" and not inside else [])]
    lab.load(*names)
    work = sys.modules[f"work_{tag}"].work
    changed = ex.submit(work, journal, 1)
    assert changed.result() == 101
    assert changed.key != future.key
    assert make(1).submit(work, journal, 2).result() == 102
    assert ex.submit(work, journal, 1).cached
    assert noted(journal) == ["1", "1", "2"]


def test_a_package_with_relative_imports(make: Any, lab: Lab, journal: str) -> None:
    lab.write(
        rel__init="from .api import work\n",
        rel__api=NOTE + "def work(journal, x):\n    from .sub.tools import tool\n"
        "    from . import settings\n    note(journal, x)\n    return tool(x) * settings.FACTOR\n",
        rel__settings="FACTOR = 10\n",
        rel__sub__init="",
        rel__sub__tools="from ..settings import FACTOR as F\ndef tool(x):\n    from .. import settings\n"
        "    return x + F + settings.FACTOR\n",
    )
    package = lab.load("rel")
    ex = make(1)
    assert ex.submit(package.work, journal, 1).result() == 210
    sys.modules["rel.settings"].FACTOR = 2  # type: ignore[attr-defined]
    assert ex.submit(package.work, journal, 1).result() == (1 + 10 + 2) * 2
    lab.write(rel__sub__tools="def tool(x):\n    return -x\n")
    lab.load("rel.sub.tools")
    assert ex.submit(package.work, journal, 1).result() == -2
    assert make(1).submit(package.work, journal, 1).cached
    assert noted(journal) == ["1"] * 3


def test_an_import_that_is_not_loaded_here_yet(make: Any, lab: Lab, journal: str) -> None:
    lab.write(
        late_a=NOTE
        + "def work(journal, x):\n    from late_b import helper\n    note(journal, x)\n    return helper(x)\n",
        late_b="def helper(x):\n    return x + 1\n",
    )
    module = lab.load("late_a")
    ex = make(1)
    first = ex.submit(module.work, journal, 1)
    assert first.result() == 2
    assert ex.submit(module.work, journal, 1).cached
    lab.write(late_b="def helper(x):\n    return x + 100\n")
    lab.load("late_b")
    changed = make(1).submit(module.work, journal, 1)
    assert changed.key != first.key
    assert changed.result() == 101
    assert noted(journal) == ["1", "1"]


def test_functions_that_call_each_other(make: Any, lab: Lab, journal: str) -> None:
    text = """
        import {1}
        from remembered_calls import note
        def {2}(journal, n):
            note(journal, "{2}")
            return {1}.{3}(journal, n - 1) + {4} if n else 0
    """
    lab.write(ping=text.format(0, "pong", "left", "right", 1), pong=text.format(0, "ping", "right", "left", 10))
    ping, _ = lab.load("ping"), sys.modules["pong"]
    ex = make(1)
    assert ex.submit(ping.left, journal, 3).result() == 12
    lab.write(pong=text.format(0, "ping", "right", "left", 1000))
    lab.load("pong")
    assert ex.submit(ping.left, journal, 3).result() == 1002
    assert ex.submit(ping.left, journal, 3).cached
    assert noted(journal) == ["left", "right", "left", "right"] * 2


# ------------------------------------------------------------------ what initializers and calls change


def set_scale(module: str, value: int) -> None:
    importlib.import_module(module).SCALE = value  # type: ignore[attr-defined]


def test_an_initializer_that_sets_globals(make: Any, lab: Lab, journal: str) -> None:
    lab.write(lab_j=WORK)
    module = lab.load("lab_j")
    ex = make(1, initializer=set_scale, initargs=("lab_j", 7))
    assert ex.submit(module.work, journal, 1).result() == 7
    assert ex.submit(module.work, journal, 2).result() == 14
    assert make(1, initializer=set_scale, initargs=("lab_j", 7)).submit(module.work, journal, 2).cached
    plain = make(1).submit(module.work, journal, 2)
    assert (plain.cached, plain.result()) == (False, 20)
    lab.write(lab_j=OTHER_WORK)
    lab.load("lab_j")
    assert make(1, initializer=set_scale, initargs=("lab_j", 7)).submit(module.work, journal, 2).result() == 15
    assert noted(journal) == ["work 1", "work 2", "work 2", "work 2"]


def test_a_call_that_changes_its_module(make: Any, lab: Lab, journal: str) -> None:
    """What calls leave in a worker is not the code: the next is not sent again, nor refused."""
    work = "def work(journal, x):\n    global SEEN\n    SEEN += 1\n    note(journal, x)\n    return SEEN\n"
    text = NOTE + "SEEN = 0\n" + work
    lab.write(lab_k=text)
    module = lab.load("lab_k")
    ex = make(1)
    assert [ex.submit(module.work, journal, x).result() for x in range(3)] == [1, 2, 3]
    assert ex.submit(module.work, journal, 1).cached
    assert noted(journal) == ["0", "1", "2"]


def test_several_executors_with_warm_workers(make: Any, lab: Lab, journal: str) -> None:
    lab.write(lab_l=WORK)
    module = lab.load("lab_l")
    executors = [make(2) for _ in range(3)]
    for number, ex in enumerate(executors):
        assert list(ex.map(module.work, [journal] * 4, range(4))) == [0, 10, 20, 30]
        lab.write(lab_l=WORK.replace("x * SCALE", f"x * SCALE + {number + 1}"))
        lab.load("lab_l")
        for other in executors:
            expected = [10 * x + number + 1 for x in range(4)]
            assert list(other.map(module.work, [journal] * 4, range(4))) == expected
        lab.write(lab_l=WORK)
        lab.load("lab_l")
    assert len(noted(journal)) == 4 * 4
    assert sorted(noted(journal)) == sorted(f"work {x}" for x in range(4) for _ in range(4))


def test_many_calls_of_a_changed_module_at_once(make: Any, lab: Lab, journal: str) -> None:
    lab.write(lab_m=WORK)
    module = lab.load("lab_m")
    ex = make(2)
    assert list(ex.map(module.work, [journal] * 20, range(20))) == [10 * x for x in range(20)]
    module.SCALE = 3
    futures = [ex.submit(module.work, journal, x) for x in range(20)]
    doubled = [ex.submit(module.work, journal, future) for future in futures[10:]]
    assert [future.result() for future in futures] == [3 * x for x in range(20)]
    assert [future.result() for future in doubled] == [9 * x for x in range(10, 20)]
    # 9 x of some is 3 x of others, or x; those ran once
    assert len(noted(journal)) == 20 + len({*range(20), *(3 * x for x in range(10, 20))})


@pytest.mark.needs("mpi")
def test_every_rank_runs_the_keyed_code(make: Any, lab: Lab, gate: Any, place: str, journal: str) -> None:
    lab.write(lab_p=WORK)
    module = lab.load("lab_p")
    ex = make(None, backend=Local(cores=2, memory=8)).with_resources(ranks=2)
    with pytest.warns(UserWarning, match="mpi4py"):
        assert ex.submit(module.work, journal, 1).result() == [10, 10]
    module.SCALE = 5
    assert ex.submit(module.work, journal, 1).result() == [5, 5]
    lab.write(lab_p=OTHER_WORK)
    lab.load("lab_p")
    assert ex.submit(module.work, journal, 1).result() == [11, 11]
    assert ex.submit(module.work, journal, 1).cached
    assert noted(journal) == ["work 1"] * 6


def test_a_module_that_workers_do_not_find(make: Any, lab: Lab, journal: str) -> None:
    module = ModuleType("nowhere_else")
    sys.modules["nowhere_else"] = module
    try:
        exec(compile(WORK, "<nowhere>", "exec"), vars(module))
        ex = make(1)
        assert ex.submit(module.work, journal, 1).result() == 10
        module.SCALE = 3  # type: ignore[attr-defined]
        assert ex.submit(module.work, journal, 1).result() == 3
        assert make(1).submit(module.work, journal, 1).cached
    finally:
        del sys.modules["nowhere_else"]
    assert noted(journal) == ["work 1"] * 2


def test_a_module_that_is_edited_and_shared_between_threads(make: Any, lab: Lab, journal: str) -> None:
    """In an executor of threads there is one module, and nothing is imported again."""
    from concurrent.futures import ThreadPoolExecutor

    lab.write(lab_n=WORK)
    module = lab.load("lab_n")
    with ThreadPoolExecutor(1) as pool:
        ex = make(1, backend=pool)
        assert ex.submit(module.work, journal, 1).result() == 10
        module.SCALE = 4
        assert ex.submit(module.work, journal, 1).result() == 4
        lab.write(lab_n=OTHER_WORK)
        lab.load("lab_n")
        assert ex.submit(module.work, journal, 1).result() == 11
        assert make(1).submit(module.work, journal, 1).cached


WITH_CACHES = """
import functools
@functools.lru_cache
def work(x):
    return x * 10
class Tool:
    @staticmethod
    @functools.lru_cache
    def work(x):
        return x * 10
part = functools.partial(work)
"""


@pytest.mark.parametrize("name", ["work", "Tool.work", "part"])
def test_a_function_with_a_cache_of_its_own_in_a_file_that_is_edited(make: Any, lab: Lab, name: str) -> None:
    module = f"lab_caches_{name.replace('.', '_')}"
    lab.write(**{module: WITH_CACHES})
    found = functools.reduce(getattr, name.split("."), lab.load(module))
    lab.write(**{module: WITH_CACHES.replace("10", "11")})
    assert make(1).submit(found, 1).result() == 10


@pytest.mark.parametrize("keeps", [False, True])
def test_a_part_that_a_module_imports_when_it_is_wanted(make: Any, lab: Lab, keeps: bool) -> None:
    package = f"lab_parts_{keeps}"
    found = f"importlib.import_module('{package}.' + name)"
    gives = f"return globals().setdefault(name, {found})" if keeps else f"return {found}"
    lab.write(
        **{
            f"{package}__init": f"import importlib\ndef __getattr__(name):\n    {gives}\n",
            f"{package}__part": "def work(x):\n    return x * 10\n",
            f"{package}_uses": f"import {package}\ndef f(x):\n    return {package}.part.work(x)\n",
        }
    )
    module = lab.load(f"{package}_uses")
    assert module.f(1) == 10
    lab.write(**{f"{package}__part": "def work(x):\n    return x * 11\n"})
    assert make(1).submit(module.f, 1).result() == 10
