"""A worker of the simplest kind: reads calls from a pipe, calls, writes what came out. And its other end."""

from __future__ import annotations

import pickle
import struct
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

from callyard.serialize.function_registry import FunctionRegistry, dumps


def _write(file: BinaryIO, data: bytes) -> None:
    file.write(struct.pack("<Q", len(data)) + data)
    file.flush()


def _read(file: BinaryIO) -> bytes | None:
    head = file.read(8)
    return file.read(struct.unpack("<Q", head)[0]) if head else None


class Worker:
    """Another process, which has this one's `sys.path`."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-u", str(Path(__file__))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={"PYTHONPATH": ":".join(path for path in sys.path if path)},
        )
        self.functions = FunctionRegistry()
        self._defined: set[int] = set()

    def call(self, function: Callable[..., Any], *args: Any) -> Any:
        """Send the function along with its arguments."""
        return self.load(dumps((function, args)))

    def load(self, data: bytes) -> Any:
        return self._ask("call", data)

    def defined(self, function: Callable[..., Any], *args: Any) -> Any:
        """Define the function once, and call it."""
        definition = self.functions.definition(function) or self.functions.definition(function)
        assert definition is not None
        self.define(definition)
        return self.call_defined(definition.id, *args)

    def define(self, definition: Any) -> None:
        if definition.id not in self._defined:
            self._defined.add(definition.id)
            self._ask("define", definition.id, definition.data)

    def call_defined(self, number: int, *args: Any) -> Any:
        return self.apply_defined(number, dumps((args, {})))

    def apply_defined(self, number: int, arguments: bytes) -> Any:
        return self._ask("call defined", number, arguments)

    def _ask(self, *question: Any) -> Any:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        _write(self.process.stdin, pickle.dumps(question))
        answer = _read(self.process.stdout)
        assert answer is not None, "the worker has gone"
        worked, result = pickle.loads(answer)
        if not worked:
            raise RemoteError(result)
        return result

    def close(self) -> None:
        with self.process as process:
            assert process.stdin is not None
            process.stdin.close()


class RemoteError(Exception):
    """The call failed; this is the traceback there."""


def _serve(source: BinaryIO, sink: BinaryIO) -> None:
    from callyard.serialize.namespace_replica import LoadedFunction

    kept: dict[int, LoadedFunction] = {}
    while (data := _read(source)) is not None:
        try:
            what, *details = pickle.loads(data)
            if what == "define":
                kept[details[0]] = LoadedFunction(details[1])
                result: Any = None
            elif what == "call defined":
                args, kwargs = pickle.loads(details[1])
                result = kept[details[0]].current()(*args, **kwargs)
            else:
                function, args = pickle.loads(details[0])
                result = function(*args)
            answer = dumps((True, result), to_driver=True)
        except BaseException:
            answer = dumps((False, traceback.format_exc()), to_driver=True)
        _write(sink, answer)


if __name__ == "__main__":
    _serve(sys.stdin.buffer, sys.stdout.buffer)
