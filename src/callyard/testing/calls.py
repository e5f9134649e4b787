"""Functions for the calls of contract suites: importable wherever Callyard is, as a backend's workers need them."""

from __future__ import annotations

__all__ = ["describe", "divide", "successor"]


def describe(*args: object, **kwargs: object) -> str:
    """Return a text of all arguments."""
    return repr((args, dict(sorted(kwargs.items()))))


def divide(a: float, b: float) -> float:
    """Return a / b."""
    return a / b


def successor(value: int) -> int:
    """Return the next number."""
    return value + 1
