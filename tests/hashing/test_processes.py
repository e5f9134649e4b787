"""The same call has the same key in every process, wherever its code lies; a package counts by its version."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import linecache
import os
import shutil
import subprocess
import sys
import sysconfig
import textwrap
import threading
import zipapp
from collections.abc import Iterator
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

import pytest

import callyard
from callyard.hashing.call_key import call_key
from callyard.hashing.packages import owner
from callyard.hashing.syntax_tree import function_of

SOURCES = Path(callyard.__file__).parent.parent

LAB = '''
import enum, functools
from dataclasses import dataclass, field
from lab_helper import help as helper
import lab_helper

class Color(enum.Enum):
    RED = 1
    BLUE = 2
    def other(self): return COLORS

@dataclass(frozen=True)
class Point:
    x: int
    tags: frozenset = frozenset({"a", "b", "c", "d"})

class Free:
    """No hash of its own."""
    def __init__(self, name): self.name = name

COLORS = {Color.RED: 1, Color.BLUE: 2}
WORDS = {"one", "two", "three", "four", "five"}
MIXED = {1, "a", b"b", None, (1, "c"), frozenset({"d", "e"}), Color.RED, Point(1), Point(2), helper, len, Free}
FREE = {Free(name) for name in "abcdef"}
BY_KEY = {Point(1): "a", Point(2): "b", helper: "c", Color: "d", (Color.RED, "x"): "e"}

def decorated(function):
    @functools.wraps(function)
    def wrapper(*args): return function(*args)
    return wrapper

@decorated
def f(x, y=WORDS):
    import lab_late
    z = {name for name in ("a", "b", "c")}
    return x in {"p", "q", "r"}, z, COLORS, MIXED, FREE, BY_KEY, helper(x), lab_helper.VALUES, lab_late.late(x)
'''
HELPER = """
VALUES = {"u", "v", "w"}
def help(x):
    return x + 1
"""
LATE = "def late(x): return {'k', 'l', 'm'}\n"
ASK = """
import sys
from callyard.hashing.call_key import call_key
import lab
argument = {"words": {"one", "two", "three"}, "point": lab.Point(3), "color": lab.Color.BLUE, "free": lab.FREE}
print(call_key(lab.f, (argument,), {}).hex)
"""


def _write(place: Path, files: dict[str, str]) -> Path:
    for path, source in files.items():
        (place / path).parent.mkdir(parents=True, exist_ok=True)
        (place / path).write_text(textwrap.dedent(source))
    return place


def _ask(
    place: Path, script: str = ASK, *, seed: int = 0, cwd: Path | None = None, options: tuple[str, ...] = ()
) -> str:
    path = place / "ask.py"
    path.write_text(script)
    environment = {**os.environ, "PYTHONHASHSEED": str(seed), "PYTHONPATH": os.pathsep.join([str(place), str(SOURCES)])}
    command = [sys.executable, *options, str(path)]
    return subprocess.run(
        command, env=environment, cwd=cwd, check=True, stdout=subprocess.PIPE, text=True
    ).stdout.strip()


LABS = {"lab.py": LAB, "lab_helper.py": HELPER, "lab_late.py": LATE}


def test_other_processes(tmp_path: Path) -> None:
    here, there = _write(tmp_path / "here", LABS), _write(tmp_path / "there" / "deeper", LABS)
    reformatted = {
        name: "\n\n# a comment\n\n" + source.replace("x + 1", "(x  +\n    1)") for name, source in LABS.items()
    }
    again = _write(tmp_path / "again", reformatted)
    first = _ask(here)
    assert len(first) == 40
    assert _ask(here, seed=1, cwd=tmp_path) == first, "another hash seed, loaded from .pyc"
    assert _ask(there, seed=2, options=("-B",)) == first, "another directory"
    assert _ask(again, seed=3) == first, "another layout of the source"
    _write(again, {"lab_late.py": LATE.replace("'k'", "'n'")})
    assert _ask(again) != first


SCRIPT = """
import sys
from callyard.hashing.call_key import call_key
LIMIT = 3
def f(x):
    if x in (1, 2) and not x > LIMIT: return [y for y in range(x) if y]
    return x
print(call_key(f, (1,), {}).hex)
"""


def test_text_that_is_in_no_file_of_its_own(tmp_path: Path) -> None:
    """An archive of modules, an application in one, and a command line."""
    environment = {**os.environ, "PYTHONPATH": str(SOURCES)}

    def run(*words: str) -> str:
        command = [sys.executable, *words]
        done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
        return done.stdout.strip()

    here = _write(tmp_path / "here", {**LABS, "ask.py": ASK, "main/__main__.py": SCRIPT})
    archive = shutil.make_archive(str(tmp_path / "labs"), "zip", _write(tmp_path / "packed", LABS))
    there = _write(tmp_path / "there", {"ask.py": f"import sys; sys.path.insert(0, {archive!r})\n{ASK}"})
    assert run(str(there / "ask.py")) == run(str(here / "ask.py"))
    zipapp.create_archive(here / "main", tmp_path / "main.pyz")
    main = run(str(here / "main"))
    assert run(str(tmp_path / "main.pyz")) == main
    assert run("-c", SCRIPT) == run("-B", "-c", "# moved\n" + SCRIPT.replace("y]", "(y)]")) == main
    assert run("-c", SCRIPT.replace("if y", "if not y")) != main


def test_scripts(tmp_path: Path) -> None:
    script = """
    import sys
    from callyard.hashing.call_key import call_key
    K = {"a", "b", "c"}
    class C:
        def m(self): return K
    def f(x): return C(), K
    print(call_key(f, (C(),), {}).hex)
    """
    one = _write(tmp_path / "one", {"a.py": script})
    two = _write(tmp_path / "two", {"b.py": "# moved\n" + textwrap.dedent(script)})
    found = set()
    for seed, path in enumerate([one / "a.py", two / "b.py"]):
        environment = {**os.environ, "PYTHONHASHSEED": str(seed), "PYTHONPATH": str(SOURCES)}
        done = subprocess.run(
            [sys.executable, path.name], cwd=path.parent, env=environment, check=True, stdout=subprocess.PIPE
        )
        found.add(done.stdout)
    assert len(found) == 1


def test_forked_while_another_thread_keys(tmp_path: Path) -> None:
    script = """
    import os, threading
    from callyard.hashing import syntax_tree
    from callyard.hashing.call_key import call_key
    inside, leave = threading.Event(), threading.Event()
    def f(x): return x
    def hold():
        with syntax_tree._lock:
            inside.set()
            leave.wait()
    thread = threading.Thread(target=hold)
    thread.start()
    inside.wait()
    child = os.fork()
    if not child:
        call_key(f, (1,), {})
        os._exit(7)
    leave.set()
    thread.join()
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    """
    assert _ask(_write(tmp_path, {}), textwrap.dedent(script), options=("-W", "ignore")) == "7"


# -- cells, edited files, code without source --------------------------------------------------------------


@pytest.fixture
def cells() -> Iterator[Any]:
    names: list[str] = []

    def run(
        source: str, namespace: dict[str, Any] | None = None, keep: bool = True, alone: bool = False
    ) -> dict[str, Any]:
        name = f"/nowhere/ipykernel_1/{len(names)}.py"
        names.append(name)
        text = textwrap.dedent(source)
        if keep:
            linecache.cache[name] = (len(text), None, text.splitlines(keepends=True), name)
        space = {"__name__": "__main__"} if namespace is None else namespace
        tree = ast.parse(text)
        for part in [ast.Module([one], []) for one in tree.body] if alone else [tree]:
            exec(compile(part, name, "exec", dont_inherit=True), space)
        return space

    yield run
    for name in names:
        linecache.cache.pop(name, None)


def key(function: Any, *args: Any) -> str:
    return call_key(function, args, {}).hex


CELL = "def f(x):\n    y = x + 1\n    return y\n"


def test_cells_of_a_notebook(cells: Any) -> None:
    first = key(cells(CELL)["f"])
    assert key(cells("# moved\n\n" + CELL)["f"]) == first
    assert key(cells(CELL.replace("x + 1", "(x + 1)  # more"))["f"]) == first
    assert key(cells(CELL.replace("x + 1", "x + 2"))["f"]) != first


def test_an_import_and_a_function_in_one_cell(cells: Any) -> None:
    """IPython compiles each statement alone, and so does not see that a name is that of an import."""
    text = "import os, math\ndef f(x): return math.floor(x), os.path.join('a', x)\n"
    functions = [cells(f"{more}{text}", alone=alone)["f"] for more in ("", "# moved\n\n") for alone in (True, False)]
    assert all(function_of(function.__code__) is not None for function in functions)
    assert len({key(function) for function in functions}) == 1


def test_a_helper_in_a_cell_that_is_run_again(cells: Any) -> None:
    space = cells("def g(x): return x\n")
    cells("def f(x): return g(x)\n", space)
    first = key(space["f"])
    cells("def g(x): return x + 1\n", space)
    second = key(space["f"])
    assert second != first
    cells("# again\ndef g(x): return x\n", space)
    assert key(space["f"]) == first


def test_code_without_source(cells: Any) -> None:
    first = key(cells(CELL, keep=False)["f"])
    assert key(cells("\n# moved\n" + CELL, keep=False)["f"]) == first
    changes = [
        "x + 1|x + 2",
        "x + 1|x - 1",
        "x + 1|x + 1.0",
        "return y|return x",
        "def f(x)|def f(x, z=1)",
        "y = x|y = -x",
    ]
    keys = {key(cells(CELL.replace(*change.split("|")), keep=False)["f"]) for change in changes}
    assert len(keys) == len(changes)
    assert first not in keys


HANDLED = """
def f(x):
    try:
        a = x()
        b = x()
    except ValueError:
        return 1
    return a, b
"""


def test_what_an_exception_handler_covers(cells: Any) -> None:
    moved = HANDLED.replace("        b = x()\n", "").replace("    return a, b", "    b = x()\n    return a, b")
    for keep in (True, False):
        assert key(cells(HANDLED, keep=keep)["f"]) != key(cells(moved, keep=keep)["f"])


def test_two_lambdas_in_one_line(cells: Any) -> None:
    space = cells("a, b = lambda x: x + 1, lambda x: x + 2\n")
    assert key(space["a"]) != key(space["b"])
    assert key(space["a"]) == key(cells("# moved\na, b = lambda x: x + 1, lambda x: x + 2\n")["a"])


def test_with_futures_of_the_language(cells: Any) -> None:
    source = "from __future__ import annotations\n" + CELL
    assert key(cells(source)["f"]) == key(cells("# moved\n" + source.replace("def f(x)", "def f(x: Nothing)"))["f"])


def asserting(x: Any) -> Any:
    assert x > 1, "pytest rewrites this"
    return x


def asserting_more(x: Any) -> Any:
    assert x > 2, "pytest rewrites this"
    return x


def test_code_that_pytest_has_rewritten() -> None:
    assert key(asserting) == key(asserting) != key(asserting_more)


@pytest.fixture
def modules(tmp_path: Path) -> Iterator[Any]:
    """Loads modules from directories; they are gone afterwards."""
    before, path = set(sys.modules), [*sys.path]

    def load(place: Path, name: str) -> Any:
        for known in set(sys.modules) - before:
            if str(tmp_path) in str(
                getattr(sys.modules[known], "__file__", "") or getattr(sys.modules[known], "__path__", "")
            ):
                del sys.modules[known]
        sys.path[:] = [str(place), *path]
        importlib.invalidate_caches()
        return importlib.import_module(name)

    yield load
    sys.path[:] = path
    for known in set(sys.modules) - before:
        del sys.modules[known]


def test_a_file_edited_after_it_was_loaded(tmp_path: Path, modules: Any) -> None:
    old, new = "def f(x): return x + 1\n", "def f(x): return x + 2\n"
    keys = []
    for number, source in enumerate((old, new)):
        keys.append(key(modules(_write(tmp_path / str(number), {"mod.py": source}), "mod").f))
    assert keys[0] != keys[1]
    place = _write(tmp_path / "seen", {"mod.py": old})
    mod = modules(place, "mod")
    assert key(mod.f) == keys[0]
    _write(place, {"mod.py": new})
    assert key(mod.f) == keys[0], "its text was kept"
    place = _write(tmp_path / "unseen", {"mod.py": old})
    mod = modules(place, "mod")
    _write(place, {"mod.py": new})
    assert key(mod.f) not in (keys[1], ""), "what is loaded is not what the file says"
    _write(place, {"mod.py": "\n\n" + new})
    assert key(mod.f) != keys[1]


def test_threads_at_once(tmp_path: Path, modules: Any) -> None:
    lab = modules(_write(tmp_path / "threads", LABS), "lab")
    found: set[str] = set()
    start = threading.Barrier(4)

    def work() -> None:
        start.wait()
        found.update(key(lab.f, lab.Point(3)) for _ in range(20))

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert len(found) == 1


# -- packages ----------------------------------------------------------------------------------------------


def _installed(place: Path, name: str, version: str, files: dict[str, str], top_level: bool = False) -> Path:
    site = place / "site-packages"
    record = "".join(f"{path},,\n" for path in files)
    info = {"METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n", "RECORD": record}
    if top_level:
        info["top_level.txt"] = "\n".join({path.partition("/")[0].removesuffix(".py") for path in files})
    _write(site, {**files, **{f"{name}-{version}.dist-info/{path}": text for path, text in info.items()}})
    return site


PACKAGE = "def tool(x): return x + 1\nDATA = [1]\nclass Tool:\n    def go(self): return 1\n"
USES = """
import pack_of_tools as tools
from pack_of_tools import tool, Tool, DATA
def f(x): return tool(x), tools.tool(x), Tool().go(), tools.DATA
def g(x):
    from pack_of_tools import tool
    return tool(x)
"""


@pytest.mark.parametrize("top_level", [False, True])
@pytest.mark.parametrize("file", ["pack_of_tools.py", "pack_of_tools/__init__.py"])
def test_installed_packages_count_by_version(tmp_path: Path, modules: Any, file: str, top_level: bool) -> None:
    """The name under which it is imported is not its own, as that of PyYAML."""

    def keys(place: str, version: str, source: str, uses: str = USES) -> tuple[str, str]:
        site = _installed(tmp_path / place, "Py-Pack", version, {file: source}, top_level)
        modules(site, "pack_of_tools")
        spec = importlib.util.spec_from_file_location("uses", _write(tmp_path / place, {"uses.py": uses}) / "uses.py")
        assert spec is not None
        assert spec.loader is not None
        uses_module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(uses_module)
        return key(uses_module.f), key(uses_module.g)

    first = keys("1", "1.0", PACKAGE)
    assert keys("2", "1.0", PACKAGE.replace("x + 1", "x + 2").replace("return 1", "return 2")) == first
    assert all(a != b for a, b in zip(keys("3", "1.1", PACKAGE), first, strict=True))


@pytest.mark.parametrize("name", ["pack_of_tools", "Pack.Of_Tools"])
def test_a_package_is_found_by_its_name(tmp_path: Path, modules: Any, name: str) -> None:
    site = _installed(tmp_path, name, "1.0rc2+local", {"pack_of_tools.py": PACKAGE})
    assert owner(modules(site, "pack_of_tools").__name__) == ("pack_of_tools", "1.0rc2+local")


def test_whose_a_module_is_needs_no_large_module(tmp_path: Path) -> None:
    """The first hit of a process has to be quick."""
    site = _installed(tmp_path, "pack_of_tools", "1.0", {"pack_of_tools.py": PACKAGE})
    _write(tmp_path, {"uses.py": USES})
    script = f"""
        import sys
        sys.path[:0] = [{str(tmp_path)!r}, {str(site)!r}]
        import uses
        from callyard.hashing.call_key import call_key
        found = call_key(uses.f, (1,), {{}}).ingredients()
        assert found["package pack_of_tools"].endswith(" 1.0"), found
        print(*{{"importlib.metadata", "hashlib", "sysconfig", "email"}} & set(sys.modules))
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=True)
    assert done.stdout == "\n"


def test_packages_that_are_not_installed_are_the_users(tmp_path: Path, modules: Any) -> None:
    uses = "import pack_of_tools\ndef f(x): return pack_of_tools.tool(x)\n"
    keys = []
    for number in (1, 2):  # an editable install: the source elsewhere on the path, the record in site-packages
        place = _write(
            tmp_path / str(number), {"src/pack_of_tools.py": PACKAGE.replace("+ 1", f"+ {number}"), "src/uses.py": uses}
        )
        _installed(place, "pack_of_tools", "1.0", {"__editable__.pack_of_tools.pth": "", "_editable_impl.py": ""})
        _write(
            place / "src",
            {"pack_of_tools.egg-info/PKG-INFO": "Metadata-Version: 2.1\nName: pack_of_tools\nVersion: 1.0\n"},
        )
        keys.append(key(modules(place / "src", "uses").f))
    assert keys[0] != keys[1]


def test_a_file_in_site_packages_that_no_package_owns_is_the_users(tmp_path: Path, modules: Any) -> None:
    keys = []
    for number in (1, 2):
        site = _installed(tmp_path / str(number), "other", "1.0", {"other.py": ""})
        _write(site, {"loose.py": f"def f(x): return {number}\n"})
        keys.append(key(modules(site, "loose").f))
    assert keys[0] != keys[1]


def test_namespace_packages(tmp_path: Path, modules: Any) -> None:
    site = _installed(tmp_path, "space-part", "1.0", {"space_of/part.py": "def tool(x): return 1\n"})
    mine = _write(tmp_path / "mine", {"space_of/mine.py": "def f(x): return 1\n"})
    sys.path.append(str(mine))
    modules(site, "space_of.part")
    sys.path.append(str(mine))
    importlib.import_module("space_of.mine")
    assert owner("space_of.part") == ("space_of", "space-part 1.0")
    assert owner("space_of.mine") is None
    assert owner("space_of.mine.deeper") is None


@pytest.mark.parametrize(
    "uses",
    [
        "import space_of.mine\ndef f(x): return space_of.mine.tool(x)\n",
        "def f(x):\n    import space_of.mine\n    return space_of.mine.tool(x)\n",
        "def f(x):\n    import space_of.mine as mine\n    return mine.tool(x)\n",
        "def f(x):\n    from space_of.mine import tool\n    return tool(x)\n",
        "def f(x):\n    from space_of import mine\n    return mine.tool(x)\n",
    ],
)
def test_the_users_part_of_an_installed_namespace_counts(tmp_path: Path, modules: Any, uses: str) -> None:
    def keys(place: str, number: int, version: str) -> list[str]:
        site = _installed(tmp_path / place, "space-part", version, {"space_of/part.py": "def tool(x): return 1\n"})
        mine = _write(tmp_path / place, {"space_of/mine.py": f"def tool(x): return {number}\n", "uses.py": uses})
        sys.path.append(str(mine))
        modules(site, "space_of")
        sys.path.append(str(mine))
        lab = importlib.import_module("uses")
        before = key(lab.f, 1)
        assert lab.f(1) == number
        return [before, key(lab.f, 1)]

    first = keys("1", 1, "1.0")
    assert {*first, *keys("2", 1, "1.0")} == {first[0]}
    assert first[0] not in keys("3", 2, "1.0")


@pytest.mark.parametrize("from_", ["space_of.deep.pack.part", "space_of.deep", "space_of.deep.pack"])
def test_nothing_of_an_installed_namespace_is_imported_for_a_key(tmp_path: Path, modules: Any, from_: str) -> None:
    files = {f"space_of/deep/pack/{name}.py": "raise SystemExit\n" for name in ("__init__", "part")}
    uses = f"def f(x):\n    from {from_} import part\n    return part(x)\n"
    keys = []
    for version in ("1.0", "1.0", "2.0"):
        site = _installed(tmp_path / version, "space-part", version, files)
        lab = modules(_write(tmp_path / version / "uses", {"uses.py": uses}), "uses")
        sys.path.append(str(site))
        keys.append(key(lab.f))
        assert not [name for name in sys.modules if name.startswith("space_of")]
    assert keys[0] == keys[1] != keys[2]


@pytest.mark.parametrize("finds", [False, True])
def test_the_users_part_deep_in_a_namespace_counts(
    tmp_path: Path, modules: Any, finds: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Finder:  # as editable installs have
        @staticmethod
        def find_spec(name: str, path: Any = None, target: Any = None) -> Any:
            return PathFinder.find_spec(name, [str(mine / "space_of/deep")]) if name == "space_of.deep.mine" else None

    keys = []
    for number in (1, 2):
        place = tmp_path / str(number)
        site = _installed(place, "space-part", "1.0", {"space_of/deep/part.py": "def tool(x): return 1\n"})
        uses = "def f(x):\n    from space_of.deep.mine import tool\n    return tool(x)\n"
        mine = _write(place / "mine", {"space_of/deep/mine.py": f"def tool(x): return {number}\n"})
        _write(place / "uses", {"uses.py": uses})
        if finds:
            monkeypatch.setattr(sys, "meta_path", [*sys.meta_path, Finder])
        lab = modules(place / "uses", "uses")
        sys.path += [str(site), *([] if finds else [str(mine)])]
        keys.append(key(lab.f))
    assert keys[0] != keys[1]


def test_a_module_of_the_users_with_a_name_of_the_standard_library(tmp_path: Path, modules: Any) -> None:
    shadowed = sys.modules.pop("this", None)
    try:
        keys = []
        for number in (1, 2):
            place = _write(tmp_path / str(number), {"this.py": f"def f(x): return {number}\n"})
            keys.append(key(modules(place, "this").f))
        assert keys[0] != keys[1]
    finally:
        sys.modules.pop("this", None)
        if shadowed is not None:
            sys.modules["this"] = shadowed


DECORATES = """
import functools
STATE = {"calls": 0}
def decorate(function):
    @functools.wraps(function)
    def wrapper(*args):
        STATE["calls"] += 1
        return function(*args)
    return wrapper
class Keeper:
    def __init__(self, function): self.function = function
    def __call__(self, x): return self.function(x)
"""


def test_decorators_of_a_package_lead_to_the_users_function(tmp_path: Path, modules: Any) -> None:
    uses = """
    from pack_of_decorators import decorate, Keeper
    @decorate
    def f(x): return x + 1
    @Keeper
    def g(x): return x + 1
    """

    def keys(place: str, version: str, uses: str) -> tuple[str, str]:
        site = _installed(tmp_path / place, "pack_of_decorators", version, {"pack_of_decorators.py": DECORATES})
        mine = _write(tmp_path / place / "mine", {"uses_it.py": uses})
        modules(site, "pack_of_decorators")
        sys.path.insert(0, str(mine))
        found = importlib.import_module("uses_it")
        before = key(found.f, 1), key(found.g, 1)
        found.f(1)
        assert (key(found.f, 1), key(found.g, 1)) == before, "what the package keeps is its own"
        return before

    first = keys("1", "1.0", uses)
    for other in (keys("2", "1.0", uses.replace("x + 1", "x + 2")), keys("3", "2.0", uses)):
        assert all(a != b for a, b in zip(other, first, strict=True))


def test_compiled_modules_of_the_user_count_by_content(tmp_path: Path, modules: Any) -> None:
    directory = Path(sysconfig.get_path("stdlib")) / "lib-dynload"
    found = next(iter(sorted(directory.glob("_heapq*.so"))), None)
    if found is None:
        pytest.skip("needs an extension module of the standard library in a file of its own")
    uses = "import sub_of_mine._heapq as heap\nfrom sub_of_mine._heapq import heappop\n"
    uses += "def f(x): return heap.heappush\ndef g(x): return heappop\n"
    keys = []
    for number in (1, 2):
        place = _write(tmp_path / str(number), {"sub_of_mine/__init__.py": "", "uses_heap.py": uses})
        copy = place / "sub_of_mine" / found.name
        shutil.copy(found, copy)
        with open(copy, "ab") as file:
            file.write(b"\0" * (number - 1))
        module = modules(place, "uses_heap")
        keys.append((key(module.f), key(module.g)))
    assert keys[0][0] != keys[1][0]
    assert keys[0][1] != keys[1][1]


def test_modules_that_cannot_be_imported_here_count_by_their_file(tmp_path: Path, modules: Any) -> None:
    uses = "def f(x):\n    import needs_a_gpu\n    return needs_a_gpu.run(x)\n"
    keys = []
    for number in (1, 2):
        broken = f"raise RuntimeError('no device')\ndef run(x): return {number}\n"
        place = _write(tmp_path / str(number), {"uses_gpu.py": uses, "needs_a_gpu.py": broken})
        keys.append(key(modules(place, "uses_gpu").f))
        assert "needs_a_gpu" not in sys.modules
    assert keys[0] != keys[1]
