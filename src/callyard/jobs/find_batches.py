"""The batches in the spool of a cache: all of them, the readable ones, and the unreadable ones."""

from __future__ import annotations

from collections.abc import Container, Iterator

from ..cache.directory import CacheDirectory
from ..errors import CacheError, CallyardError, VersionMismatch
from ..system.process_identity import is_hexadecimal
from .spool import BatchDirectory, names

__all__ = ["folders", "folders_by_age", "unreadable_batches"]


def folders(home: CacheDirectory) -> Iterator[BatchDirectory]:
    """Yield the batches in a cache."""
    return (BatchDirectory(home, name) for name in names(f"{home.path}/jobs") if is_hexadecimal(name, 16))


def folders_by_age(home: CacheDirectory, known: Container[str] = ()) -> list[BatchDirectory]:
    """Return the readable batches, the oldest first, without the `known` ones."""
    found = []
    for folder in folders(home):
        if folder.token not in known:
            try:
                found.append((folder.batch.created, folder))
            except (OSError, ValueError, CallyardError):  # being removed, or of another version
                continue
    return [folder for _, folder in sorted(found, key=lambda pair: pair[0])]


def unreadable_batches(home: CacheDirectory) -> list[tuple[BatchDirectory, CacheError]]:
    """Return the damaged and the unsafe batches, each with the reason; a batch of another version is neither."""
    found = []
    for folder in folders(home):
        try:
            _ = folder.batch
        except VersionMismatch:
            continue
        except CacheError as error:
            found.append((folder, error))
        except OSError:  # being removed just now, or a file system that stumbles
            continue
    return found
