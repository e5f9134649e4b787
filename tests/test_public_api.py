"""Public names: what `dir()` shows of them, and that their docstrings are complete and their examples true."""

from __future__ import annotations

import doctest
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import callyard
from callyard import Cache, Executor, Future, Local, Resources, batched, item
from callyard.cache.entry import Entry

FUTURE = [
    "add_done_callback",
    "attempts",
    "cached",
    "cancel",
    "cancelled",
    "done",
    "exception",
    "explain",
    "job_id",
    "key",
    "name",
    "result",
]
FUTURE += ["running", "set_exception", "set_result", "set_running_or_notify_cancel"]
EXECUTOR = [
    *("batched", "graph", "kill_workers", "map", "plan", "report", "shutdown", "status", "submit"),
    "terminate_workers",
]
EXECUTOR += ["with_resources"]
RESOURCES = [*inspect.signature(Resources).parameters, "after", "asked", "attempts", "cores", "gpus", "updated"]


def shown(thing: object) -> list[str]:
    return [name for name in dir(thing) if not (name.startswith("__") and name.endswith("__"))]


def test_dir_of_the_package() -> None:
    assert shown(callyard) == callyard.__all__
    assert "__version__" in dir(callyard)


def test_dir_of_futures(tmp_path: Path) -> None:
    with Executor(backend=Local(cores=1), cache=tmp_path / "cache") as cached, Executor(backend=cached) as wrapping:
        call = cached.submit(divmod, 17, 5)
        for future in (Future[int](), call, item(call, 0), *batched([call], 1), wrapping.submit(abs, -1)):
            assert shown(future) == FUTURE


def test_dir_of_executors() -> None:
    with Executor(backend=Local(cores=1)) as ex:
        assert shown(ex) == shown(ex.with_resources(memory=1)) == EXECUTOR
        assert "__enter__" in dir(ex)  # a mock with this specification can stand in a with statement


def test_dir_of_descriptions() -> None:
    assert shown(Resources()) == sorted(RESOURCES)
    assert shown(Local()) == ["cores", "detached", "gpus", "host", "memory"]


# ------------------------------------------------------------------ docstrings


METHODS = {"Future": FUTURE, "Executor": EXECUTOR, "Resources": RESOURCES, "Cache": dir(Cache), "Entry": dir(Entry)}
NAMES = [*callyard.__all__, "Entry"]
DESCRIBED = ("Cache", "Executor", "Local", "Resources", "Slurm")


def public(name: str) -> Any:
    """Return a public object; an entry is what a cache returns, and has no name in the package."""
    return Entry if name == "Entry" else getattr(callyard, name)


def documented(name: str) -> Iterator[tuple[str, object]]:
    """Yield a public object and its public methods and properties."""
    thing = public(name)
    yield name, thing
    for method in METHODS.get(name, ()):
        found = getattr(vars(thing).get(method), "__func__", vars(thing).get(method))  # a static method's function
        if method.startswith("_"):
            continue
        if inspect.isfunction(found) or isinstance(found, property):
            yield f"{name}.{method}", found


@pytest.mark.parametrize("name", NAMES)
def test_docstrings_describe_each_parameter(name: str) -> None:
    for shown_as, thing in documented(name):
        text = inspect.getdoc(thing)
        assert text, shown_as
        if inspect.isfunction(thing) or shown_as in DESCRIBED:
            parameters = [] if isinstance(thing, property) else [*inspect.signature(thing).parameters]
            missing = [each for each in parameters if each != "self" and f"    {each}: " not in text.replace("*", "")]
            assert not missing, shown_as


@pytest.mark.parametrize("name", NAMES)
def test_examples_in_docstrings_are_true(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    thing = public(name)
    for test in doctest.DocTestFinder().find(thing, name, module=False, globs={}):
        if test.examples:
            cache = Cache("cache")  # with one call, for examples of looking in
            with Executor(backend=Local(cores=2), cache=cache if thing in (Cache, Entry) else None) as executor:
                if thing in (Cache, Entry):
                    executor.submit(divmod, 17, 5).result()
                test.globs.update({each: getattr(callyard, each) for each in callyard.__all__})
                test.globs.update(executor=executor, cache=cache)
                problems: list[str] = []
                doctest.DocTestRunner(verbose=False, optionflags=doctest.ELLIPSIS).run(test, out=problems.append)
            assert not problems, "".join(problems)


WITH_EXAMPLE = ["Executor", "Future", "Local", "Resources", "batched", "item", "unzip", "WorkerLost", "ResourceError"]
WITH_EXAMPLE += ["Cache", "Entry", "Slurm", "keyed"]


@pytest.mark.parametrize("name", [*WITH_EXAMPLE, *(name for name in EXECUTOR if not name.endswith("_workers"))])
def test_there_is_an_example(name: str) -> None:
    thing = getattr(Executor, name, None) or public(name)
    assert ">>>" in (inspect.getdoc(thing) or "")
