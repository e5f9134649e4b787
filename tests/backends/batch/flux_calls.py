"""What the calls of test_flux.py run: importable in a job, with little to import."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from callyard import Executor, Flux
from callyard.schedulers.job_environment import current_job


def add(*values: Any) -> Any:
    return sum(values)


def note(journal: str, word: object) -> None:
    with open(journal, "a", encoding="utf-8") as file:
        file.write(f"{word}\n")


def noted(journal: str, value: int, *inputs: Any) -> int:
    note(journal, value)
    return value + sum(inputs)


def hold(place: str, value: Any = None) -> Any:
    """Run until somebody makes the file `go`; note the start."""
    note(f"{place}/starts", current_job().node)
    while not os.path.exists(f"{place}/go"):
        time.sleep(0.02)
    return value


def starts(place: Path) -> list[str]:
    """Return the nodes on which `hold` has started."""
    path = place / "starts"
    return path.read_text().split() if path.exists() else []


def wait_for_end(journal: str) -> None:
    """Note the signal by which it hears of its end."""
    try:
        while True:
            signal.pause()
    except SystemExit:
        note(journal, "SystemExit")
        raise


def counted(place: str) -> int:
    """Return how many of these run at once, as each sees it in the middle of its time."""
    mine = Path(place, f"runs-{os.getpid()}")
    mine.touch()
    time.sleep(0.3)
    found = len(list(Path(place).glob("runs-*")))
    mine.unlink()
    return found


def say_and_fail(text: str) -> None:
    print(text, flush=True)
    print(text.upper(), file=sys.stderr, flush=True)
    raise ValueError(text)


def about_the_job() -> tuple[str, str, str]:
    job = current_job()
    return job.scheduler, job.job_id, job.node


def variables(*names: str) -> dict[str, str | None]:
    return {name: os.environ.get(name) for name in names}


def job_in_a_job(results: str) -> tuple[tuple[str, str, str], tuple[str, str, str]]:
    """Return what a job knows of itself, and what a job that it submits does."""
    with Executor(backend=Flux(detached=True, poll=(0.2, 1), result_grace=2), cache=results) as ex:
        return about_the_job(), ex.submit(about_the_job).result()


def rank_of_node() -> tuple[int, int, str]:
    """Return rank and size, as MPI sees it, and the broker of the instance that runs the rank."""
    from mpi4py import MPI

    world = MPI.COMM_WORLD
    return world.Get_rank(), world.allreduce(1), os.environ.get("FLUX_URI", "")
