"""A request: a call as it arrives in a worker, with more than plain arguments."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from typing import Any

from ..serialize.packer import Packed, load_with_inputs
from .current_call import AGAIN, MORE_MEMORY, Again


class Request:
    """The packed arguments, the results of other calls among them, and the options of the call."""

    __slots__ = ("_again", "_arguments", "_inputs", "options")

    def __init__(
        self, arguments: Packed, inputs: list[Packed], options: dict[str, Any], again: Packed | None = None
    ) -> None:
        """Make a request; `again` has the arguments of this run, if the call has raised `Again`."""
        self._arguments, self._inputs, self.options, self._again = arguments, inputs, options, again

    @classmethod
    def read(cls, body: bytes, undescribe: Callable[[Sequence[Any]], list[Packed]]) -> Request:
        """Read the body of a frame; `undescribe` finds the objects whose descriptors came beside the frame."""
        options, *described = pickle.loads(body)
        arguments, *inputs = undescribe(described)
        return cls(arguments, inputs, options, inputs.pop() if options.get(AGAIN) else None)

    @property
    def size(self) -> int:
        """The bytes of the packed arguments and inputs."""
        parts = (self._arguments, *self._inputs, *(() if self._again is None else (self._again,)))
        return sum(part.size for part in parts)

    def goes_on_after(self, error: BaseException) -> bool:
        """Return True if the call runs again after this error, so the error says nothing about the function."""
        return isinstance(error, Again) or (isinstance(error, MemoryError) and MORE_MEMORY in self.options)

    def original(self) -> Request:
        """Return another request, to be opened after this one, with the first arguments of the call."""
        return Request(self._arguments, list(self._inputs), self.options)

    def load(self, function: Callable[[], Any] | None = None) -> Any:
        """Return the function and the arguments, once: afterwards nothing is kept alive here.

        `function` returns a function that did not come with the arguments.
        """
        arguments, inputs, again = self._arguments, self._inputs, self._again
        # Let go first: a large argument should be free as soon as the function drops it.
        self._arguments, self._inputs, self._again = Packed(b""), [], None
        if function is not None:
            given = load_with_inputs(arguments, [packed.load() for packed in inputs]) if again is None else again.load()
            return function(), *given
        loaded = load_with_inputs(arguments, [packed.load() for packed in inputs])
        return loaded if again is None else (*loaded[:-2], *again.load())
