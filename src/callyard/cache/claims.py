"""Who computes what: at most one living process has the claim to a key.

A claim is a file that says whose it is. It is written under another name and then linked to its own, which makes
it appear whole, and for exactly one of all that try, on network file systems too. There are no locks and no
times: a claim ends when it is released, or when its owner can be proven gone.

    claims/<key>           the first claim
    claims/<key>+<token>   the claim that succeeds the one with this token, whose owner is gone

So the claims to a key form a chain, and its last one holds. Its rules, and why nothing goes wrong:

* What has a name is never changed nor replaced, only removed, and no token comes twice.
* Linking to `<key>` succeeds only where nobody holds. Linking to `<key>+<token>` succeeds for one of those that found
  the owner gone, but perhaps long after another one had succeeded it and released. So who has linked there reads the
  chain again from its first claim: only if its own is the last one, it holds.
* Who holds releases by removing `<key>`, and everything that hung on it with one stroke; the other files are only
  tidied away. Were they removed first, a dead claim before ours would be the last one, and be succeeded, while we
  were still at it. Who dies between the two leaves files that no chain leads to.
* What cannot be read is nobody's. A claim is there as a whole or not at all, so its content can be lost only with the
  machine on which its owner ran, or to somebody who wrote over it. Its owner may live then, so the name of that is in
  an attribute of the file too, where the file system has those. What is no regular file was never a claim, or somebody
  has removed that. It is succeeded as the claim of a process that is gone; its name and number stand for the token.
* A claim that may not be opened holds, until somebody uses force.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import time
from collections.abc import Container, Iterator

from ..errors import CacheError
from ..system.process_identity import ProcessIdentity, State, is_hexadecimal, this_process
from ..utils import lite_json
from ..utils.frozen import Frozen
from ..utils.lite_typing import Any
from .directory import CacheDirectory, is_key

__all__ = ["Claim", "ClaimOwner", "Claims", "UnreadableClaim"]

_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_CLOSED = (errno.EACCES, errno.EPERM)
_NO_FILE = (errno.ELOOP, errno.EISDIR, errno.ENXIO, errno.ENODEV)
_ATTRIBUTE = "user.callyard.owner"
_LATEST = 253402214400  # s: the last day of which `datetime` knows in every time zone
_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS)


class ClaimOwner(ProcessIdentity):
    """The process that has a claim; its `state()` tells whether it lives."""

    name: str  # of the function
    since: float  # seconds since the epoch, by the owner's clock
    token: str  # random, of this claim alone
    job_id: str | None = None

    def where(self) -> str:
        """Say to people which process it is."""
        job = f"job {self.job_id}, " if self.job_id else ""
        return f"{job}process {self.pid} on {self.host}, since {_when(self.since)}"

    def awaited(self, key: str, directory: str) -> str:
        """Say to people for whom they wait, and how to end that where nobody can see whether the process lives."""
        if self.state() != "unknown":
            return self.where()
        from shlex import quote  # here, because it loads much, and most owners can be seen

        return f"{self.where()}; if you know that it has ended: callyard retry --force {quote(directory)} {key}"


class UnreadableClaim(ClaimOwner):
    """Who has a claim that cannot be read, as far as that is known. Its `name` is that of the file."""

    otherwise: State = "gone"  # where it is not known which process it is

    def state(self) -> State:
        """Tell whether its process lives; nobody's is as one that is gone."""
        return super().state() if self.pid else self.otherwise

    def where(self) -> str:
        """Say to people what there is."""
        return f"somebody whose claim {self.name} cannot be read, since {_when(self.since)}"


class Claim(Frozen):
    """A claim that is ours."""

    key: str
    owner: ClaimOwner
    _home: CacheDirectory
    _chain: list[ClaimOwner]  # from the first one to ours

    def release(self) -> None:
        """Let others have it. Nothing happens where that was done before, or where somebody used force."""
        directory = f"{self._home.path}/claims"
        names = _names(self.key, self._chain[:-1])
        first = _read(f"{directory}/{names[0]}")
        ours = first is not None and first.token == self._chain[0].token  # no two are alike
        for name, owner in list(zip(names, self._chain, strict=True))[not ours :]:
            if isinstance(owner, UnreadableClaim):
                self._home.put_aside(f"{directory}/{name}")
            else:
                _remove(self._home, f"{directory}/{name}")


class Claims:
    """The claims in a cache."""

    def __init__(self, home: CacheDirectory) -> None:
        self._home = home
        self._directory = f"{home.path}/claims"

    def take(self, key: str, name: str, *, job_id: str | None = None) -> Claim | ClaimOwner:
        """Claim a key for this process; return the owner if somebody else has it, or may have it.

        Look for the result *after* taking it: whoever had it before may have stored one meanwhile.
        """
        self._home.record(key)  # is it a key
        self._home.folder("claims")
        attempt = _ClaimAttempt(self._home, self._directory, _new_owner(name, job_id))
        try:
            while True:
                chain = self._chain(key)
                if attempt.holds(chain):
                    return Claim(key, attempt.owner, self._home, chain)
                if chain and chain[-1].state() != "gone":
                    return chain[-1]
                path = f"{self._directory}/{_names(key, chain)[-1]}"
                if chain:
                    attempt.succeed(path)
                elif attempt.link(path):
                    return Claim(key, attempt.owner, self._home, [attempt.owner])
        finally:
            attempt.end()

    def holder(self, key: str) -> ClaimOwner | None:
        """Return who has the claim to a key, also if it is gone."""
        self._home.record(key)
        return next(reversed(self._chain(key)), None)

    def beat(self, key: str, job_id: str) -> None:
        """Show those who cannot look at the processes of a job that it is there, if it has the claim to a key."""
        with contextlib.suppress(OSError):
            chain = self._chain(key)
            if chain and chain[-1].job_id == job_id:
                os.utime(self._path_of_last(key, chain))

    def heart(self, key: str) -> int | None:
        """Another number after each beat of who has the claim. Opened, for network file systems know it then."""
        with contextlib.suppress(OSError):
            descriptor = os.open(self._path_of_last(key, self._chain(key)), _READ)
            try:
                return os.fstat(descriptor).st_mtime_ns
            finally:
                os.close(descriptor)
        return None

    def _path_of_last(self, key: str, chain: list[ClaimOwner]) -> str:
        return f"{self._directory}/{_names(key, chain[:-1])[-1]}"

    def running(self) -> Iterator[tuple[str, ClaimOwner]]:
        """Yield the keys that are claimed, with their owners, also those that are gone."""
        for key in self._files():
            holder = self.holder(key)
            if holder is not None:
                yield key, holder

    def force(self, key: str) -> bool:
        """Forget all claims to a key, whoever has them; return whether there were any."""
        self._home.record(key)
        self._home.folder("claims")
        # In this order, for the same reason as in a release.
        names = [key, *self._files().get(key, [])]
        removed = [_remove(self._home, f"{self._directory}/{name}") for name in names]
        return any(removed)

    def sweep(self) -> int:
        """Remove the claims of owners that are gone; return to how many keys."""
        return sum(self._sweep(key, names) for key, names in self._files().items())

    def _sweep(self, key: str, names: list[str]) -> bool:
        """Take the claim to a key if nobody lives who has it: all that does not belong to us then can go."""
        holder = self.holder(key)
        if holder is not None and holder.state() != "gone":
            return False
        claim = self.take(key, "sweep")
        if isinstance(claim, ClaimOwner):
            return False
        for name in set(names) - set(_names(key, claim._chain)):
            _remove(self._home, f"{self._directory}/{name}")
        claim.release()
        return True

    def _chain(self, key: str) -> list[ClaimOwner]:
        chain: list[ClaimOwner] = []
        tokens: set[str] = set()
        while (owner := _read(f"{self._directory}/{_names(key, chain)[-1]}", tokens)) is not None:
            chain.append(owner)
            tokens.add(owner.token)
        return chain

    def _files(self) -> dict[str, list[str]]:
        """Return the keys for which there are files, and the names of those that belong to successors."""
        try:
            found = [name for name in os.listdir(self._directory) if is_key(name.partition("+")[0])]
        except FileNotFoundError:
            return {}
        files: dict[str, list[str]] = {name.partition("+")[0]: [] for name in found}
        for name in found:
            if "+" in name:
                files[name.partition("+")[0]].append(name)
        return files


class _ClaimAttempt:
    """A claim that waits to be linked."""

    def __init__(self, home: CacheDirectory, directory: str, owner: ClaimOwner) -> None:
        self.owner = owner
        self._home, self._directory = home, directory
        self._file: str | None = None  # not written before it is clear that it will be needed
        self._succeeding: str | None = None  # where it is linked, but not known to hold

    def succeed(self, path: str) -> None:
        """Become the next claim of a chain, if that is still there: `holds` tells."""
        if self.link(path):
            self._succeeding = path

    def holds(self, chain: list[ClaimOwner]) -> bool:
        """Tell whether our claim is the last one of a chain that was read just now. If it is in vain, remove it."""
        # Also where the file system said that the name was taken: the reply to a first try may have got lost.
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
        """Give it a name, unless that is taken."""
        self._file = self._file or self._write()
        try:
            os.link(self._file, path)
            return True
        except FileExistsError:
            pass  # who has it, shows when the chain is read again
        except FileNotFoundError:  # somebody deleted the cache
            self._file = None
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            raise CacheError(
                f"the file system of {self._home.path} knows no hard links, by which processes agree on who "
                "computes what: choose a directory on another one"
            ) from error
        return False

    def _write(self) -> str:
        content = lite_json.dumps(vars(self.owner)).encode() + b"\n"
        try:
            descriptor, path = self._home.temporary_in(self._directory)  # it was looked at when this began
        except FileNotFoundError:  # somebody deleted the cache
            descriptor, path = self._home.temporary("claims")
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
    """Return the names of the claims in a chain, and of the one that would come next."""
    return [key, *(f"{key}+{owner.token}" for owner in chain)]


def _read(path: str, before: Container[str] = ()) -> ClaimOwner | None:
    """Return the owner in a file; None if the file is not there, or not any more.

    One whose token came `before` in its chain is none that we have written.
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


# Of the fields of an owner.
_TYPES: tuple[Any, ...] = (str, str, str, str, int, int, str, (int, float), str, (str, type(None)))


def _parse(content: bytes) -> ClaimOwner | None:
    """Return the owner that a claim names; None if it was not written by us."""
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
    from blake3 import blake3  # here, because nearly all can be read

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
    """Say also beside the content of a file whose it is."""
    with contextlib.suppress(OSError, AttributeError):  # many systems and file systems have no attributes
        os.setxattr(descriptor, _ATTRIBUTE, label.encode())


def _signer(descriptor: int) -> ProcessIdentity | None:
    with contextlib.suppress(OSError, AttributeError, UnicodeDecodeError):
        return ProcessIdentity.from_label(os.getxattr(descriptor, _ATTRIBUTE).decode())
    return None


def _when(since: float) -> str:
    try:
        now, then = time.localtime(), time.localtime(since)
    except (OSError, OverflowError, ValueError):  # the clock of a file system that makes no sense
        return "an unknown time"
    return time.strftime("%H:%M:%S" if now[:3] == then[:3] else "%Y-%m-%d %H:%M:%S", then)


def _remove(home: CacheDirectory, path: str) -> bool:
    """Remove what has the name of a claim, or what is there in its place; return whether it was there."""
    try:
        return _unlink(path)
    except (IsADirectoryError, PermissionError):
        home.put_aside(path)
        return True


def _unlink(path: str) -> bool:
    try:
        os.unlink(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True
