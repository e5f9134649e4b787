"""Functions from everywhere: scripts, modules that cannot be imported, notebooks; and what changes after the start."""

from __future__ import annotations

import functools
import importlib.util
import operator
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from callyard import Executor, ResourceError

Make = Callable[..., Executor]
offset = 100


def add_offset(value: int) -> int:
    return value + offset


class Counter:
    def __init__(self, start: int) -> None:
        self.start = start

    def up(self, by: int) -> int:
        return self.start + by

    def __call__(self, by: int) -> int:
        return self.start * by

    @classmethod
    def made(cls, start: int) -> int:
        return cls(start).start

    @staticmethod
    def twice(value: int) -> int:
        return 2 * value


def make_closure(base: int) -> Callable[[int], int]:
    def add(value: int) -> int:
        return base + value

    return add


FUNCTIONS: dict[str, tuple[Callable[..., Any], tuple[Any, ...], Any]] = {
    "builtin": (abs, (-3,), 3),
    "of a C module": (operator.add, (1, 2), 3),
    "of a test module": (add_offset, (1,), 101),
    "lambda": (lambda x: x + offset, (2,), 102),
    "closure": (make_closure(10), (1,), 11),
    "method": (Counter(5).up, (1,), 6),
    "method of a builtin": ("{}-{}".format, (1, 2), "1-2"),
    "class method": (Counter.made, (4,), 4),
    "static method": (Counter.twice, (4,), 8),
    "unbound method": (Counter.up, (Counter(1), 2), 3),
    "callable instance": (Counter(5), (2,), 10),
    "class": (complex, (1, 2), 1 + 2j),
    "partial": (functools.partial(pow, 2), (5,), 32),
    "partial of a closure": (functools.partial(make_closure(1), 2), (), 3),
    "cached": (functools.lru_cache(add_offset), (3,), 103),
}


@pytest.mark.parametrize("kind", FUNCTIONS)
def test_functions_of_every_kind(ex: Executor, kind: str) -> None:
    function, args, expected = FUNCTIONS[kind]
    assert ex.submit(function, *args).result() == expected
    assert [*ex.map(lambda *more: function(*more), *([a, a] for a in args))] == [expected] * (2 if args else 0)


def test_a_class_of_a_test_module(ex: Executor) -> None:
    counter = ex.submit(Counter, 3).result()
    assert type(counter) is Counter
    assert counter.start == 3


def test_recursion(ex: Executor) -> None:
    def factorial(n: int) -> int:
        return n * factorial(n - 1) if n else 1

    assert ex.submit(factorial, 10).result() == 3628800


def test_functions_that_call_each_other(ex: Executor) -> None:
    assert ex.submit(lambda: add_offset(Counter(1).up(1))).result() == 102


SHARING = """
MISSING = object()
table = {"a": [1]}
rows = table["a"]

class Reader:
    table = table
    def read(self, default=MISSING):
        return self.table["a"] is rows, default is MISSING

read = Reader().read

def meets(argument, *more):
    argument.append(2)
    return (*read(), argument is rows, table["a"] is argument, *(item is MISSING for item in more))

def look():
    return rows
"""


def test_what_a_call_reaches_in_several_ways_is_one_object(make: Make) -> None:
    n: dict[str, Any] = {"__name__": "cells"}
    exec(SHARING, n)
    ex = make(max_workers=1)
    for _ in range(3):
        assert ex.submit(n["read"]).result() == (True, True)
        assert ex.submit(n["read"], n["MISSING"]).result() == (True, True)
        assert ex.submit(n["meets"], n["rows"], n["MISSING"], None).result() == (*[True] * 5, False)
        assert ex.submit(n["look"]).result() == [1]
        assert list(ex.map(n["meets"], [n["rows"]])) == [(True, True, True, True)]
    assert n["rows"] == [1]


def _load(path: Path, name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_module_that_cannot_be_imported_there(ex: Executor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "elsewhere_module.py"
    path.write_text("def helper(x):\n    return x * 3\n\ndef triple(x):\n    return helper(x)\n")
    module = _load(path, "elsewhere_module")
    monkeypatch.setitem(sys.modules, "elsewhere_module", module)
    assert ex.submit(module.triple, 5).result() == 15


def test_sys_path_changed_after_the_start(ex: Executor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ex.submit(abs, 1).result()
    (tmp_path / "late_module.py").write_text("import late_helper\n\ndef where():\n    return late_helper.__name__\n")
    (tmp_path / "late_helper.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    import late_module  # type: ignore[import-not-found]

    assert ex.submit(late_module.where).result() == "late_helper"
    monkeypatch.delitem(sys.modules, "late_module")
    monkeypatch.delitem(sys.modules, "late_helper")


def test_a_changed_directory(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ex = make(1)
    before = ex.submit(os.getcwd).result()
    monkeypatch.chdir(tmp_path)
    assert before != str(tmp_path)
    assert ex.submit(abs, -1).result() == 1
    assert make(1).submit(os.getcwd).result() == str(tmp_path)


def test_an_executor_in_a_call(ex: Executor) -> None:
    def inner() -> list[int]:
        with Executor(1) as mine:
            return list(mine.map(abs, [-1, -2]))

    assert ex.submit(inner).result() == [1, 2]


def test_a_module_that_makes_calls_while_it_is_imported(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = """
    from callyard import Executor
    class Box:
        def __init__(self, value): self.value = value
    def box(value): return Box(value * offset)
    offset = 10
    with Executor(max_workers=1) as ex:
        first = ex.submit(box, 1).result()
        assert type(first) is Box and first.value == 10
    """
    (tmp_path / "unguarded_calls.py").write_text(textwrap.dedent(text))
    monkeypatch.syspath_prepend(str(tmp_path))
    module = importlib.import_module("unguarded_calls")
    monkeypatch.setitem(sys.modules, "unguarded_calls", module)
    again = make(1).submit(module.box, 2).result()  # complete by now: the worker imports it, which makes the call there
    assert type(again) is module.Box
    assert again.value == 20


def test_executors_are_not_nested_without_end(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CALLYARD_NESTED", "9")

    def inner() -> str:
        try:
            Executor(max_workers=1)
        except ResourceError as error:
            return str(error)
        return "made"

    assert "nested 10 deep" in make(1).submit(inner).result()


def test_a_call_that_forks(ex: Executor) -> None:
    def fork() -> int:
        pid = os.fork()
        if pid == 0:
            os._exit(7)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    assert ex.submit(fork).result() == 7


def test_a_call_that_starts_programs(ex: Executor) -> None:
    assert ex.submit(subprocess.check_output, ["echo", "hello"]).result() == b"hello\n"


def test_recursion_limit_and_deep_arguments(ex: Executor) -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    error = ex.submit(len, deep).exception()
    assert isinstance(error, RecursionError) or "recursion" in str(error)
    assert ex.submit(abs, -1).result() == 1
    while deep:  # by hand: the interpreter would take it apart recursively
        deep = deep.pop()


# ------------------------------------------------------------------ scripts


def run_script(directory: Path, text: str, *args: str, **options: Any) -> subprocess.CompletedProcess[str]:
    script = directory / "script.py"
    script.write_text(textwrap.dedent(text))
    return subprocess.run(
        [sys.executable, "-W", "error", str(script), *args],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=directory,
        **options,
    )


SCRIPT = """
    import sys
    from dataclasses import dataclass
    from callyard import Executor

    factor = int(sys.argv[1])

    @dataclass
    class Point:
        x: int

    def scaled(point):
        return Point(helper(point.x))

    def helper(x):
        return x * factor

    with Executor(2) as ex:
        first = ex.submit(scaled, Point(1))
        second = ex.submit(scaled, first)
        print(second.result(), type(second.result()) is Point, list(ex.map(lambda x: helper(x) + 1, [1, 2])))
"""


def test_a_script_needs_no_guard(tmp_path: Path) -> None:
    done = run_script(tmp_path, SCRIPT, "3")
    assert (done.stdout, done.stderr) == ("Point(x=9) True [4, 7]\n", "")


def test_the_interpreter_waits_for_calls(tmp_path: Path) -> None:
    done = run_script(
        tmp_path,
        """
        from callyard import Executor

        def write(text):
            with open("out", "a") as file:
                file.write(text)
            return text

        ex = Executor(1)
        future = ex.submit(write, "first ")
        ex.submit(lambda text: write("after " + text), future)
        """,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "out").read_text() == "first after first "


def test_an_error_ends_a_script_readably(tmp_path: Path) -> None:
    done = run_script(
        tmp_path,
        """
        from callyard import Executor

        def fail(x):
            return 1 / x

        with Executor(1) as ex:
            ex.submit(abs, ex.submit(fail, 0)).result()
        """,
    )
    assert done.returncode == 1
    assert "in fail" in done.stderr
    assert "return 1 / x" in done.stderr
    assert "ZeroDivisionError: division by zero" in done.stderr
    if sys.version_info >= (3, 11):  # notes are shown from there on
        assert "callyard: abs <- fail" in done.stderr
    assert "callyard/worker" not in done.stderr


def test_text_on_stdin(tmp_path: Path) -> None:
    text = "from callyard import Executor\ndef f(x): return x + 1\nprint(Executor(1).submit(f, 1).result())\n"
    done = subprocess.run([sys.executable, "-"], input=text, capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.stderr) == ("2\n", "")


# ------------------------------------------------------------------ a notebook


CELLS = [
    """
    import os
    from callyard import Executor

    rate = 2
    cache = {}

    def helper(x):
        return x * rate

    def work(x):
        return helper(x)

    ex = Executor(2, progress=True)
    ex.submit(work, 1).result()
    """,
    "rate = 3\nex.submit(work, 1).result()",
    "def helper(x):\n    return -x * rate\nex.submit(work, 1).result()",
    """
    cache["a"] = 1
    def look(): return dict(cache)
    before = ex.submit(look).result()
    cache["b"] = 2
    (before, ex.submit(look).result())
    """,
    "class Thing:\n    def __init__(self, v): self.v = v\nt = ex.submit(Thing, 4).result()\n(type(t) is Thing, t.v)",
    """
    import signal, threading, time
    def hold():
        open("holding", "w").close()
        time.sleep(600)
    def interrupt():
        while not os.path.exists("holding"):
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)
    running = ex.submit(hold, resource_dict={"run_time": 20})
    watcher = threading.Thread(target=interrupt)
    watcher.start()
    try:
        running.result()
    except KeyboardInterrupt:
        print("interrupted")
    watcher.join()
    """,
    "ex.submit(work, 2).result()",
    "ex.kill_workers()\nex.shutdown()\ntype(running.exception()).__name__",
    """
    async def main():
        import asyncio
        with Executor(1) as two:
            return await asyncio.wrap_future(two.submit(work, 5))
    await main()
    """,
    """
    def fail(x):
        return 1 / x
    with Executor(1) as three:
        error = three.submit(fail, 0).exception()
    'return 1 / x' in str(error.__cause__)
    """,
]
OUTPUTS = [
    "2",
    "3",
    "-3",
    "({'a': 1}, {'a': 1, 'b': 2})",
    "(True, 4)",
    "interrupted\n",
    "-6",
    "'WorkerLost'",
    "-15",
    "True",
]


@pytest.mark.wide
@pytest.mark.needs("nbclient", "ipykernel")
@pytest.mark.filterwarnings("ignore")  # of libraries that are not ours
@pytest.mark.leaves("the client of the notebook keeps threads and sockets of its own")
def test_a_notebook(tmp_path: Path) -> None:
    import nbclient
    import nbformat

    cells = [textwrap.dedent(cell).strip() for cell in CELLS]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    nbclient.NotebookClient(notebook, timeout=60, resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert [_shown(cell) for cell in notebook.cells] == OUTPUTS


def _shown(cell: Any) -> str:
    for output in cell.outputs:
        if output.output_type == "execute_result":
            return str(output.data["text/plain"])
    return "".join(o.text for o in cell.outputs if o.output_type == "stream" and o.name == "stdout")
