"""Checks that only trusted users could have written a record, because opening a record runs the code in it.

A cache often lies where others write too: in `/tmp`, on a scratch file system, in a project's directory. Another user
could attack the cache in three ways, each with its check:

* Make the directory, or a link of its name, first. So directories, files and links must belong to this user.
* Write into a directory or file. So the modes must not allow writing.
* Put another directory in the place of this one, or of any directory above it. The right to write into a directory is
  the right to rename its entries, unless its sticky bit is set, as in `/tmp`. So in each directory on the way, links
  included, only this user and root may have the right.

An access control list can give rights invisible in the mode, or shown there as rights of a trusted group, so the
lists are checked as well. With `trust="group"` the members of the group may have all these rights. After these checks
no other user can exchange anything, so no repetition is needed as long as the same directory is there.
"""

from __future__ import annotations

import errno
import os
import stat

from ..errors import CacheError, UnsafeCache
from ..system.acls import AclEntry, inherited_writers, named_writers
from ..utils.lite_stdlib import Literal

__all__ = [
    "Trust",
    "check_directory",
    "check_file",
    "check_within",
    "make_directory",
    "open_directory",
    "resolve",
    "resolve_cache",
]

Trust = Literal["group"]

_MOST_LINKS = 40  # as in the kernel
_NOBODY = 65534  # the number of all outside users in a user namespace


def resolve(path: str, trust: Trust | None, *, make: bool, group: int | None = None) -> str:
    """Return the real path of a directory; check each directory and link on the way, but not the directory itself.

    With `make`, missing directories are made. The trusted group is the directory's, unless given.

    Raises:
        UnsafeCache: others could replace the directory by another one.
        OSError: the directory is missing, for example.
    """
    above: list[str] = []
    real = _follow_path(path, trust, make, above)
    if trust is not None:
        trusted = os.stat(real).st_gid if group is None else group
        for directory in above:
            _check_above(directory, path, trust, trusted)
    return real


def _follow_path(path: str, trust: Trust | None, make: bool, above: list[str]) -> str:
    # Only for a relative path, because the directory of this process may be gone.
    whole = path if path.startswith("/") else os.path.join(os.getcwd(), path)
    real, rest = "/", whole.split("/")[::-1]  # the next name last
    links = 0
    while rest:
        name = rest.pop()
        if name in ("", "."):
            continue
        if name == "..":
            real = os.path.dirname(real)
            continue
        above.append(real)
        _check_above(real, path, trust)
        entry = os.path.join(real, name)
        status = _status(entry, trust, make)
        if not stat.S_ISLNK(status.st_mode):
            real = entry
            continue
        links += 1
        target = _follow(entry, status, path, links)
        rest.extend(reversed(target.split("/")))
        real = "/" if target.startswith("/") else real
    return real


def _status(entry: str, trust: Trust | None, make: bool) -> os.stat_result:
    try:
        return os.lstat(entry)
    except FileNotFoundError:
        if not make:
            raise
    try:
        make_directory(entry, trust)
    except FileExistsError:
        pass  # another process was faster; the owner of its directory is checked like any other
    return os.lstat(entry)


def _follow(entry: str, status: os.stat_result, path: str, links: int) -> str:
    if links > _MOST_LINKS:
        raise UnsafeCache(f"the cache {path} leads through too many symbolic links: name its directory itself")
    # This holds even for a link to a directory of this user, because its owner can point it to another one at any time.
    if status.st_uid not in (0, os.geteuid()) and not _is_outside(status.st_uid):
        raise UnsafeCache(
            f"the cache {path} leads through the symbolic link {entry}, which belongs to {_user(status.st_uid)}: "
            "name the directory itself, or choose another one"
        )
    return os.readlink(entry)


def make_directory(path: str, trust: Trust | None, group: int | None = None) -> None:
    """Make a directory open only to its user, or only to the members of a group."""
    if trust is None:
        return os.mkdir(path, 0o700)
    # The mode is set afterwards, because of the umask, so the other members must not see the directory before.
    fresh = os.path.join(os.path.dirname(path), f".{os.path.basename(path)}.{os.urandom(6).hex()}")
    os.mkdir(fresh, 0o700)
    try:
        if group is not None:
            os.chown(fresh, -1, group)
        os.chmod(fresh, 0o2770)  # with the setgid bit, new files in it belong to the same group
        os.rename(fresh, path)  # this may replace an empty directory, which does no harm
    except OSError as error:
        os.rmdir(fresh)
        if os.path.lexists(path):
            raise FileExistsError(path) from error
        raise
    return None


# ------------------------------------------------------------------ checks


def check_directory(path: str, status: os.stat_result, trust: Trust | None) -> None:
    """Raise UnsafeCache if others could write into the directory of a cache."""
    if trust is None:
        _check_own(f"the directory {path}", path, status)
    else:
        _check_of_group(f"the directory {path}", path, status)
        _check_list(f"what is made in {path}", path, inherited_writers(path), trust, status.st_gid)
    _check_list(f"the directory {path}", path, named_writers(path, status), trust, status.st_gid)


def check_within(
    path: str, status: os.stat_result, trust: Trust | None, group: int | None, descriptor: int | None = None
) -> None:
    """Raise UnsafeCache if others could have written a file or directory within a safe cache."""
    what = f"the {'directory' if stat.S_ISDIR(status.st_mode) else 'file'} {path}"
    if trust is None:
        _check_own(what, path, status)
    elif status.st_mode & stat.S_IWOTH:
        raise _writable(what, path, "everybody", "o-w")
    elif status.st_mode & stat.S_IWGRP and status.st_gid != group:
        raise _writable(what, path, f"the group {_group(status.st_gid)}", "g-w")
    # The owner does not matter with a trusted group, because only its members can have put the file there.
    _check_list(what, path, named_writers(path if descriptor is None else descriptor, status), trust, group)


def check_file(
    path: str, status: os.stat_result, trust: Trust | None, group: int | None, descriptor: int | None = None
) -> None:
    """Do the same for a record, which must be a regular file; an open file is checked by its descriptor."""
    if not stat.S_ISREG(status.st_mode):
        raise UnsafeCache(f"{path} is not a regular file, so its content may come from anywhere: remove it")
    check_within(path, status, trust, group, descriptor)


def _check_list(what: str, path: str, writers: list[AclEntry], trust: Trust | None, group: int | None) -> None:
    """Raise UnsafeCache if an access control list lets others write."""
    for writer in writers:
        if not _is_trusted(writer, trust, group):
            raise UnsafeCache(
                f"{what} can be written by {_name(writer)} through an access control list, and could let the cache run "
                f"any code: run `setfacl -b -k {path}` if you know who wrote what is there, or use another directory"
            )


def _is_trusted(writer: AclEntry, trust: Trust | None, group: int | None) -> bool:
    number = writer.number
    if number is None:
        return False
    if writer.kind == "group":
        return number == 0 or (trust is not None and number == group) or _is_private(number, os.geteuid())
    return number in (0, os.geteuid()) or (trust is not None and group in _groups_of(number))


def _check_own(what: str, path: str, status: os.stat_result) -> None:
    if status.st_uid != os.geteuid():
        raise UnsafeCache(
            f"{what} belongs to {_user(status.st_uid)}, who could let the cache run any code: "
            'choose another directory, or say trust="group" to trust a group that you share'
        )
    if status.st_mode & stat.S_IWOTH:
        raise _writable(what, path, "everybody", "go-w")
    if status.st_mode & stat.S_IWGRP:
        raise _writable(what, path, f"the group {_group(status.st_gid)}", "g-w", ', or say trust="group"')


def _check_of_group(what: str, path: str, status: os.stat_result) -> None:
    if status.st_mode & stat.S_IWOTH:
        raise _writable(what, path, "everybody", "o-w")
    owner, group = status.st_uid, status.st_gid
    me = os.geteuid()
    if me not in (0, owner) and group not in (os.getegid(), *os.getgroups()):
        raise UnsafeCache(
            f"{what} belongs to the group {_group(group)}, of which you are no member, so that there is nobody to "
            "trust: choose another directory, or have its group changed"
        )
    if owner not in (0, me) and group not in _groups_of(owner):
        raise UnsafeCache(
            f"{what} belongs to {_user(owner)}, who is no member of the trusted group {_group(group)}: "
            "choose another directory, or have its owner changed"
        )


def _check_above(directory: str, path: str, trust: Trust | None, group: int | None = None) -> None:
    """Raise UnsafeCache if others could replace an entry of this directory.

    With `trust`, as long as the group is not known yet, only rights of everybody are refused.
    """
    status = os.lstat(directory)
    if not stat.S_ISDIR(status.st_mode):
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), directory)
    who = _exchanger(directory, status, trust, group)
    if who:
        advice = "" if who == "everybody" or trust is not None else ', or say trust="group"'
        raise UnsafeCache(
            f"{who} could put another cache into the place of {path}, by rights to the directory {directory} "
            f"(mode {stat.S_IMODE(status.st_mode):04o}): change that, choose another directory{advice}"
        )


def _exchanger(directory: str, status: os.stat_result, trust: Trust | None, group: int | None) -> str:
    """Return the name of an untrusted user or group that may rename entries of a directory; "" if there is none."""
    owner, mode = status.st_uid, status.st_mode
    if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
        return "everybody"
    if trust is not None and group is None:
        return ""
    known = owner in (0, os.geteuid()) or _is_outside(owner)
    if not known and (trust is None or group not in _groups_of(owner)):
        return _user(owner)  # an owner may rename entries despite the sticky bit
    if mode & stat.S_ISVTX:
        return ""
    writers = named_writers(directory, status)
    if mode & stat.S_IWGRP and not _is_private(status.st_gid, owner):
        writers.append(AclEntry("group", status.st_gid))
    return next((_name(writer) for writer in writers if not _is_trusted(writer, trust, group)), "")


def _is_outside(uid: int) -> bool:
    """Return True if this number stands for users outside a container, the owners of the host's directories in it."""
    if uid != _NOBODY:
        return False
    try:
        with open("/proc/self/uid_map") as file:
            return file.read().split() != ["0", "0", "4294967295"]
    except OSError:
        return False


def _is_private(gid: int, uid: int) -> bool:
    """Return True for the private group of a user: many systems make one for each user and set the umask to 002."""
    import grp
    import pwd

    try:
        group, name = grp.getgrgid(gid), pwd.getpwuid(uid).pw_name
    except KeyError:
        return False
    return group.gr_name == name and set(group.gr_mem) <= {name}


# ------------------------------------------------------------------ words


def _writable(what: str, path: str, who: str, change: str, advice: str = "") -> UnsafeCache:
    return UnsafeCache(
        f"{what} can be written by {who}, who could let the cache run any code: run `chmod {change} {path}` "
        f"if you know who wrote what is there{advice}"
    )


def _name(writer: AclEntry) -> str:
    if writer.number is None:
        return f"the {writer.kind} {writer.name}" if writer.kind else "everybody"
    return f"the group {_group(writer.number)}" if writer.kind == "group" else _user(writer.number)


def _user(uid: int) -> str:
    import pwd

    try:
        return f"the user {pwd.getpwuid(uid).pw_name}"
    except KeyError:
        return f"the user number {uid}"


def _group(gid: int) -> str:
    import grp

    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return f"number {gid}"


def _groups_of(uid: int) -> list[int]:
    import pwd

    try:
        user = pwd.getpwuid(uid)
    except KeyError:
        return []
    return os.getgrouplist(user.pw_name, user.pw_gid)


def _expand(path: str) -> str:
    if not path.startswith("~"):
        return path
    from ..utils.paths import expand  # here, because a job is given a path without it

    return expand(path)


def open_directory(path: str, trust: Trust | None, make: bool) -> tuple[str, os.stat_result]:
    """Return the real path of the directory of a cache, and its status; raise an error for a missing or unsafe one."""
    if "\0" in path:
        raise CacheError(f"the cache {path!r} has a zero in its name, which no directory can have")
    path = _expand(path)
    there = os.path.isdir(path)
    try:
        return resolve_cache(path, trust, make)
    except NotADirectoryError:
        raise CacheError(f"the cache {path!r} is not a directory: choose another name") from None
    except FileNotFoundError as error:
        if not make:
            raise CacheError(f'there is no cache {path!r}: name another directory, or let mode="use" make it') from None
        raise _refused(path, there, error) from error
    except OSError as error:
        raise _refused(path, there, error) from error


def _refused(path: str, there: bool, error: OSError) -> CacheError:
    what = "used" if there else "made"
    return CacheError(f"the cache {path!r} cannot be {what}: {error.strerror}; choose another directory")


def resolve_cache(path: str, trust: Trust | None, make: bool) -> tuple[str, os.stat_result]:
    real = resolve(path, trust, make=make)
    status = os.stat(real)
    if not stat.S_ISDIR(status.st_mode):
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), real)
    check_directory(real, status, trust)
    return real, status
