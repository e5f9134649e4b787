"""The layers: folders import downwards only, no modules import each other, and public names are what they say.

Imports inside functions and for type checkers count like all others: a reader has to follow those too. So do modules
that are named by strings.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import callyard

SOURCE = Path(callyard.__file__).parent

# From the ground up: each may import what stands before it, and other modules of its own folder.
LAYERS = [
    "version",
    "utils",
    "errors",
    "events",
    "display",
    "status",
    "system",
    "resource_values",
    "resources",
    "futures",
    "argument_checks",
    "dependencies",
    "recording",
    "serialize",
    "transport",
    "hashing",
    "cache",
    "schedulers",
    "hosts",
    "jobs",
    "result_cache",
    "worker",
    "pool",
    "daemon",
    "cluster",
    "backends",
    "report",
    "running_executor",
    "executor",
    "testing",
    "cli",
]


# Files of one name in several folders, and the one meaning that they have there.
ONE_MEANING = {
    "__init__.py": "the package",
    "answers.py": "the readers of what a scheduler's commands print",
    "backend.py": "the backend of this folder",
    "base.py": "the interface that the modules of this folder implement",
    "call.py": "a call, with what this folder has to know of it",
    "explain.py": "why a call is answered from the cache or not: the command, and the work behind it",
    "graph.py": "the graph of a run's calls: the command, and the work behind it",
    "refusals.py": "the reasons why a scheduler did not carry out a command, from its words",
    "registry.py": "the implementations of the interface in base.py, ours and those of other packages, by name",
    "scheduler.py": "a scheduler, made of the other modules of its folder",
    "states.py": "the states of a scheduler's jobs and their meaning",
    "submit.py": "the submission of a job, as a scheduler's words",
    "variables.py": "the variables of a scheduler's jobs",
}


def _name(path: Path) -> str:
    """Return the name of a module below `callyard`; that of a package is its folder's, and "" the top's."""
    return ".".join(path.relative_to(SOURCE).with_suffix("").parts).removesuffix("__init__").removesuffix(".")


MODULES = {_name(path): path for path in sorted(SOURCE.rglob("*.py"))}


def _imports(module: str) -> Iterator[str]:
    """Yield each module that this one imports: at its top, in a function, or only for type checkers."""
    path = MODULES[module]
    package = path.relative_to(SOURCE).parts[:-1]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = [*package[: len(package) - node.level + 1], *(node.module.split(".") if node.module else ())]
            for alias in node.names:
                whole = ".".join([*base, alias.name])
                yield whole if whole in MODULES else ".".join(base)


_NAMED = re.compile(r"\bcallyard((?:\.\w+)+)")
# The present names of modules that pickles of earlier versions name, and the program that is started on need.
_NAMES_ABOVE = {"cache.format.unpickle", "hosts.daemon"}


def _named(module: str) -> Iterator[str]:
    """Yield each module of ours that a string names, other than a docstring: for `import_module`, or a new process."""
    tree = ast.parse(MODULES[module].read_text())
    bodies = (node.body for node in ast.walk(tree) if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)))
    docstrings = {id(body[0].value) for body in bodies if body and isinstance(body[0], ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, (str, bytes)) and id(node) not in docstrings:
            text = node.value if isinstance(node.value, str) else node.value.decode("latin-1")
            for found in _NAMED.findall(text):
                parts = found[1:].split(".")
                names = (".".join(parts[:count]) for count in range(len(parts), 0, -1))
                yield from [name for name in names if name in MODULES][:1]


GRAPH = {module: set(_imports(module)) for module in MODULES}


def _layer(module: str) -> int:
    """Return the place of a module in LAYERS; the package itself and its `__main__` stand above all."""
    folder = module.partition(".")[0]
    return len(LAYERS) if folder in ("", "__main__") else LAYERS.index(folder)


def _cycles(graph: dict[str, set[str]]) -> list[set[str]]:
    """Return the sets of modules that import each other, directly or through others (Tarjan's algorithm)."""
    number: dict[str, int] = {}
    lowest: dict[str, int] = {}  # the smallest number that can be reached over modules that are still on the stack
    stack: list[str] = []
    cycles = []

    def visit(module: str) -> None:
        number[module] = lowest[module] = len(number)
        stack.append(module)
        for other in graph[module]:
            if other not in number:
                visit(other)
            if other in stack:
                lowest[module] = min(lowest[module], lowest[other])
        if lowest[module] == number[module]:
            start = stack.index(module)
            component = {stack.pop() for _ in stack[start:]}
            if len(component) > 1 or module in graph[module]:
                cycles.append(component)

    for module in graph:
        if module not in number:
            visit(module)
    return cycles


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_down(module: str) -> None:
    above = {other for other in GRAPH[module] if _layer(other) > _layer(module)}
    assert not above, f"{module} imports what stands above it"
    named = {other for other in _named(module) if _layer(other) > _layer(module) and module not in _NAMES_ABOVE}
    assert not named, f"{module} names what stands above it, as for an import by a string"


def test_imports_by_strings_are_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    text = '"""Of callyard.cli."""\nimport_module("callyard.jobs.spool"), b"import callyard.worker.job; main()"\n'
    (tmp_path / "module.py").write_text(text + 'getLogger("callyard.nothing"), "callyard.executor:Executor"\n')
    monkeypatch.setitem(MODULES, "errors", tmp_path / "module.py")
    assert sorted(_named("errors")) == ["executor", "jobs.spool", "worker.job"]


def test_every_import_is_of_a_module_that_is_there() -> None:
    missing = {module: GRAPH[module] - MODULES.keys() for module in MODULES if GRAPH[module] - MODULES.keys()}
    assert not missing


def test_no_modules_import_each_other() -> None:
    found = _cycles(GRAPH)
    assert not list(map(sorted, found))


def test_cycles_are_found() -> None:
    graph = {"a": {"b"}, "b": {"c", "d"}, "c": {"a"}, "d": {"e"}, "e": {"d"}, "f": {"a", "f"}, "g": {"f"}}
    assert sorted(map(sorted, _cycles(graph))) == [["a", "b", "c"], ["d", "e"], ["f"]]


def test_one_file_name_has_one_meaning() -> None:
    folders: dict[str, list[str]] = {}
    for path in MODULES.values():
        folders.setdefault(path.name, []).append(str(path.parent.relative_to(SOURCE)))
    several = {name: where for name, where in folders.items() if len(where) > 1}
    assert not {name: where for name, where in several.items() if name not in ONE_MEANING}
    assert not ONE_MEANING.keys() - several.keys(), "take these out of ONE_MEANING"


@pytest.mark.parametrize("module", MODULES)
def test_our_own_modules_are_imported_relatively(module: str) -> None:
    for node in ast.walk(ast.parse(MODULES[module].read_text())):
        if isinstance(node, ast.ImportFrom) and node.level == 0:
            assert (node.module or "").partition(".")[0] != "callyard"
        if isinstance(node, ast.Import):
            assert all(alias.name.partition(".")[0] != "callyard" for alias in node.names)


def test_public_names() -> None:
    assert sorted(callyard.__all__) == callyard.__all__
    assert set(callyard.__all__) <= set(dir(callyard))
    for name in callyard.__all__:
        assert getattr(callyard, name).__module__.startswith("callyard")
    with pytest.raises(AttributeError, match="no attribute 'Executer'"):
        callyard.Executer  # noqa: B018


def test_importing_callyard_loads_no_optional_library() -> None:
    optional = {"numpy", "IPython", "mpi4py", "matplotlib", "h5py", "cryptography", "pandas", "psutil", "jinja2"}
    code = "import sys; from callyard import *; print(*{m.partition('.')[0] for m in sys.modules})"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert "callyard" in loaded
    assert not optional & set(loaded)
