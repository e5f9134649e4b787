"""The claims of processes to keys: at most one living process has the claim to a key, and runs the call.

A claim is a file that names its owner, written under a temporary name and then linked to its own. Linking makes the
file appear as a whole, and succeeds for exactly one of all trying processes, on network file systems too. There are no
locks and no time-outs: a claim ends with its release, or with proof that its owner is gone.

    claims/<key>           the first claim
    claims/<key>+<token>   the successor of the claim with this token, whose owner is gone

So the claims to a key form a chain, and the last one holds. The rules and their reasons:

* A linked claim is never changed or replaced, only removed, and no token is used twice.
* Linking to `<key>` succeeds only where no process has the claim. Linking to `<key>+<token>` succeeds for one of the
  processes that found the owner gone, but perhaps long after another process had succeeded the owner and released its
  claim. So after linking there a process reads the chain again from the first claim, and has the claim only if its
  own file is the last one.
* A release removes `<key>` first, which ends the whole chain at once; the other files are removed afterwards, only to
  leave none behind. In the other order a dead claim before ours would become the last one, and another process would
  succeed it while ours still ran. A process that dies between the two steps leaves files that no chain leads to.
* An unreadable claim has no known owner. A claim appears as a whole, so its content is lost only in a crash of the
  owner's machine, or because a person wrote over the file. In the second case the owner may still live, so an extended
  attribute of the file names the owner too, on file systems with attributes. Anything but a regular file was never a
  claim, or has replaced one, and is succeeded like the claim of a dead owner; name and inode stand for the token.
* A claim whose file may not be opened holds until a user removes it by force.
"""

from __future__ import annotations

import errno
import os
import stat
import time

from ..errors import CacheError
from ..system.process_identity import ProcessIdentity, State, is_hexadecimal, this_process
from ..utils.lite_stdlib import Any, Container, Frozen, Iterator, json_dumps, json_loads, suppress
from .directory import CacheDirectory, is_key, remove_file

__all__ = ["Claim", "ClaimOwner", "Claims", "UnreadableClaim"]

_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_CLOSED = (errno.EACCES, errno.EPERM)
_NO_FILE = (errno.ELOOP, errno.EISDIR, errno.ENXIO, errno.ENODEV)
_ATTRIBUTE = "user.callyard.owner"
_LATEST = 253402214400  # s: the last day that `datetime` can represent in every time zone
_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS)


class ClaimOwner(ProcessIdentity):
    """The process with a claim; `state()` is "alive", "gone" or "unknown"."""

    name: str  # of the function
    since: float  # seconds since the epoch, by the owner's clock
    token: str  # random, of this claim alone
    job_id: str | None = None
    arguments: str = ""  # of the call, for people

    def where(self) -> str:
        """Describe the process for people."""
        job = f"job {self.job_id}, " if self.job_id else ""
        return f"{job}process {self.pid} on {self.host}, since {_when(self.since)}"

    def awaited(self, key: str, directory: str) -> str:
        """Describe the process for waiting people; for one that cannot be seen, with the command to end the wait."""
        if self.state() != "unknown":
            return self.where()
        from shlex import quote  # here, because this import is slow, and most owners can be seen

        return f"{self.where()}; if you know that it has ended: callyard retry --force {quote(directory)} {key}"


class UnreadableClaim(ClaimOwner):
    """The owner of an unreadable claim, as far as known. `name` is the name of the file."""

    otherwise: State = "gone"  # the state where the process is not known

    def state(self) -> State:
        """Return the state of a known process, otherwise the state fixed at the reading of the claim."""
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
        """Give the claim up. Do nothing after an earlier release, or after a removal by force."""
        path = f"{self._directory.path}/claims"
        names = _names(self.key, self._chain[:-1])
        # After a removal by force another process may have begun a new chain, whose first file must stay.
        first = _read(f"{path}/{names[0]}")
        ours = first is not None and first.token == self._chain[0].token  # each token is used once
        for name, owner in list(zip(names, self._chain, strict=True))[not ours :]:
            if isinstance(owner, UnreadableClaim):
                self._directory.set_path_aside(f"{path}/{name}")
            else:
                _remove(self._directory, f"{path}/{name}")


class Claims:
    """The claims in a cache."""

    def __init__(self, directory: CacheDirectory) -> None:
        self._directory = directory
        self._path = f"{directory.path}/claims"

    def take(self, key: str, name: str, *, job_id: str | None = None, arguments: str = "") -> Claim | ClaimOwner:
        """Claim a key for this process; return the owner if another process has the claim, or may have it.

        Look for the result *after* this, because the owner before may have stored one in the meantime.
        """
        self._directory.record(key)  # raises an error for an invalid key
        self._directory.subdirectory("claims")
        attempt = _ClaimAttempt(self._directory, self._path, _new_owner(name, job_id, arguments))
        try:
            while True:  # each round begins anew from the files, because other processes change the chain meanwhile
                chain = self._chain(key)
                if attempt.holds(chain):
                    return Claim(key, attempt.owner, self._directory, chain)
                if chain and chain[-1].state() != "gone":
                    return chain[-1]
                path = f"{self._path}/{_names(key, chain)[-1]}"
                if chain:
                    attempt.succeed(path)  # no return: only the next reading of the chain can confirm the claim
                elif attempt.link(path):  # the first claim needs no confirmation: the name was free
                    return Claim(key, attempt.owner, self._directory, [attempt.owner])
        finally:
            attempt.end()

    def holder(self, key: str) -> ClaimOwner | None:
        """Return the process with the claim to a key, even a process that is gone."""
        self._directory.record(key)
        return next(reversed(self._chain(key)), None)

    def beat(self, key: str, job_id: str) -> None:
        """Touch the claim to a key if this job has it, as a sign of life for other machines, which see no processes."""
        with suppress(OSError):
            chain = self._chain(key)
            if chain and chain[-1].job_id == job_id:
                os.utime(self._path_of_last(key, chain))

    def last_beat(self, key: str) -> int | None:
        """Return the time of the last beat (ns); None without a claim."""
        with suppress(OSError):
            # Opened, because a network file system asks its server for the time only then.
            descriptor = os.open(self._path_of_last(key, self._chain(key)), _READ)
            try:
                return os.fstat(descriptor).st_mtime_ns
            finally:
                os.close(descriptor)
        return None

    def _path_of_last(self, key: str, chain: list[ClaimOwner]) -> str:
        return f"{self._path}/{_names(key, chain[:-1])[-1]}"

    def running(self) -> Iterator[tuple[str, ClaimOwner]]:
        """Yield the claimed keys with their owners, dead owners included."""
        for key in self._files():
            holder = self.holder(key)
            if holder is not None:
                yield key, holder

    def force(self, key: str) -> bool:
        """Remove all claims to a key, even of living processes; return True if there were any."""
        self._directory.record(key)
        self._directory.subdirectory("claims")
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
        claim = self.take(key, "sweep")  # keeps other processes from succeeding a file during its removal
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
        """Return the keys with files, each with the names of the successors' files."""
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
    """A claim of this process, not linked yet."""

    def __init__(self, directory: CacheDirectory, path: str, owner: ClaimOwner) -> None:
        self.owner = owner
        self._directory, self._path = directory, path
        self._file: str | None = None  # written only when needed
        self._succeeding: str | None = None  # linked here, but perhaps in vain

    def succeed(self, path: str) -> None:
        """Link to the end of a chain. The chain may have ended in the meantime, so `holds` decides."""
        if self.link(path):
            self._succeeding = path

    def holds(self, chain: list[ClaimOwner]) -> bool:
        """Return True if our claim is the last one of a chain read just now; remove a claim linked in vain."""
        # Our claim may be there although `link` found the name taken: NFS repeats a request after a lost reply.
        if chain and chain[-1].token == self.owner.token:
            self._succeeding = None
            return True
        self._take_back()
        return False

    def end(self) -> None:
        self._take_back()
        if self._file is not None:
            remove_file(self._file)

    def _take_back(self) -> None:
        if self._succeeding is not None:
            remove_file(self._succeeding)
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
        content = json_dumps(vars(self.owner)).encode() + b"\n"
        try:
            descriptor, path = self._directory.temporary_in(self._path)  # checked when `take` began
        except FileNotFoundError:  # the cache was deleted
            descriptor, path = self._directory.temporary("claims")
        try:
            if os.write(descriptor, content) != len(content):  # a full disk may take a part
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
            _sign(descriptor, self.owner.label)
        except OSError:
            remove_file(path)
            raise
        finally:
            os.close(descriptor)
        return path


def _new_owner(name: str, job_id: str | None, arguments: str) -> ClaimOwner:
    mine, token = vars(this_process()), os.urandom(8).hex()
    return ClaimOwner(**mine, name=name, since=time.time(), token=token, job_id=job_id, arguments=arguments)


def _names(key: str, chain: list[ClaimOwner]) -> list[str]:
    """Return the names of the claims in a chain, and the name of their next successor."""
    return [key, *(f"{key}+{owner.token}" for owner in chain)]


def _read(path: str, before: Container[str] = ()) -> ClaimOwner | None:
    """Return the owner named in a file; None if there is no such file, or no longer.

    A file with a token from `before` in its chain was not written by Callyard, and counts as unreadable.
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
_TYPES: tuple[Any, ...] = (str, str, str, str, int, int, str, (int, float), str, (str, type(None)), str)


def _parse(content: bytes) -> ClaimOwner | None:
    """Return the owner named by a claim; None for a file not written by Callyard."""
    try:
        found = {"arguments": "", **json_loads(content)}  # claims of earlier versions have none
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
    """Write the owner into an attribute of the file too, which outlives a lost content."""
    with suppress(OSError, AttributeError):  # many systems and file systems have no attributes
        os.setxattr(descriptor, _ATTRIBUTE, label.encode())


def _signer(descriptor: int) -> ProcessIdentity | None:
    with suppress(OSError, AttributeError, UnicodeDecodeError):
        return ProcessIdentity.from_label(os.getxattr(descriptor, _ATTRIBUTE).decode())
    return None


def _when(since: float) -> str:
    try:
        now, then = time.localtime(), time.localtime(since)
    except (OSError, OverflowError, ValueError):  # an impossible time, from a file system with a wrong clock
        return "an unknown time"
    return time.strftime("%H:%M:%S" if now[:3] == then[:3] else "%Y-%m-%d %H:%M:%S", then)


def _remove(directory: CacheDirectory, path: str) -> bool:
    """Remove a claim, or move a foreign thing of its name aside; return False if nothing has this name."""
    try:
        return remove_file(path)
    except (IsADirectoryError, PermissionError):
        directory.set_path_aside(path)
        return True
