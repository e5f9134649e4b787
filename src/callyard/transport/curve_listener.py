"""The sockets of the driver: one for the agents, and one for libzmq's questions about their keys."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from .curve_sockets import MonitoredSocket

if TYPE_CHECKING:
    from .curve_sockets import Context, Socket

__all__ = ["make_door", "make_keys", "make_router", "raw"]

_ZAP = "inproc://zeromq.zap.01"  # libzmq's name, fixed by its protocol ZAP


def make_keys() -> tuple[bytes, bytes]:
    """Return a public and a secret key as text."""
    import zmq

    return zmq.curve_keypair()


def raw(key: bytes) -> bytes:
    """Return the 32 bytes of a key that is given as text."""
    from zmq.utils import z85

    return z85.decode(key)


def make_door(context: Context, undo: contextlib.ExitStack) -> Socket:
    """Return the socket for libzmq's questions about keys.

    The router comes after it, so that no peer is let in unasked.
    """
    import zmq

    door = context.socket(zmq.REP)
    undo.callback(door.close, linger=0)
    door.bind(_ZAP)
    return door


def make_router(context: Context, undo: contextlib.ExitStack, secret: bytes, silence: float) -> MonitoredSocket:
    """Return the socket for the agents, not yet bound to an address."""
    import zmq

    router = MonitoredSocket(context, zmq.ROUTER, silence)
    undo.callback(router.close)
    router.set(
        {
            zmq.ROUTER_MANDATORY: 1,
            zmq.BACKLOG: 1024,  # a thousand agents may come at once
            zmq.CURVE_SERVER: 1,
            zmq.CURVE_SECRETKEY: secret,
            zmq.ZAP_DOMAIN: b"callyard",
            zmq.ZAP_ENFORCE_DOMAIN: 1,  # without an answer on the door's socket no peer is let in
        }
    )
    router.watch(zmq.EVENT_ACCEPTED | zmq.EVENT_DISCONNECTED)
    return router
