"""Graphs of calls some of which move: whatever moves when, and whoever is killed, every call is made once, in order."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest
from batches import batch

from callyard.cache.directory import CacheDirectory
from callyard.cache.messages import RunRequest
from callyard.jobs import successor
from callyard.jobs.batch import BatchPart, CallAgain, CallFile, CallInput, CallOutcome, CallPosition, CallStart
from callyard.jobs.call_files import follow_moves
from callyard.jobs.find_batches import folders, folders_by_age
from callyard.jobs.spool import BatchDirectory
from callyard.jobs.submission import is_ready
from callyard.jobs.successor import move_after_inputs, move_to_successor

KEY = "ab" * 20


class Graph:
    """The batches of a random graph of calls, and a scheduler that makes the calls of submitted ones."""

    def __init__(self, directory: Path, choose: Random) -> None:
        self.home, self.choose = CacheDirectory.open(directory), choose
        self.places: dict[int, tuple[BatchDirectory, int]] = {}  # of each call, as it was written
        self.runs = Counter[str]()
        order = RunRequest(
            directory=self.home.path, inode=self.home.inode(), trust=None, key=KEY, name="add", afresh=False,
            failures=False, references=(), code_only=False, source="", facts={},
        )  # fmt: skip
        self._call_file = CallFile(
            data=(), apart=None, inputs=(), order=order, meaning=None, initializer=None, options={}, run_time=None,
            memory=None, ranks=1, launcher=(), wait=0.0,
        )  # fmt: skip
        layers = choose.randint(2, 4)
        for _ in range(layers):
            before = list(self.places)
            for _ in range(choose.randint(1, 2)):
                self._write(before)

    def _write(self, before: list[int]) -> None:
        """Write a batch of calls, each of which takes some results of the calls before."""
        choose, folder = self.choose, BatchDirectory(self.home, self.choose.randbytes(8).hex())
        count = choose.randint(1, 4)
        inputs = [choose.sample(before, choose.randint(0, min(3, len(before)))) for _ in range(count)]
        needs = {self.places[other][0].token for others in inputs for other in others}
        calls, positions, at = [], [], 0
        for others in inputs:
            number = len(self.places)
            given = tuple(CallInput("add", token=self.places[o][0].token, number=self.places[o][1]) for o in others)
            calls.append(self._call_file.replace(inputs=given).dump())
            positions.append(CallPosition(f"id{number}", "add", at, len(calls[-1])))
            at += len(calls[-1])
            self.places[number] = folder, len(positions) - 1
        each = choose.randint(1, 2)
        elements = None if count == 1 and choose.random() < 0.5 else tuple(range(-(-count // each)))
        request: dict[str, Any] = {"name": "add", "after": [("any", other, None) for other in needs]}
        if elements is not None and choose.random() < 0.3:
            request.update(
                after=[], after_each=[request["after"]] * len(elements), lanes=[f"lane-{n}" for n in elements]
            )
        folder.create(
            batch(
                token=folder.token, calls=tuple(positions), elements=elements, calls_per_job=each, needs=tuple(needs),
                request=request,
            ),
            calls, f"#!/bin/sh\nexec make {folder.token}\n",
        )  # fmt: skip

    # -- what the scheduler and the jobs do -----------------------------------------------------------------

    def left(self) -> list[tuple[BatchDirectory, int]]:
        """Return all calls without an outcome."""
        found = [(folder, number) for folder in folders(self.home) for number in range(len(folder.batch.calls))]
        return [(folder, number) for folder, number in found if folder.ended(number) is None]

    def has_inputs(self, folder: BatchDirectory, number: int) -> bool:
        inputs = CallFile.load(folder.call(number)).inputs
        ends = (follow_moves(self.home, given.token, given.number)[2] for given in inputs)
        return all(end is not None and end.state == "finished" for end in ends)

    def begin(self, folder: BatchDirectory, number: int) -> None:
        assert self.has_inputs(folder, number), "it was started before its inputs are there"
        folder.begin(number, CallStart("17", "node1", KEY))
        os.utime(f"{folder.path}/{number}.begun", (1.0, 1.0))

    def finish(self, folder: BatchDirectory, number: int) -> None:
        self.runs[folder.batch.calls[number].id] += 1
        folder.end(number, CallOutcome("finished", KEY, self.home.path))

    def make_or_move(self) -> None:
        """One call that can begin does so, and ends well or asks to be run again, in vain."""
        able = [place for place in self.left() if self.has_inputs(*place)]
        if able:
            folder, number = self.choose.choice(able)
            self.begin(folder, number)
            if self.choose.random() < 0.4:
                self.finish(folder, number)
            else:
                folder.run_again(number, CallAgain(2, 0, b"arguments"))
                assert move_to_successor(folder, number)

    def cancel_or_start_too_early(self) -> None:
        """A job whose dependency has ended badly ends, or begins: its call finds out, or the process that waits."""
        folder, number = self.choose.choice(self.left())
        move_after_inputs(folder, [number])

    def make_the_rest(self) -> None:
        """Submit what is not over as `resume` does; a job begins once those that it waits for are over."""
        while self.left():
            before = len(self.left())
            for folder in folders_by_age(self.home):
                if not folder.is_over() and is_ready(folder):
                    folder.submitted_as(BatchPart(0, folder.batch.size, "17"))
                others = [BatchDirectory(self.home, token) for token in folder.batch.waited_for()]
                if folder.unsent is None and all(other.is_over() for other in others):
                    for number in range(len(folder.batch.calls)):
                        if folder.ended(number) is None:
                            self.begin(folder, number)
                            self.finish(folder, number)
            assert len(self.left()) < before, "nothing can begin any more"


@pytest.mark.parametrize("seed", range(40))
def test_each_call_is_made_once_and_after_its_inputs(
    tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    choose = Random(seed)
    graph, whole, was_killed = Graph(tmp_path / "cache", choose), successor._move_dependents, False
    for _ in range(choose.randint(1, 12)):
        is_killed = choose.random() < 0.2  # right after the move of its own call
        was_killed |= is_killed
        monkeypatch.setattr(successor, "_move_dependents", (lambda folder: None) if is_killed else whole)
        steps: list[Callable[[], None]] = [graph.make_or_move, graph.cancel_or_start_too_early]
        if graph.left():
            choose.choice(steps)()
    monkeypatch.setattr(successor, "_move_dependents", whole)
    for folder in folders_by_age(graph.home) if was_killed else ():  # as those do who wait for the calls, or `resume`
        move_after_inputs(folder)
    graph.make_the_rest()
    ends = [follow_moves(graph.home, folder.token, number)[2] for folder, number in graph.places.values()]
    assert {end and end.state for end in ends} == {"finished"}
    assert set(graph.runs.values()) == {1}
    assert len(graph.runs) == len(graph.places)
