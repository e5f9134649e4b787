"""The claims of processes to keys: at most one living process has the claim to a key, and runs the call.

A claim is a file that names its owner. It is written under a temporary name and then linked to its own. Linking
makes it appear as a whole, and succeeds for exactly one of all processes that try, on network file systems too. There
are no locks and no time-outs: a claim ends when it is released, or when its owner can be proven gone.

    claims/<key>           the first claim
    claims/<key>+<token>   the claim that succeeds the one with this token, whose owner is gone

So the claims to a key form a chain, and its last one holds. These are its rules and their reasons:

* A claim that has its name is never changed or replaced, only removed, and no token is used twice.
* Linking to `<key>` succeeds only where no process has the claim. Linking to `<key>+<token>` succeeds for one of the
  processes that found the owner gone, but perhaps long after another process had succeeded the owner and released its
  claim. So a process that has linked there reads the chain again from its first claim: it has the claim only if its
  own file is the last one.
* A release removes `<key>` first, which ends the whole chain at once; the other files are removed afterwards, only to
  leave none behind. In the other order a dead claim before ours would become the last one, and another process would
  succeed it while ours still ran. A process that dies between the two steps leaves files that no chain leads to.
* A claim that cannot be read has no known owner. Its file appears as a whole, so its content is lost only in a crash of
  its owner's machine, or because a person wrote over it. In that case the owner may still live, so its name is also in
  an extended attribute of the file, where the file system has those. Anything but a regular file was never a claim, or
  has replaced one. It is succeeded like the claim of a process that is gone; its name and inode stand for the token.
* A claim whose file may not be opened holds until a user removes it by force.
"""

from __future__ import annotations

import errno
import os
import stat
import time

from ..errors import CacheError
from ..system.process_identity import ProcessIdentity, State, is_hexadecimal, this_process
from ..utils import lite_json
from ..utils.frozen import Frozen
from ..utils.lite_contextlib import suppress
from ..utils.lite_typing import Any, Container, Iterator
from .directory import CacheDirectory, is_key

__all__ = ["Claim", "ClaimOwner", "Claims", "UnreadableClaim"]

_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_CLOSED = (errno.EACCES, errno.EPERM)
_NO_FILE = (errno.ELOOP, errno.EISDIR, errno.ENXIO, errno.ENODEV)
_ATTRIBUTE = "user.callyard.owner"
_LATEST = 253402214400  # s: the last day that `datetime` can represent in every time zone
_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS)


class ClaimOwner(ProcessIdentity):
    """The process that has a claim; its `state()` tells whether it lives."""

    name: str  # of the function
    since: float  # seconds since the epoch, by the owner's clock
    token: str  # random, of this claim alone
    job_id: str | None = None

    def where(self) -> str:
        """Describe the process for people."""
        job = f"job {self.job_id}, " if self.job_id else ""
        return f"{job}process {self.pid} on {self.host}, since {_when(self.since)}"

    def awaited(self, key: str, directory: str) -> str:
        """Describe the process for people who wait for it; where it cannot be seen, with the command to end that."""
        if self.state() != "unknown":
            return self.where()
        from shlex import quote  # here, because it imports much, and most owners can be seen

        return f"{self.where()}; if you know that it has ended: callyard retry --force {quote(directory)} {key}"


class UnreadableClaim(ClaimOwner):
    """The owner of a claim that cannot be read, as far as it is known. Its `name` is that of the file."""

    otherwise: State = "gone"  # the state where the process is not known

    def state(self) -> State:
        """Return the state of the process, if that is known, or else a state fixed when the claim was read."""
        return super().state() if self.pid else self.otherwise

    def where(self) -> str:
        """Describe the claim for people."""
        return f"somebody whose claim {self.name} cannot be read, since {_when(self.since)}"


class Claim(Frozen):
    """A claim of this process."""

    key: str
    owner: ClaimOwner
    _directory: CacheDirectory
    _chain: list[ClaimOwner]  # from the first one to ours

    def release(self) -> None:
        """Let other processes have the claim. Do nothing if it was released before, or taken away by force."""
        path = f"{self._directory.path}/claims"
        names = _names(self.key, self._chain[:-1])
        first = _read(f"{path}/{names[0]}")
        ours = first is not None and first.token == self._chain[0].token  # each token is used once
        for name, owner in list(zip(names, self._chain, strict=True))[not ours :]:
            if isinstance(owner, UnreadableClaim):
                self._directory.put_aside(f"{path}/{name}")
            else:
                _remove(self._directory, f"{path}/{name}")


class Claims:
    """The claims in a cache."""

    def __init__(self, directory: CacheDirectory) -> None:
        self._directory = directory
        self._path = f"{directory.path}/claims"

    def take(self, key: str, name: str, *, job_id: str | None = None) -> Claim | ClaimOwner:
        """Claim a key for this process; return the owner if another process has it, or may have it.

        Look for the result *after* this, because the owner before may have stored one in the meantime.
        """
        self._directory.record(key)  # raises an error for a text that is no key
        self._directory.folder("claims")
        attempt = _ClaimAttempt(self._directory, self._path, _new_owner(name, job_id))
        try:
            while True:
                chain = self._chain(key)
                if attempt.holds(chain):
                    return Claim(key, attempt.owner, self._directory, chain)
                if chain and chain[-1].state() != "gone":
                    return chain[-1]
                path = f"{self._path}/{_names(key, chain)[-1]}"
                if chain:
                    attempt.succeed(path)
                elif attempt.link(path):
                    return Claim(key, attempt.owner, self._directory, [attempt.owner])
        finally:
            attempt.end()

    def holder(self, key: str) -> ClaimOwner | None:
        """Return the process that has the claim to a key, even if it is gone."""
        self._directory.record(key)
        return next(reversed(self._chain(key)), None)

    def beat(self, key: str, job_id: str) -> None:
        """Touch the claim to a key if this job has it, as a sign of life for machines that cannot see its processes."""
        with suppress(OSError):
            chain = self._chain(key)
            if chain and chain[-1].job_id == job_id:
                os.utime(self._path_of_last(key, chain))

    def heart(self, key: str) -> int | None:
        """Return the time of the last beat (ns); open the file, because network file systems look again only then."""
        with suppress(OSError):
            descriptor = os.open(self._path_of_last(key, self._chain(key)), _READ)
            try:
                return os.fstat(descriptor).st_mtime_ns
            finally:
                os.close(descriptor)
        return None

    def _path_of_last(self, key: str, chain: list[ClaimOwner]) -> str:
        return f"{self._path}/{_names(key, chain[:-1])[-1]}"

    def running(self) -> Iterator[tuple[str, ClaimOwner]]:
        """Yield the keys that are claimed, with their owners, even those that are gone."""
        for key in self._files():
            holder = self.holder(key)
            if holder is not None:
                yield key, holder

    def force(self, key: str) -> bool:
        """Remove all claims to a key, even those of living processes; return True if there were any."""
        self._directory.record(key)
        self._directory.folder("claims")
        # The key's own file goes first, for the same reason as in a release.
        names = [key, *self._files().get(key, [])]
        removed = [_remove(self._directory, f"{self._path}/{name}") for name in names]
        return any(removed)

    def sweep(self) -> int:
        """Remove the claims of owners that are gone; return the number of their keys."""
        return sum(self._sweep(key, names) for key, names in self._files().items())

    def _sweep(self, key: str, names: list[str]) -> bool:
        """Remove all files of a key, under a claim of this process, if the owner of the key's claim is gone."""
        holder = self.holder(key)
        if holder is not None and holder.state() != "gone":
            return False
        claim = self.take(key, "sweep")
        if isinstance(claim, ClaimOwner):
            return False
        for name in set(names) - set(_names(key, claim._chain)):
            _remove(self._directory, f"{self._path}/{name}")
        claim.release()
        return True

    def _chain(self, key: str) -> list[ClaimOwner]:
        chain: list[ClaimOwner] = []
        tokens: set[str] = set()
        while (owner := _read(f"{self._path}/{_names(key, chain)[-1]}", tokens)) is not None:
            chain.append(owner)
            tokens.add(owner.token)
        return chain

    def _files(self) -> dict[str, list[str]]:
        """Return the keys that have files, each with the names of its successors' files."""
        try:
            found = [name for name in os.listdir(self._path) if is_key(name.partition("+")[0])]
        except FileNotFoundError:
            return {}
        files: dict[str, list[str]] = {name.partition("+")[0]: [] for name in found}
        for name in found:
            if "+" in name:
                files[name.partition("+")[0]].append(name)
        return files


class _ClaimAttempt:
    """A claim of this process that is not linked yet."""

    def __init__(self, directory: CacheDirectory, path: str, owner: ClaimOwner) -> None:
        self.owner = owner
        self._directory, self._path = directory, path
        self._file: str | None = None  # written only when it is needed
        self._succeeding: str | None = None  # linked here, but perhaps in vain

    def succeed(self, path: str) -> None:
        """Link to the end of a chain, which may have ended in the meantime: `holds` decides."""
        if self.link(path):
            self._succeeding = path

    def holds(self, chain: list[ClaimOwner]) -> bool:
        """Return True if our claim is the last one of a chain that was read just now; remove it if it is in vain."""
        # Our claim may be there although `link` found the name taken: NFS repeats a request whose reply got lost.
        if chain and chain[-1].token == self.owner.token:
            self._succeeding = None
            return True
        self._take_back()
        return False

    def end(self) -> None:
        self._take_back()
        if self._file is not None:
            _unlink(self._file)

    def _take_back(self) -> None:
        if self._succeeding is not None:
            _unlink(self._succeeding)
            self._succeeding = None

    def link(self, path: str) -> bool:
        """Link the claim to a name; return False if the name is taken, or the cache was deleted."""
        self._file = self._file or self._write()
        try:
            os.link(self._file, path)
            return True
        except FileExistsError:
            pass  # the next reading of the chain shows the owner
        except FileNotFoundError:  # the cache was deleted
            self._file = None
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            raise CacheError(
                f"the file system of {self._directory.path} knows no hard links, by which processes agree on who "
                "computes what: choose a directory on another one"
            ) from error
        return False

    def _write(self) -> str:
        content = lite_json.dumps(vars(self.owner)).encode() + b"\n"
        try:
            descriptor, path = self._directory.temporary_in(self._path)  # checked when `take` began
        except FileNotFoundError:  # the cache was deleted
            descriptor, path = self._directory.temporary("claims")
        try:
            if os.write(descriptor, content) != len(content):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
            _sign(descriptor, self.owner.label)
        except OSError:
            _unlink(path)
            raise
        finally:
            os.close(descriptor)
        return path


def _new_owner(name: str, job_id: str | None) -> ClaimOwner:
    return ClaimOwner(**vars(this_process()), name=name, since=time.time(), token=os.urandom(8).hex(), job_id=job_id)


def _names(key: str, chain: list[ClaimOwner]) -> list[str]:
    """Return the names of the claims in a chain, and the name of their next successor."""
    return [key, *(f"{key}+{owner.token}" for owner in chain)]


def _read(path: str, before: Container[str] = ()) -> ClaimOwner | None:
    """Return the owner named in a file; None if there is no such file, or no longer.

    A file whose token came `before` in its chain was not written by Callyard, so it counts as unreadable.
    """
    try:
        descriptor = os.open(path, _READ)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        if error.errno == errno.ESTALE:  # removed on another machine
            return None
        if error.errno not in (*_CLOSED, *_NO_FILE):
            raise
        return _unreadable(path, None, "gone" if error.errno in _NO_FILE else "unknown")
    try:
        owner = _parse(os.read(descriptor, 1 << 16)) if stat.S_ISREG(os.fstat(descriptor).st_mode) else None
        return owner if owner is not None and owner.token not in before else _unreadable(path, descriptor)
    except OSError as error:
        if error.errno == errno.ESTALE:
            return None
        raise
    finally:
        os.close(descriptor)


# The types of the fields of an owner.
_TYPES: tuple[Any, ...] = (str, str, str, str, int, int, str, (int, float), str, (str, type(None)))


def _parse(content: bytes) -> ClaimOwner | None:
    """Return the owner that a claim names; None if Callyard did not write it."""
    try:
        found = lite_json.loads(content)
        owner = ClaimOwner(**{name: found[name] for name in ClaimOwner.fields})
        typed = all(isinstance(found[name], kind) for name, kind in zip(ClaimOwner.fields, _TYPES, strict=True))
    except (ValueError, TypeError, KeyError):
        return None
    return owner if typed and _is_sound(owner) else None


def _is_sound(owner: ClaimOwner) -> bool:
    process = ProcessIdentity(*(getattr(owner, name) for name in ProcessIdentity.fields))
    return (
        is_hexadecimal(owner.token)
        and 0 <= owner.since < _LATEST
        and ProcessIdentity.from_label(owner.label) == process
    )


def _unreadable(path: str, descriptor: int | None, otherwise: State = "gone") -> ClaimOwner | None:
    from blake3 import blake3  # here, because nearly all claims can be read

    try:
        status = os.lstat(path) if descriptor is None else os.fstat(descriptor)
    except (FileNotFoundError, NotADirectoryError):
        return None
    process = None if descriptor is None else _signer(descriptor)
    if process is None:
        process = ProcessIdentity("", "", "", "", 0, 0)
    else:
        otherwise = "unknown"
    token = blake3(f"{os.path.basename(path)}/{status.st_ino}".encode()).hexdigest()[:16]
    return UnreadableClaim(**vars(process), name=path, since=status.st_mtime, token=token, otherwise=otherwise)


def _sign(descriptor: int, label: str) -> None:
    """Write the owner into an attribute of the file too, where it outlives a lost content."""
    with suppress(OSError, AttributeError):  # many systems and file systems have no attributes
        os.setxattr(descriptor, _ATTRIBUTE, label.encode())


def _signer(descriptor: int) -> ProcessIdentity | None:
    with suppress(OSError, AttributeError, UnicodeDecodeError):
        return ProcessIdentity.from_label(os.getxattr(descriptor, _ATTRIBUTE).decode())
    return None


def _when(since: float) -> str:
    try:
        now, then = time.localtime(), time.localtime(since)
    except (OSError, OverflowError, ValueError):  # a time that makes no sense, from a file system with a wrong clock
        return "an unknown time"
    return time.strftime("%H:%M:%S" if now[:3] == then[:3] else "%Y-%m-%d %H:%M:%S", then)


def _remove(directory: CacheDirectory, path: str) -> bool:
    """Remove a claim, or move a foreign thing of its name aside; return False if nothing has this name."""
    try:
        return _unlink(path)
    except (IsADirectoryError, PermissionError):
        directory.put_aside(path)
        return True


def _unlink(path: str) -> bool:
    try:
        os.unlink(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True
