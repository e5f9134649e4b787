"""Workers to send functions to, and modules that these cannot import."""

from __future__ import annotations

import itertools
import sys
import textwrap
import types
from collections.abc import Callable, Iterator

import pytest
from echo import Worker

_number = itertools.count()


@pytest.fixture
def worker() -> Iterator[Worker]:
    """Start a worker."""
    started = Worker()
    yield started
    started.close()


@pytest.fixture(scope="module")
def shared() -> Iterator[Worker]:
    """Start a worker for tests that leave nothing in it."""
    started = Worker()
    yield started
    started.close()


@pytest.fixture
def notebook(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], types.ModuleType]:
    """Return a function that runs cells in one module, which no file has."""
    module = types.ModuleType(f"notebook_{next(_number)}")
    monkeypatch.setitem(sys.modules, module.__name__, module)

    def run(cell: str) -> types.ModuleType:
        exec(compile(textwrap.dedent(cell), "<cell>", "exec", dont_inherit=True), vars(module))
        return module

    return run
