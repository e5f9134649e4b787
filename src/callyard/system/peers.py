"""The process at the other end of a Unix socket."""

from __future__ import annotations

import os
import socket
import struct

__all__ = ["is_own_user"]


def is_own_user(sock: socket.socket) -> bool:
    """Return True if the process at the other end belongs to this user, as far as the system tells."""
    if not hasattr(socket, "SO_PEERCRED"):
        return True  # the directory lets no other user in
    credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    _, uid, _ = struct.unpack("3i", credentials)
    return bool(uid == os.getuid())
