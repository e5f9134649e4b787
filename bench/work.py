"""What the benchmark's calls run: functions of an importable module, as a user's own would be."""

from __future__ import annotations

import time
from typing import Any


def noop() -> None:
    return None


def increment(value: int) -> int:
    return value + 1


def add(left: int, right: int) -> int:
    return left + right


def scaled(value: int, factor: float = 1.0) -> float:
    return value * factor


def negative(array: Any) -> Any:
    return -array


def length(array: Any) -> int:
    return len(array)


def hold(fifo: str) -> None:
    """Keep a worker busy: opening meets the driver, so it knows that we run; reading ends when it lets go."""
    with open(fifo) as gate:
        gate.read()


def compute(seconds: float) -> None:
    """Use a core for so much processor time, whatever else the machine does."""
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass
