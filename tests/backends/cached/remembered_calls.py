"""What the calls of these tests do. Workers import this module, so it imports nothing of the tests."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any, NoReturn


def note(journal: str, text: object) -> None:
    """Append a line; short lines of several processes never mix."""
    descriptor = os.open(journal, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(descriptor, f"{text}\n".encode())
    os.close(descriptor)


def noted(journal: str) -> list[str]:
    """The lines of a file; none if there is no file."""
    try:
        with open(journal) as file:
            return file.read().splitlines()
    except FileNotFoundError:
        return []


def hold(place: str) -> None:
    """Arrive at the gate in this directory, and wait until it is opened."""
    with open(f"{place}/arrivals", "r+b", buffering=0) as arrivals:
        arrivals.write(b".")
    with open(f"{place}/passes", "r+b", buffering=0) as passes:
        passes.read(1)


def stay() -> NoReturn:
    while True:
        signal.pause()


def die() -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    stay()


# -- calls ---------------------------------------------------------------------------------------------


def square(journal: str, x: int) -> int:
    note(journal, f"square {x}")
    return x * x


def plus(journal: str, *terms: int) -> int:
    note(journal, f"plus {' '.join(map(str, terms))}")
    return sum(terms)


def held(journal: str, place: str, x: int) -> int:
    note(journal, f"held {x}")
    hold(place)
    return x


def held_with_pid(journal: str, place: str) -> int:
    note(journal, os.getpid())
    hold(place)
    return os.getpid()


def dying(journal: str, times: int) -> int:
    """Die until it has been tried so many times; then how often it was."""
    note(journal, "dying")
    tries = len(noted(journal))
    if tries <= times:
        die()
    return tries


def failing(journal: str, x: int) -> NoReturn:
    note(journal, f"failing {x}")
    raise ValueError("the user's own", x)


def held_and_failing(journal: str, place: str) -> NoReturn:
    note(journal, "held and failing")
    hold(place)
    raise ValueError("the user's own")


def pair(one: Any, other: Any) -> tuple[Any, Any]:
    return one, other


def failing_at_first(journal: str) -> int:
    note(journal, "failing at first")
    tries = len(noted(journal))
    if tries == 1:
        raise ValueError("the first time")
    return tries


class Refusal(Exception):
    """Cannot be pickled."""

    def __reduce__(self) -> NoReturn:
        raise TypeError("not to be pickled")


def refusing(journal: str) -> NoReturn:
    note(journal, "refusing")
    raise Refusal("no")


def unpicklable(journal: str) -> Callable[[], Any]:
    """A generator stays in its process."""
    note(journal, "unpicklable")
    return (x for x in ())  # type: ignore[return-value]


class Deadly:
    """Kills the process that pickles it while it writes to a cache."""

    def __init__(self, results: str) -> None:
        self.results = results

    def __reduce__(self) -> Any:
        if any(name.startswith(".tmp-") for _, _, names in os.walk(self.results) for name in names):
            die()
        return Deadly, (self.results,)


def deadly(journal: str, results: str) -> Deadly:
    note(journal, "deadly")
    return Deadly(results)


def consume(journal: str, items: list[int], more: Any = None) -> int:
    """Change what it is given."""
    note(journal, "consume")
    total = 0
    while items:
        total += items.pop()
    if more is not None:
        more[...] = 0
    return total


def fork_and_both_return(journal: str, place: str) -> int:
    """The other one later: once the gate is opened."""
    child = os.fork()
    if child:
        note(journal, child)
    else:
        hold(place)
    return os.getpid()


def fork_and_both_raise(journal: str) -> NoReturn:
    note(journal, "fork")
    os.fork()
    raise ValueError(os.getpid())


def bytes_of(journal: str, x: int, size: int) -> bytes:
    note(journal, f"bytes_of {x}")
    return bytes([x % 256]) * size


def remove(journal: str, path: str) -> str:
    """Remove the cache in which it is going to be remembered."""
    import shutil

    note(journal, "remove")
    shutil.rmtree(path)
    return path


# -- under load ----------------------------------------------------------------------------------------


def count(journal: str, names: set[str], table: dict[str, int]) -> int:
    note(journal, f"count {sorted(names)}")
    return len(names) + sum(table.values())


SIZES = [10, 1_000, 30_000, 200_000, 100, 1_000, 30_000, 1_100_000]


def blob_of(x: int) -> bytes:
    """Of all sizes, and different for each number."""
    return f"{x:09}".encode() * (SIZES[x % len(SIZES)] // 9)


def blob(journal: str, pulse: str, x: int) -> bytes:
    note(journal, f"begin {x} {os.getpid()} {os.environ['CALLYARD_TEST_WRITER']}")
    beat(pulse)
    return blob_of(x)


def beat(pulse: str) -> None:
    with open(pulse, "r+b", buffering=0) as fifo:
        fifo.write(b".")


def half(journal: str, pulse: str, whole: bytes) -> bytes:
    beat(pulse)
    return whole[: len(whole) // 2]
