"""Pickles opened with stand-ins for all classes and functions, for the texts in them."""

from __future__ import annotations

import io
import pickle
from typing import Any

__all__ = ["load_with_stand_ins"]


class _StandIn:
    """An object of any class, or the result of any function: it takes what a pickle gives, and keeps nothing."""

    def __init__(self, *_: Any, **__: Any) -> None: ...

    def __call__(self, *_: Any, **__: Any) -> None: ...

    def __setstate__(self, _: Any) -> None: ...

    def __setitem__(self, _: Any, __: Any) -> None: ...

    def append(self, _: Any) -> None: ...

    def add(self, _: Any) -> None: ...


class _Unpickler(pickle.Unpickler):
    def find_class(self, _: str, __: str) -> type[_StandIn]:
        return _StandIn


def load_with_stand_ins(data: bytes) -> Any:
    """Return the object, in which only numbers, texts and containers are themselves; no code of others runs.

    Raises:
        Exception: the pickle is damaged.
    """
    return _Unpickler(io.BytesIO(data)).load()
