"""The opening of the backend in front of a gateway, with the places for files that come."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from ...resources import Resources
from .backend import GatewayBackend
from .connection import Address
from .contents import FileCopies
from .protocol import Opening

if TYPE_CHECKING:
    from ...result_cache import Cache

__all__ = ["open_gateway"]


def open_gateway(
    address: Address,
    backend: bytes,
    detached: bool,
    cache: Cache | None,
    description: str,
    check: Callable[[Resources], object],
) -> GatewayBackend:
    """Return the backend of an executor whose calls run at an address; `check` raises for impossible resources."""
    mode = "refresh" if cache is not None and cache.mode == "refresh" else "use"
    failures = cache is not None and cache.failures
    opening = Opening(backend, os.urandom(10).hex(), cache is not None, mode, failures)
    if cache is None or cache.mode == "read-only":
        return GatewayBackend(address, detached, opening, description, check)
    copies = partial(FileCopies, cache._directory)
    return GatewayBackend(address, detached, opening, description, check, copies=copies)
