"""A request: a call as it arrives in a worker, where it is more than plain arguments."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from typing import Any

from ..serialize.packer import Packed, load_with_inputs


class Request:
    """The packed arguments, the results of other calls that go among them, and the options of the call."""

    __slots__ = ("_arguments", "_inputs", "options")

    def __init__(self, arguments: Packed, inputs: list[Packed], options: dict[str, Any]) -> None:
        self._arguments, self._inputs, self.options = arguments, inputs, options

    @classmethod
    def read(cls, body: bytes, undescribe: Callable[[Sequence[Any]], list[Packed]]) -> Request:
        """Read the body of its frame; `undescribe` finds what came as descriptors beside it."""
        options, *described = pickle.loads(body)
        arguments, *inputs = undescribe(described)
        return cls(arguments, inputs, options)

    def copy(self) -> Request:
        """Return another that can be opened after this one."""
        return Request(self._arguments, list(self._inputs), self.options)

    def load(self) -> Any:
        """Return the arguments, or the function and its arguments, once: after this nothing is kept alive here."""
        arguments, inputs = self._arguments, self._inputs
        self._arguments, self._inputs = Packed(b""), []
        return load_with_inputs(arguments, [packed.load() for packed in inputs])
