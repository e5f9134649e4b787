"""The place of a gateway in the file system of its computer: contents that came, caches, and directories of runs."""

from __future__ import annotations

import os
import shutil
import socket
import time
from dataclasses import replace
from typing import Any

from ...cache.directory import CacheDirectory
from ...errors import CallyardError
from ...result_cache import Cache
from ..base import Backend, Settings
from ..registry import open_backend
from ..run_directories import remove_if_over
from .contents import ContentFiles, FileCopies
from .protocol import Opening

__all__ = ["GatewayPlace"]

_PLACE = ".callyard"  # below the directory that the user has named
_KEPT = 7 * 24 * 3600.0  # s for which the directories of calls without a cache stay after their last change


class GatewayPlace:
    """The directories for one conversation, made for this user alone; calls begin in the one that the user has named.

    Raises:
        CallyardError: they cannot be used, or others could write there.
    """

    def __init__(self, directory: str) -> None:
        self.path = os.path.join(directory, _PLACE)
        self._run_directory = ""  # of calls without a cache
        try:
            os.makedirs(directory, mode=0o700, exist_ok=True)
            os.chdir(directory)
            self.contents = ContentFiles(os.path.join(self.path, "contents"))
            self.copies = FileCopies(CacheDirectory.open(self.path))
            self.copies.remove_old()
        except OSError as error:
            raise CallyardError(
                f"calls on {socket.gethostname()} cannot begin in {directory}: {error}; name a directory of "
                "yours there, as SSH(directory=...)"
            ) from None

    def open(self, factory: Any, settings: Settings, opening: Opening) -> Backend:
        """Open the backend, with a cache; that of calls without one goes with the conversation."""
        self._remove_old_runs()
        if opening.remembers:
            path = os.path.join(self.path, "cache")
            cache = Cache(path, mode=opening.mode, failures=opening.failures)  # type: ignore[arg-type]
        elif factory.detached:
            self._run_directory = os.path.join(self.path, "runs", opening.run)
            cache = Cache(self._run_directory)
        else:
            return open_backend(factory, settings)
        self.copies.look_into(cache._directory)
        return open_backend(factory, replace(settings, executor=opening.run), cache)

    def close(self) -> None:
        """Remove what no later conversation needs."""
        if self._run_directory:
            shutil.rmtree(self._run_directory, ignore_errors=True)

    def _remove_old_runs(self) -> None:
        """Remove what executors without a cache have left that did not end in order."""
        runs = os.path.join(self.path, "runs")
        os.makedirs(runs, mode=0o700, exist_ok=True)
        for entry in os.scandir(runs):
            try:
                if entry.stat().st_mtime < time.time() - _KEPT:
                    remove_if_over(Cache(entry.path)._directory)
            except (OSError, CallyardError):  # another gateway removes it
                continue
