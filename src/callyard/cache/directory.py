"""The directory of a cache: the places of its files, and their publication as whole files.

    <cache>/3f/3f...a2.h5     a record, in one of 256 shards by the first two digits of the key
    <cache>/own/<key>.h5      a record with a key chosen by the user
    <cache>/failed/<key>.h5   a failure, which answers no call
    <cache>/output/<key>.log  the output of a call that runs
    <cache>/claims/           the claims of processes to keys: see `claims`
    <cache>/damaged/          damaged files, set aside
    <cache>/jobs/             calls submitted to a scheduler: see `jobs.spool`
    in any of these, .tmp-<process>~<random>: a file or directory in the making, or being removed

Anything may vanish at any time, because users delete caches, so missing directories are made again.
"""

from __future__ import annotations

import os
import stat

from ..errors import CacheError, UnsafeCache
from ..system.process_identity import ProcessIdentity, is_hexadecimal, own_label
from ..utils.lite_stdlib import Callable, Frozen, Iterator, suppress
from .permissions import Trust, check_file, check_within, make_directory, open_directory, resolve, resolve_cache

__all__ = ["CacheDirectory", "FailuresDirectory", "is_key", "remove_file", "remove_tree", "sync_directory"]

_LONGEST = 200  # characters of a key chosen by the user
_LETTERS = frozenset("0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ._-")
_TEMPORARY = ".tmp-"
_SUFFIX = ".h5"

# Never follow a link, and never wait for the other end, because the file may have been replaced by a pipe.
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_NO_ATIME: int = getattr(os, "O_NOATIME", 0)
_CREATE = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class CacheDirectory(Frozen):
    """The directory of a cache, writable only for its user or a trusted group."""

    path: str  # without symbolic links
    trust: Trust | None = None
    writable: bool = True
    group: int | None = None  # the number of the trusted group

    @classmethod
    def open(cls, path: str | os.PathLike[str], *, writable: bool = True, trust: str | None = None) -> CacheDirectory:
        """Return the cache in a directory, made if missing.

        Raises UnsafeCache if others could have written into the directory, or could replace it by another one.
        """
        if trust not in (None, "group"):
            raise CacheError(f'trust is None or "group", not {trust!r}')
        checked: Trust | None = "group" if trust else None
        real, status = open_directory(os.fspath(path), checked, writable)
        return cls(real, checked, writable, status.st_gid if trust else None)

    # ------------------------------------------------------------------ records

    def record(self, key: str) -> str:
        """Return the path of the file of a key, present or not."""
        return f"{self.path}/{self.shard_of(key)}/{key}{_SUFFIX}"

    def shard_of(self, key: str) -> str:
        """Return the name of the subdirectory with the file of a key; raise CacheError for what cannot be a key."""
        if is_hexadecimal(key, 40):
            return key[:2]
        if is_key(key):
            return "own"
        raise CacheError(
            f"{key!r} cannot be a key: use at most 200 letters, digits and any of `._-`, and no dot at the beginning"
        )

    @property
    def failures(self) -> CacheDirectory:
        """The failures kept in this cache: records too, but in a place of their own, because they answer no calls."""
        return FailuresDirectory(self.path, self.trust, self.writable, self.group)

    def open_record(self, key: str, *, is_use: bool = True) -> int:
        """Return a descriptor of the file of a key, for reading. To look at it is no use: its time of use stays.

        Raises FileNotFoundError if there is none, and UnsafeCache if others could have written the file.
        """
        subdirectory = self.shard_of(key)
        path = f"{self.path}/{subdirectory}/{key}{_SUFFIX}"
        try:
            descriptor = os.open(path, _READ) if is_use else _open_unnoticed(path)
        except FileNotFoundError:
            raise
        except OSError:
            self._explain(subdirectory, path)
            raise
        try:
            # Check the open file, not the path, which may lead to another file by now.
            check_file(path, os.fstat(descriptor), self.trust, self.group, descriptor)
            self.check(f"{self.path}/{subdirectory}")
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    def inode(self) -> int:
        """Return the inode of the directory, by which other machines recognize it; make a removed directory again."""
        try:
            return os.stat(self.path).st_ino
        except FileNotFoundError:
            CacheDirectory.open(self.path, writable=self.writable, trust=self.trust)
            return os.stat(self.path).st_ino

    def exists(self, key: str) -> bool:
        return os.path.lexists(self.record(key))

    def publish(self, key: str, write: Callable[[int], object], *, sync: bool = False) -> None:
        """Fill a new file by `write(descriptor)`, and make the file visible under its key.

        Others see either the whole file or the one before. With `sync` the file outlives a power failure too. `write`
        must not close the descriptor. Exceptions of `write` and of the system go to the caller.
        """
        subdirectory = self.shard_of(key)
        descriptor, temporary = self.temporary(subdirectory)
        try:
            try:
                write(descriptor)
                if sync:
                    os.fsync(descriptor)
            finally:
                os.close(descriptor)  # network file systems report a full disk only now
            os.replace(temporary, self.record(key))  # atomic: a reader finds the old file or the new one, never a part
        except BaseException:
            remove_file(temporary)
            raise
        if sync:
            sync_directory(f"{self.path}/{subdirectory}")
            sync_directory(self.path)  # the shard may be new

    def set_aside(self, key: str, reason: str) -> str:
        """Move the file of a key into the directory of damaged files, with the reason beside it; return its new path.

        A missing file is ignored. In a read-only cache the file stays, and the return value is its present path.
        """
        path = self.record(key)
        if not self.writable:
            return path
        aside = f"{self.path}/damaged/{key}.{_random()}"  # random, because a key may be damaged more than once
        try:
            self.subdirectory("damaged")
            os.rename(path, aside + _SUFFIX)
        except (FileNotFoundError, NotADirectoryError):
            return aside + _SUFFIX
        _write_reason(aside, reason)
        return aside + _SUFFIX

    def set_path_aside(self, path: str, reason: str = "") -> str:
        """Move a foreign or unreadable file, or a directory, to the damaged files; return its new path.

        Where that is not possible it stays, and the return value is its present path.
        """
        try:
            aside = f"{self.subdirectory('damaged')}/{os.path.basename(path)}.{_random()}"
            os.rename(path, aside)
        except OSError:
            return path
        if reason:
            _write_reason(aside, reason)
        return aside

    def remove(self, key: str) -> bool:
        """Remove the file of a key; return False if there was none."""
        self._require_writable()
        return remove_file(self.record(key))

    def remove_failure(self, key: str) -> bool:
        """Remove the failure kept of a key; return False if there was none."""
        return remove_file(f"{self.path}/failed/{key}{_SUFFIX}")

    def keys(self) -> Iterator[str]:
        return (key for key, _ in self.entries())

    def entries(self) -> Iterator[tuple[str, os.DirEntry[str]]]:
        """Yield all keys, each with its entry of `os.scandir` for size and age."""
        for shard in self._shards():
            for entry in _scan(f"{self.path}/{shard}"):
                key, suffix = entry.name[: -len(_SUFFIX)], entry.name[-len(_SUFFIX) :]
                if suffix == _SUFFIX and is_key(key) and self.shard_of(key) == shard:
                    yield key, entry

    def _shards(self) -> list[str]:
        names = (entry.name for entry in _scan(self.path))
        return [name for name in names if name == "own" or is_hexadecimal(name, 2)]

    def log(self, key: str) -> str:
        """Return the path of the output of a call while it runs, present or not."""
        return f"{self.path}/output/{key}.log"

    def left(self, subdirectory: str = "") -> Iterator[str]:
        """Yield the paths of temporary files of dead writers, in one of the directories or in all."""
        names = (
            [subdirectory]
            if subdirectory
            else [shard.name for shard in _scan(self.path) if not shard.name.startswith(".")]
        )
        subdirectories = (f"{self.path}/{name}" for name in names)
        found = (
            entry
            for subdirectory in subdirectories
            for entry in _scan(subdirectory)
            if entry.name.startswith(_TEMPORARY)
        )
        return (entry.path for entry in found if _is_left(entry.name))

    def sweep(self, subdirectory: str = "") -> int:
        """Remove the temporary files and directories of dead writers; return their number."""
        self._require_writable()
        return sum(map(remove_tree, self.left(subdirectory)))

    # ------------------------------------------------------------------ subdirectories

    def subdirectory(self, name: str) -> str:
        """Return the path of a directory in the cache, made if missing."""
        self._require_writable()
        path = f"{self.path}/{name}"
        try:
            self.check(path)
        except (FileNotFoundError, NotADirectoryError):
            self._make(path)
            self.check(path)
        return path

    def temporary(self, name: str) -> tuple[int, str]:
        """Return descriptor and path of a new temporary file in a directory of the cache, made if missing."""
        for _ in range(4):
            with suppress(FileNotFoundError):  # the cache is being deleted
                return self.temporary_in(self.subdirectory(name))
        return self.temporary_in(self.subdirectory(name))

    def temporary_name(self, subdirectory: str) -> str:
        """Return a new path for a temporary file in a directory, with the writing process in the name."""
        return f"{subdirectory}/{_TEMPORARY}{own_label()}~{_random()}"

    def temporary_in(self, subdirectory: str) -> tuple[int, str]:
        """Return descriptor and path of a new temporary file in an existing directory."""
        path = self.temporary_name(subdirectory)
        descriptor = os.open(path, _CREATE, 0o600)
        if self.group is not None:
            _give(descriptor, path, self.group)
        return descriptor, path

    def temporary_directory(self, name: str) -> str:
        """Return the path of a new temporary directory in a directory of the cache."""
        path = self.temporary_name(self.subdirectory(name))
        make_directory(path, self.trust, self.group)
        return path

    def _make(self, path: str) -> None:
        # Check the cache itself again: after a deletion another user may have made a directory of this name.
        resolve_cache(self.path, self.trust, make=True)
        with suppress(FileNotFoundError):
            if not stat.S_ISDIR(os.stat(path).st_mode):
                os.rename(path, f"{path}.{_random()}.damaged")
        with suppress(FileExistsError):  # another process was faster
            make_directory(path, self.trust, self.group)

    def check(self, path: str) -> None:
        """Raise UnsafeCache if others could exchange the files in a directory of the cache.

        This is checked each time, because to recognize a checked directory would cost as much.
        """
        status = os.lstat(path)
        if stat.S_ISLNK(status.st_mode):  # the user may have moved the directory to another disk
            status = os.lstat(resolve(path, self.trust, make=False, group=self.group))
        if not stat.S_ISDIR(status.st_mode):
            raise NotADirectoryError(f"{path} is not a directory")
        check_within(path, status, self.trust, self.group)

    def _explain(self, subdirectory: str, path: str) -> None:
        """Raise a better error than the system's for a file that cannot be opened, if the reason is known."""
        try:
            self.check(f"{self.path}/{subdirectory}")
            status = os.lstat(path)
        except (FileNotFoundError, NotADirectoryError):
            raise FileNotFoundError(f"there is no {path}") from None
        if stat.S_ISLNK(status.st_mode):
            raise UnsafeCache(f"{path} is a symbolic link, which records never are: remove it")
        check_file(path, status, self.trust, self.group)

    def _require_writable(self) -> None:
        if not self.writable:
            raise CacheError(f"the cache {self.path} is only read here: open it for writing to change it")


class FailuresDirectory(CacheDirectory):
    """The failures of a cache that answer no calls, in a subdirectory of their own."""

    def shard_of(self, key: str) -> str:
        super().shard_of(key)
        return "failed"

    def _shards(self) -> list[str]:
        return ["failed"]


def _open_unnoticed(path: str) -> int:
    with suppress(PermissionError):  # only the owner of a file may read it so
        return os.open(path, _READ | _NO_ATIME)
    return os.open(path, _READ)


def is_key(name: str) -> bool:
    """Return True if a name can be a key: a digest, or a text chosen by the user."""
    return 0 < len(name) <= _LONGEST and name[0] != "." and _LETTERS.issuperset(name)


def _write_reason(aside: str, reason: str) -> None:
    """Write down why something was set aside. That is not worth an error: the disk may be full."""
    with suppress(OSError), open(aside + ".txt", "x", encoding="utf-8") as file:
        file.write(reason + "\n")


def _random() -> str:
    return os.urandom(6).hex()


def _scan(path: str) -> list[os.DirEntry[str]]:
    """Return the entries of a directory, none of a missing one."""
    try:
        with os.scandir(path) as entries:
            return list(entries)
    except (FileNotFoundError, NotADirectoryError):
        return []


def _is_left(name: str) -> bool:
    """Return True if the writer of a temporary file is gone."""
    writer = ProcessIdentity.from_label(name[len(_TEMPORARY) :].rpartition("~")[0])
    return writer is not None and writer.state() == "gone"


def remove_file(path: str) -> bool:
    """Remove a file; return False if there was none, because anything in a cache may vanish at any time."""
    try:
        os.unlink(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def remove_tree(path: str) -> bool:
    """Remove a file or a whole directory; return False if there was none."""
    if os.path.islink(path) or not os.path.isdir(path):
        return remove_file(path)
    import shutil  # here, because this import is slow, and jobs remove no directories

    shutil.rmtree(path, ignore_errors=True)
    return True


def _give(descriptor: int, path: str, group: int) -> None:
    """Give the members of a group access to a new file, independently of the umask."""
    try:
        os.fchown(descriptor, -1, group)
        os.fchmod(descriptor, 0o660)
    except OSError:
        os.close(descriptor)
        remove_file(path)
        raise


def write_all(fd: int, data: bytes | memoryview, at: int) -> None:
    """Write bytes at an offset of a file, all of them."""
    written = os.pwrite(fd, data, at)
    while written < len(data):  # a full disk raises an error at the next attempt
        written += os.pwrite(fd, memoryview(data)[written:], at + written)


def sync_directory(directory: str) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
