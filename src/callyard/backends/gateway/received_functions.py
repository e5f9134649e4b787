"""The functions that a driver has sent to a gateway, each version under a number."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from ...serialize.namespace_replica import LoadedFunction
from .protocol import SentPickle

__all__ = ["ReceivedFunctions"]


class ReceivedFunctions:
    """The versions of functions, until the driver forgets them. Each is opened at the first call."""

    def __init__(self) -> None:
        self._pickles: dict[int, SentPickle] = {}
        self._loaded: dict[int, LoadedFunction] = {}

    def add(self, number: int, pickle: SentPickle) -> None:
        """Take a version of a function."""
        self._pickles[number] = pickle

    def pickle_of(self, number: int) -> SentPickle:
        """Return the pickle of a function, for its contents."""
        return self._pickles[number]

    def get(self, number: int, load: Callable[[SentPickle], tuple[bytes, list[Any]]]) -> Callable[..., Any]:
        """Return a function, with the values of its globals as they were when the call was submitted.

        Args:
            number: that of the version.
            load: returns the data of a pickle and its contents.
        """
        if number not in self._loaded:
            data, buffers = load(self._pickles[number])
            self._loaded[number] = LoadedFunction(data or bytes(buffers[0]))
        return self._loaded[number].current()

    def forget(self, numbers: Iterable[int]) -> None:
        """Forget versions that no call names any more."""
        for number in numbers:
            self._pickles.pop(number, None)
            self._loaded.pop(number, None)
