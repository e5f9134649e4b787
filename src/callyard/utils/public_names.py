"""The names of a public object for `dir()`, and thereby for a shell's completion."""

from __future__ import annotations

from collections.abc import Collection, Iterable

__all__ = ["public_names"]


def public_names(names: Iterable[str], public: Collection[str] | None = None) -> list[str]:
    """Return the public names, and special ones such as `__enter__` for tools of introspection.

    Args:
        names: all names of an object, as `object.__dir__` gives them.
        public: the public ones; default: all without a leading underscore.
    """
    return [
        name for name in names if (not name.startswith("_") if public is None else name in public) or _special(name)
    ]


def _special(name: str) -> bool:
    return name.startswith("__") and name.endswith("__")
