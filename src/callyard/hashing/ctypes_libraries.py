"""Tokens of shared libraries loaded by `ctypes`, and of their functions, by the content of the file."""

from __future__ import annotations

import ctypes
import os
from typing import Any

from .digest import Encoder, Handler, combine, text
from .packages import file_content

_Function: Any = ctypes.CFUNCTYPE(None).__base__  # the base of the types of all functions in libraries


def _library(encoder: Encoder, library: Any) -> bytes:
    """Return the token of a library (of the system: of its name), with the types set for its functions."""
    name = str(library._name)
    functions = sorted((label, value) for label, value in vars(library).items() if isinstance(value, _Function))
    parts = [part for label, value in functions if _is_set(value) for part in _signature(encoder, label, value)]
    own = file_content(name) if os.path.isfile(name) else text(b"n", name)
    return combine(b"5", [encoder.definition(type(library)), own, *parts])


def _function(encoder: Encoder, function: Any) -> bytes:
    libraries = [part for part in (function._objects or {}).values() if isinstance(part, ctypes.CDLL)]
    if not libraries:
        raise TypeError("it does not tell which library it is from")
    signature = _signature(encoder, function.__name__, function)
    return combine(b"5", [*(_library(encoder, each) for each in libraries), *signature])


def _signature(encoder: Encoder, name: object, function: Any) -> list[bytes]:
    return [text(b"s", str(name)), encoder.token((function.restype, function.argtypes, function.errcheck))]


def _is_set(function: Any) -> bool:
    return function.restype is not type(function)._restype_ or function.argtypes is not None


def handler_of(base: type) -> Handler | None:
    """Return the handler for instances of a class of `ctypes`; None for a class without a special handler."""
    if base is ctypes.CDLL:
        return _library
    return _function if base is _Function else None
