"""What the tests of this machine's own workers share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from gate import Gate

from callyard import Executor


@pytest.fixture
def make(gate: Gate) -> Iterator[Callable[..., Executor]]:
    """Make executors that end with the test."""
    with ExitStack() as stack:

        def create(*args: Any, **options: Any) -> Executor:
            return stack.enter_context(Executor(*args, **options))

        yield create
        gate.open(1000)  # so that a failed test does not hang


@pytest.fixture
def ex(make: Callable[..., Executor]) -> Executor:
    return make(2)
