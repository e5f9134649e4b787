"""The files of the daemon's jobs, from which another daemon goes on after this one was killed.

Each submission has a folder, which comes as a whole:

    request        what was asked for, and the IDs of the jobs
    3.run          job 3 was started: see `run_file`
    3.lost-1       its first run, which was lost with the machine
    3.cancelled    its end was asked for
    ends           the ends of all jobs, once all have ended; the other files are then gone
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

from .run_file import RunEnd, RunRecord, read_run

__all__ = ["JobFiles", "StoredJobs"]

_FORMAT = 1
_KEPT = 7 * 24 * 3600.0  # s for which ends are remembered
_TOKEN = re.compile(r"[\w-][\w.-]{0,200}")


class StoredJobs(NamedTuple):
    """The jobs of one submission.

    Attributes:
        token: the name of their folder.
        created: the time of the submission (s since 1970).
        ids: the name of each job.
        asked: the request.
        environment: the variables of its submitter.
        ends: the end of each job, once all have ended; else None.
    """

    token: str
    created: float
    ids: list[str]
    asked: Mapping[str, Any]
    environment: Mapping[str, str]
    ends: list[RunEnd] | None


class JobFiles:
    """The folders of all submissions."""

    def __init__(self, directory: str) -> None:
        self._home = os.path.join(directory, "batches")
        os.makedirs(self._home, mode=0o700, exist_ok=True)

    def load(self) -> list[StoredJobs]:
        """Return all submissions, the oldest first, after removing those that nobody asks about any more.

        Raises:
            OSError, ValueError: a folder cannot be read; it may be of another version.
        """
        self.remove_old()
        found = []
        for token in os.listdir(self._home):
            if token.startswith("."):  # not finished: its submitter was told nothing
                shutil.rmtree(self._path(token), ignore_errors=True)
            else:
                found.append(self._read(token))
        return sorted(found, key=lambda stored: stored.created)

    def _read(self, token: str) -> StoredJobs:
        with open(self._path(token, "request"), encoding="utf-8") as file:
            try:
                said = json.load(file)
            except ValueError:
                raise ValueError(f"{file.name} is damaged; remove {self._path(token)}, and its jobs are lost") from None
        if said.pop("format") != _FORMAT:
            raise ValueError(f"{self._path(token)} is of another version of Callyard")
        ends = None
        with contextlib.suppress(FileNotFoundError), open(self._path(token, "ends"), encoding="utf-8") as file:
            ends = [RunEnd(*end) for end in json.load(file)]
        return StoredJobs(token, ends=ends, **said)

    def remove_old(self) -> list[str]:
        """Remove submissions whose jobs ended long ago; return their tokens."""
        gone = []
        for token in os.listdir(self._home):
            with contextlib.suppress(OSError):
                if os.stat(self._path(token, "ends")).st_mtime < time.time() - _KEPT:
                    shutil.rmtree(self._path(token), ignore_errors=True)
                    gone.append(token)
        return gone

    def save(self, stored: StoredJobs) -> None:
        """Write down a submission; it is there as a whole, also after a crash of the machine, or not at all.

        Raises:
            OSError: there is no room.
            ValueError: the token is no name of a folder.
        """
        if not _TOKEN.fullmatch(stored.token):
            raise ValueError(f"{stored.token!r} is not the token of a submission")
        draft = self._path(f".{stored.token}")
        shutil.rmtree(draft, ignore_errors=True)
        os.mkdir(draft, 0o700)
        try:
            said = {name: value for name, value in stored._asdict().items() if name not in ("token", "ends")}
            with open(os.path.join(draft, "request"), "x", encoding="utf-8") as file:
                json.dump({"format": _FORMAT, **said}, file)
                file.flush()
                os.fsync(file.fileno())
            os.rename(draft, self._path(stored.token))
        except OSError:
            shutil.rmtree(draft, ignore_errors=True)
            raise
        self._synchronize()

    def _synchronize(self) -> None:
        handle = os.open(self._home, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)

    def _path(self, token: str, *names: str) -> str:
        return os.path.join(self._home, token, *names)

    # -- one job -------------------------------------------------------------------------------------------

    def run_file(self, token: str, place: int) -> str:
        """Return the path of the file by which the keeper of a job claims it."""
        return self._path(token, f"{place}.run")

    def run(self, token: str, place: int) -> RunRecord | None:
        """Return the run of a job; None if it was not started."""
        return read_run(self.run_file(token, place))

    def lost(self, token: str) -> dict[int, int]:
        """Return how many runs of each job were lost with the machine, where any were."""
        found: dict[int, int] = {}
        for name in os.listdir(self._path(token)):
            place, lost, _ = name.partition(".lost-")
            if lost:
                found[int(place)] = found.get(int(place), 0) + 1
        return found

    def set_lost(self, token: str, place: int, attempt: int) -> None:
        """Let a job that was lost with the machine be started again."""
        os.rename(self.run_file(token, place), self._path(token, f"{place}.lost-{attempt}"))

    def cancel(self, token: str, place: int) -> None:
        """Note that the end of a job was asked for."""
        with contextlib.suppress(FileExistsError, FileNotFoundError):
            os.close(os.open(self._path(token, f"{place}.cancelled"), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))

    def cancelled(self, token: str) -> set[int]:
        """Return the jobs whose end was asked for."""
        names = os.listdir(self._path(token))
        return {int(name.partition(".")[0]) for name in names if name.endswith(".cancelled")}

    def close(self, token: str, ends: list[RunEnd]) -> None:
        """Write down the ends of all jobs of a submission in one file, and remove the others.

        Raises:
            OSError: there is no room.
        """
        draft = self._path(token, "ends.new")
        with open(draft, "w", encoding="utf-8") as file:
            json.dump(ends, file)
        os.rename(draft, self._path(token, "ends"))
        for name in os.listdir(self._path(token)):
            if name not in ("request", "ends"):
                with contextlib.suppress(OSError):
                    os.unlink(self._path(token, name))
