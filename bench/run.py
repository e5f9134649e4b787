"""Measures in turn: every peer in a process of its own for each row, side by side, round after round."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from bench.machine import describe
from bench.peers import Peer
from bench.table import Row, Values

ROOT = Path(__file__).resolve().parent.parent
TIME_LIMIT = 180  # seconds: some peers may hang


class Failed(Exception):
    """A measurement that gave no value, and why."""


@dataclass
class Outcome:
    machine: list[str]
    samples: dict[str, dict[str, list[float]]] = field(default_factory=dict)  # row -> peer -> one per round
    failures: dict[str, dict[str, str]] = field(default_factory=dict)

    def values(self) -> Values:
        return {row: {peer: median(values) for peer, values in of_row.items()} for row, of_row in self.samples.items()}

    def save(self, file: Path) -> None:
        file.write_text(json.dumps(asdict(self), indent=1) + "\n")

    @classmethod
    def load(cls, file: Path) -> Outcome:
        return cls(**json.loads(file.read_text()))


def plan(rows: Sequence[Row], peers: Sequence[Peer], rounds: int) -> Iterator[tuple[Row, Peer]]:
    """A, B, C, and again: what disturbs the machine for a while disturbs all alike."""
    return ((row, peer) for _ in range(rounds) for row in rows for peer in peers if row.takes(peer))


def run(rows: Sequence[Row], peers: Sequence[Peer], rounds: int, effort: str, tell: Callable[[str], None]) -> Outcome:
    outcome = Outcome(describe(peers))
    for row, peer in plan(rows, peers, rounds):
        # One failure is enough: a peer that hangs would hang again.
        if peer.name in outcome.failures.get(row.name, {}):
            continue
        try:
            value = measured(peer.name, row.name, effort)
        except Failed as failure:
            outcome.failures.setdefault(row.name, {})[peer.name] = str(failure)
            tell(f"{row.name} {peer.name}: {failure}")
        else:
            outcome.samples.setdefault(row.name, {}).setdefault(peer.name, []).append(value)
            tell(f"{row.name} {peer.name}: {value:.4g} {row.unit}")
    return outcome


def measured(peer: str, row: str, effort: str) -> float:
    return float(child("bench.child", peer, row, effort))


def child(module: str, *words: str, limit: float = TIME_LIMIT) -> Any:
    """The value that a module, run with these words, writes into a file.

    Peers leave files where they run and in TMPDIR, so that is a directory that goes away.
    """
    with tempfile.TemporaryDirectory(prefix="bench-", ignore_cleanup_errors=True) as directory:
        log, file = Path(directory, "log"), Path(directory, "value.json")
        with log.open("wb") as output:
            command = [sys.executable, "-m", module, *words, str(file)]
            code = finished(command, directory, output.fileno(), limit)
        if code == 0:
            return json.loads(file.read_text())["value"]
        lines = log.read_text(errors="replace").split("\n")
        raise Failed(f"nothing in {limit} s" if code is None else last(lines) or f"exit code {code}")


def last(lines: list[str]) -> str:
    return next((line.strip() for line in reversed(lines) if line.strip()), "")


def finished(command: list[str], directory: str, output: int, limit: float) -> int | None:
    """The exit code, or None if it took too long. What it started ends with it."""
    process = subprocess.Popen(
        command,
        cwd=directory,
        env=environment(directory),
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        return process.wait(limit)
    except subprocess.TimeoutExpired:
        return None
    finally:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def environment(directory: str) -> dict[str, str]:
    """As in an activated virtual environment at the project's root: some peers start their parts by name."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    return {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), "TMPDIR": directory}
