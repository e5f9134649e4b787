"""Access control lists: users and groups with write access to a file in addition to its mode.

POSIX lists are stored in an extended attribute, in the kernel's own form; NFSv4 lists in another one, in their network
form, and the mode need not show them at all. Both are read here without a library. An unreadable list counts as write
access for everybody.
"""

from __future__ import annotations

import errno
import os
import stat

from ..utils.lite_stdlib import Frozen, Iterator, struct

__all__ = ["AclEntry", "inherited_writers", "named_writers"]

_POSIX, _INHERITED, _NFS4 = "system.posix_acl_access", "system.posix_acl_default", "system.nfs4_acl"
_USER, _GROUP, _MASK = 2, 8, 16  # tags of entries
_WRITE = 2
_ALLOW = 0  # a type of NFSv4's entries
_INHERIT_ONLY, _IS_GROUP = 0x8, 0x40
# The rights to change data, names in a directory, the list or the owner: each allows replacing the content.
_WRITES = 0x2 | 0x4 | 0x40 | 0x10000 | 0x40000 | 0x80000
_IN_THE_MODE = ("OWNER@", "GROUP@")
_without: set[int] = set()  # file systems without NFSv4 lists


class AclEntry(Frozen):
    """A user or group with write access; an empty `kind` means everybody. POSIX lists give numbers, NFSv4 names."""

    kind: str  # "user", "group" or ""
    number: int | None
    name: str = ""


EVERYBODY = AclEntry("", None)


def named_writers(target: int | str, status: os.stat_result) -> list[AclEntry]:
    """Return the users and groups named with write access in the list of a file, given by its path or descriptor."""
    found: list[AclEntry] = []
    if status.st_mode & stat.S_IWGRP:  # with a POSIX list, these bits of the mode are the mask of the list
        found += posix(_attribute(target, _POSIX))
    if status.st_dev not in _without:
        found += nfs4(_attribute(target, _NFS4, status.st_dev))
    return found


def inherited_writers(target: int | str) -> list[AclEntry]:
    """Return the users and groups named with write access in the default list for new files of a directory."""
    return posix(_attribute(target, _INHERITED))


def _attribute(target: int | str, name: str, device: int | None = None) -> bytes:
    """Return the content of an attribute, empty if there is none; note file systems without this kind of attribute."""
    try:
        return os.getxattr(target, name)
    except AttributeError:  # other systems than Linux
        return b""
    except OSError as error:
        if device is not None and error.errno in (errno.ENOTSUP, errno.EOPNOTSUPP):
            _without.add(device)
        return b""


# ------------------------------------------------------------------ the two formats


def posix(content: bytes) -> list[AclEntry]:
    """Return the users and groups with write access in a POSIX list."""
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
    """Return the users and groups with write access in an NFSv4 list; its denials are ignored."""
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
