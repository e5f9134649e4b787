"""A request: a call as it arrives in a worker, where it is more than plain arguments."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from typing import Any

from ..serialize.packer import Packed, load_with_inputs
from .current_call import AGAIN


class Request:
    """The packed arguments, the results of other calls that go among them, and the options of the call."""

    __slots__ = ("_again", "_arguments", "_inputs", "options")

    def __init__(
        self, arguments: Packed, inputs: list[Packed], options: dict[str, Any], again: Packed | None = None
    ) -> None:
        """`again`: the arguments with which the call runs in the place of its own, because it has raised `Again`."""
        self._arguments, self._inputs, self.options, self._again = arguments, inputs, options, again

    @classmethod
    def read(cls, body: bytes, undescribe: Callable[[Sequence[Any]], list[Packed]]) -> Request:
        """Read the body of its frame; `undescribe` finds what came as descriptors beside it."""
        options, *described = pickle.loads(body)
        arguments, *inputs = undescribe(described)
        return cls(arguments, inputs, options, inputs.pop() if options.get(AGAIN) else None)

    def original(self) -> Request:
        """Return another that can be opened after this one, with the arguments that the call had at first."""
        return Request(self._arguments, list(self._inputs), self.options)

    def load(self, function: Callable[[], Any] | None = None) -> Any:
        """Return the function and its arguments, once: after this nothing is kept alive here.

        `function` gives it where it did not come with the arguments.
        """
        arguments, inputs, again = self._arguments, self._inputs, self._again
        self._arguments, self._inputs, self._again = Packed(b""), [], None
        if function is not None:
            given = load_with_inputs(arguments, [packed.load() for packed in inputs]) if again is None else again.load()
            return function(), *given
        loaded = load_with_inputs(arguments, [packed.load() for packed in inputs])
        return loaded if again is None else (*loaded[:-2], *again.load())
