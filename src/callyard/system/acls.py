"""Access control lists: users and groups who may write to a file beside those whom its mode shows.

The lists of POSIX are in an attribute of the file, in the kernel's own form; those of NFSv4, which the mode need not
show at all, in another one, as they travel. Both are read here without a library. What makes no sense counts as
everybody.
"""

from __future__ import annotations

import errno
import os
import stat
import struct
from collections.abc import Iterator

from ..utils.frozen import Frozen

__all__ = ["AclEntry", "inherited_writers", "named_writers"]

_POSIX, _INHERITED, _NFS4 = "system.posix_acl_access", "system.posix_acl_default", "system.nfs4_acl"
_USER, _GROUP, _MASK = 2, 8, 16  # tags of entries
_WRITE = 2
_ALLOW = 0  # a type of NFSv4's entries
_INHERIT_ONLY, _IS_GROUP = 0x8, 0x40
# To change data, names in a directory, the list or the owner: what lets somebody put something else there.
_WRITES = 0x2 | 0x4 | 0x40 | 0x10000 | 0x40000 | 0x80000
_IN_THE_MODE = ("OWNER@", "GROUP@")
_without: set[int] = set()  # file systems that have no lists of NFSv4


class AclEntry(Frozen):
    """Somebody who may write. Lists of POSIX have numbers, those of NFSv4 names; an empty `kind` is everybody."""

    kind: str  # "user", "group" or ""
    number: int | None
    name: str = ""


EVERYBODY = AclEntry("", None)


def named_writers(target: int | str, status: os.stat_result) -> list[AclEntry]:
    """Those whom the list of a file, by its path or descriptor, lets write by name."""
    found: list[AclEntry] = []
    if status.st_mode & stat.S_IWGRP:  # where there is a list of POSIX the mode shows here what it grants at most
        found += posix(_attribute(target, _POSIX))
    if status.st_dev not in _without:
        found += nfs4(_attribute(target, _NFS4, status.st_dev))
    return found


def inherited_writers(target: int | str) -> list[AclEntry]:
    """Those whom new files in a directory may let write by name."""
    return posix(_attribute(target, _INHERITED))


def _attribute(target: int | str, name: str, device: int | None = None) -> bytes:
    """Return the content of an attribute, nothing if there is none; note file systems that know none of the kind."""
    try:
        return os.getxattr(target, name)
    except AttributeError:  # other systems than Linux
        return b""
    except OSError as error:
        if device is not None and error.errno in (errno.ENOTSUP, errno.EOPNOTSUPP):
            _without.add(device)
        return b""


# ------------------------------------------------------------------ what they say


def posix(content: bytes) -> list[AclEntry]:
    """Return the users and groups that a POSIX list lets write."""
    if not content:
        return []
    try:
        entries = list(struct.iter_unpack("<HHI", content[4:]))
    except struct.error:
        return [EVERYBODY]
    mask = next((allowed for tag, allowed, _ in entries if tag == _MASK), 7)
    kinds = {_USER: "user", _GROUP: "group"}
    return [
        AclEntry(kinds[tag], number)
        for tag, allowed, number in entries
        if tag in kinds and allowed & mask & _WRITE
    ]  # fmt: skip


def nfs4(content: bytes) -> list[AclEntry]:
    """Return the users and groups that an NFSv4 list lets write; what it denies is not looked at."""
    if not content:
        return []
    try:
        return [writer for writer in _entries(content) if writer is not None]
    except (struct.error, UnicodeDecodeError):
        return [EVERYBODY]


def _entries(content: bytes) -> Iterator[AclEntry | None]:
    (count,) = struct.unpack_from(">I", content)
    at = 4
    for _ in range(count):
        kind, flags, allowed, length = struct.unpack_from(">4I", content, at)
        (name,) = struct.unpack_from(f">{length}s", content, at + 16)
        at += 16 + -(-length // 4) * 4
        if kind == _ALLOW and allowed & _WRITES and not flags & _INHERIT_ONLY:
            yield _writer(name.decode(), bool(flags & _IS_GROUP))


def _writer(name: str, group: bool) -> AclEntry | None:
    if name == "EVERYONE@":
        return EVERYBODY
    if name in _IN_THE_MODE:
        return None
    who = name.partition("@")[0]
    return AclEntry("group" if group else "user", int(who) if who.isdecimal() else _number(who, group), name)


def _number(name: str, group: bool) -> int | None:
    import grp
    import pwd

    try:
        return grp.getgrnam(name).gr_gid if group else pwd.getpwnam(name).pw_uid
    except KeyError:
        return None
