"""The interface of packed results and errors, which a future opens on demand."""

from __future__ import annotations

from typing import Any, Protocol


class Lazy(Protocol):
    """A packed value or error."""

    def load(self) -> Any: ...


class DerivedResult:
    """A result made of the results of other futures, in this process and on demand.

    An exception from `load` is the outcome of the future, as an IndexError of a part. From any other packed value an
    exception means a failure to unpickle.
    """

    __slots__ = ()

    def load(self) -> Any:
        raise NotImplementedError
