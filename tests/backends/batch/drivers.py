"""Processes of their own that submit calls as jobs, and executors for the same in the test's process."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from callyard import Executor, Slurm

QUICK = Slurm(poll=(0.2, 1), result_grace=1, detached=True)

HEAD = """
    import atexit, logging, os, signal, sys
    signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever started the tests may ignore it
    logging.basicConfig(stream=sys.stdout, level=logging.INFO, format="%(message)s")
    from concurrent.futures import wait
    import noted_calls as calls
    from drivers import executor

    def ids(**futures):
        wait_for_ids(futures.values())
        print("jobs", *(f"{name}={future.job_id}" for name, future in futures.items()), flush=True)

    def wait_for_ids(futures):
        from this_machine import until
        until(lambda: all(future.job_id for future in futures))
"""


def executor(results: object, **options: Any) -> Executor:
    """An executor whose calls are jobs that are looked at often."""
    return Executor(backend=QUICK, cache=results, **options)


class Driver:
    """A process that submits. What it logs and prints is its output, line by line."""

    def __init__(self, text: str, names: dict[str, object], cwd: Path, **environment: str) -> None:
        paths = [os.path.dirname(__file__), os.path.dirname(os.path.dirname(__file__)), *filter(None, sys.path)]
        self.process = subprocess.Popen(
            [sys.executable, "-u", "-c", textwrap.dedent(HEAD) + _constants(names) + textwrap.dedent(text)],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONWARNINGS": "error", **environment},
            cwd=cwd,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def wait_for(self, words: str) -> str:
        """Its next line of output with these words; those before are dropped."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            print(line, end="")  # seen if the test fails
            if words in line:
                return line.strip()
        _, errors = self.process.communicate()
        pytest.fail(f"the driver has ended and not said {words!r}: {errors}")

    def jobs(self) -> dict[str, str]:
        """What it says by `ids`."""
        return dict(word.split("=") for word in self.wait_for("jobs ").split()[1:])

    def ask(self, expression: str) -> str:
        """What this is there, as text; for drivers that read their input."""
        assert self.process.stdin is not None
        print(expression, file=self.process.stdin, flush=True)
        return self.wait_for("answer ").partition(" ")[2]

    def finish(self) -> tuple[int, str]:
        """Wait for its end; its exit code and errors."""
        _, errors = self.process.communicate()
        return self.process.returncode, errors

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def end(self) -> None:
        self.kill()
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()


def _constants(names: dict[str, object]) -> str:
    import pickle

    text = {name: f"pickle.loads({pickle.dumps(value)!r})" for name, value in names.items()}
    return "import pickle\n" + "".join(f"{name} = {value}\n" for name, value in text.items())
