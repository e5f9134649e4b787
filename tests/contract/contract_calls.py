"""What the calls of the contract suite run: importable where they arrive, with little to import."""

from __future__ import annotations

import os
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

barrier: Any = None


def set_barrier(made: Any) -> None:
    global barrier
    barrier = made


def wait_at_barrier() -> None:
    barrier.wait()


def same(value: Any) -> Any:
    return value


def both(a: Any, b: Any) -> Any:
    return a, b


def add(*values: Any) -> Any:
    total = values[0]
    for value in values[1:]:
        total = total + value
    return total


def successor(value: int) -> int:
    return value + 1


def divide(a: float, b: float) -> float:
    return a / b


def described(*args: Any, **kwargs: Any) -> str:
    return repr((args, dict(sorted(kwargs.items()))))


def raised(error: BaseException) -> None:
    raise error


def leave(code: int) -> None:
    sys.exit(code)


def process_id(*_: Any) -> int:
    return os.getpid()


def touch(path: Path) -> None:
    path.touch()


@dataclass
class Job:
    name: str
    parts: list[Any] = field(default_factory=list)
    made: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        self.made += 1


@dataclass(frozen=True)
class Pair:
    first: Any
    second: Any


class Thing:
    """Can be referred to weakly, and compared."""

    def __init__(self, value: Any = None) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return type(other) is Thing and other.value == self.value

    def method(self, more: int) -> int:
        return int(self.value + more)

    def __call__(self, more: int) -> int:
        return int(self.value * more)


def make_thing(value: Any = None) -> Thing:
    return Thing(value)


class OddError(Exception):
    """Its constructor does not take what is in `args`."""

    def __init__(self, code: int, *, place: str) -> None:
        super().__init__(f"error {code} at {place}")
        self.code, self.place = code, place


class KeywordError(Exception):
    def __init__(self, *, code: int) -> None:
        self.code = code


class OtherArguments(Exception):
    """Its constructor takes what is in `args`, but means something else by it; and it has a slot."""

    __slots__ = ("place",)

    def __init__(self, code: int | str) -> None:
        super().__init__(f"code {code}")
        self.place = "here"


class Leaving(SystemExit):
    def __init__(self, reason: str) -> None:
        super().__init__(5)
        self.reason = reason


class StatefulError(ValueError):
    pass


class HoldsLock(Exception):
    """Cannot be pickled as it is."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.lock = threading.Lock()


class Abort(BaseException):
    """Not an Exception."""


def raise_odd() -> None:
    raise OddError(7, place="the mill")


def raise_keyword() -> None:
    raise KeywordError(code=3)


def raise_other_arguments() -> None:
    raise OtherArguments(4)


def raise_leaving() -> None:
    raise Leaving("tired")


def raise_stateful() -> None:
    error = StatefulError("with state")
    error.temperature = 300  # type: ignore[attr-defined]
    raise error


def raise_chained() -> None:
    try:
        {}["missing"]
    except KeyError as error:
        raise RuntimeError("the outer one") from error


def raise_lock() -> None:
    raise HoldsLock("held by nobody")


def raise_abort() -> None:
    raise Abort("no further")


def raise_group() -> None:
    raise ExceptionGroup("two", [ValueError(1), OddError(2, place="inside")])  # noqa: F821  # from Python 3.11 on


class Unpicklable:
    """Refuses to be pickled."""

    def __reduce__(self) -> Any:
        raise TypeError("an Unpicklable stays where it is")


class Unreadable:
    """Can be pickled, but not be read again."""

    def __reduce__(self) -> Any:
        return _refuse, ()


def _refuse() -> None:
    raise ValueError("an Unreadable cannot be read")
