"""What is left of calls that failed, and is not wanted any more."""

from __future__ import annotations

from ..cache.home import Home
from ..errors import CallyardError
from .folder import Folder, folders

__all__ = ["prune_jobs"]


def prune_jobs(home: Home, before: float | None, function: str | None, dry_run: bool) -> int:
    """Remove the batches that have ended and were submitted before a time, with what their calls printed."""
    found = [folder for folder in folders(home) if _is_meant(folder, before, function)]
    for folder in found if not dry_run else ():
        folder.remove()
    return len(found)


def _is_meant(folder: Folder, before: float | None, function: str | None) -> bool:
    try:
        batch, news = folder.batch, folder.news()
    except (OSError, ValueError, CallyardError):
        return False
    ended = all(news.get(number) in ("end", "seen") for number in range(len(batch.calls)))
    named = function is None or {call.name for call in batch.calls} == {function}
    return ended and named and (before is None or batch.created < before)
