"""Calls with lists of limits in a spool, as their submitter writes them; no scheduler is there."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from callyard.cache.directory import CacheDirectory
from callyard.cache.messages import RunRequest
from callyard.jobs.batch import Batch, CallFile, CallPosition, CallStart
from callyard.jobs.spool import BatchDirectory
from callyard.jobs.submission import job_time, note_of
from callyard.jobs.successor import move_to_successor
from callyard.resources import Resources

TOKEN, KEY, GIB = "0123456789abcdef", "ab" * 20, 1 << 30


class LimitedCalls:
    """A cache with one batch of calls with these resources."""

    def __init__(self, directory: Path, resources: Resources, calls: int = 1, each: int = 1, scripts: Any = ()) -> None:
        self.home = CacheDirectory.open(directory)
        order = RunRequest(
            directory=self.home.path, inode=self.home.inode(), trust=None, key=KEY, name="add", afresh=False,
            failures=False, references=(), code_only=False, source="", facts={},
        )  # fmt: skip
        memory = None if resources.memory is None else int(resources.memory * GIB)
        call = CallFile(
            data=(), apart=None, inputs=(), order=order, meaning=None, initializer=None,
            options={"grace": 2.0, **({} if memory is None else {"memory": memory})}, run_time=resources.run_time,
            memory=memory, ranks=1, launcher=(), wait=0.0,
        ).dump()  # fmt: skip
        time = 600.0 if resources.run_time is None else job_time(resources.run_time, resources.grace or 0.0, each)
        request = json.loads(json.dumps(note_of("add", resources, None, time, bool(scripts), ())))
        self.folder = BatchDirectory(self.home, TOKEN)
        made = Batch(
            token=TOKEN, scheduler="Slurm", elements=None if calls == 1 else tuple(range(-(-calls // each))), needs=(),
            calls=tuple(CallPosition(f"id{n}", "add", n * len(call), len(call)) for n in range(calls)), paths=(),
            calls_per_job=each, resources={"cores_per_rank": 2}, environment={}, cwd="/", umask=0o77, submitter="x",
            restart_limit=resources.restart_limit, created=1.0, python="", callyard="", request=request,
        )  # fmt: skip
        self.folder.create(made, [call] * calls, f"#!/bin/sh\n# first {TOKEN}\n", scripts=dict(scripts))

    def run(self, folder: BatchDirectory, number: int = 0, output: str = "", at: float = 2e9) -> None:
        """Let a call begin, and print."""
        folder.begin(number, CallStart("17", "node1", KEY))
        os.utime(f"{folder.path}/{number}.begun", (at, at))  # after the note of its attempt, unless a test says so
        if output:
            Path(folder.log(number)).write_text(output)

    def moved(self, error: str, folder: BatchDirectory | None = None, number: int = 0) -> BatchDirectory:
        """Move a call; return its successor."""
        folder = folder or self.folder
        assert move_to_successor(folder, number, error)
        outcome = folder.ended(number)
        assert outcome is not None
        assert outcome.state == "moved"
        successor = BatchDirectory(self.home, outcome.key)
        kept = successor.again(0)
        assert kept is not None
        assert outcome.attempts == kept.attempt
        return successor
