"""The steps to another computer, each with what to do where it fails; then the facts about that computer."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from ..backends.gateway.connection import Connection
from ..backends.ssh import SSH
from ..errors import CallyardError
from ..executor import Executor

__all__ = ["Step", "steps"]


class Step(NamedTuple):
    """A step on the way: its name, a value (None if it failed), an explanation, and advice."""

    name: str
    value: object
    how: str = ""
    advice: str = ""


def steps(
    host: SSH, backend: Callable[[SSH], object], about: Callable[[], Sequence[tuple[Any, ...]]]
) -> Iterator[Step | tuple[Any, ...]]:
    """Yield the steps to a host as they are taken, up to the first that fails, and then the facts there.

    Args:
        host: the other computer.
        backend: makes the backend for a call there.
        about: the function of that call, which returns the facts.
    """
    begun = time.monotonic()
    try:
        connection = Connection(host._address())
    except CallyardError as error:
        yield Step("connection", None, " ".join(host._address().command), str(error))
        return
    said = connection.hello
    connection.close(0.0)
    yield Step("connection", f"{time.monotonic() - begun:.1f} s", "to log in, and to start the interpreter there")
    yield Step("interpreter", said.python, said.executable)
    try:
        with Executor(backend=backend(host)) as executor:
            begun = time.monotonic()
            where, *facts = executor.submit(_there, about).result()
            yield Step("a call", f"{time.monotonic() - begun:.1f} s", "with a new gateway and a new worker")
    except CallyardError as error:
        yield Step("a call", None, "", str(error))
        return
    yield Step("directory", where, "where calls begin; results are in .callyard there")
    yield from facts


def _there(about: Callable[[], Sequence[tuple[Any, ...]]]) -> list[Any]:
    return [os.getcwd(), *about()]
