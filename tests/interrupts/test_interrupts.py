"""Whatever exception arrives, whenever: the executor stays usable, every future ends, no lock stays held.

Each test is a process that is interrupted again and again (`injected.py`), so that what hangs can be killed.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

LOCAL = ["submit", "submit dependent", "cancel", "result", "derived", "wait", "map", "with_resources", "shutdown"]
ALSO = [(backend, name) for backend in ("cached", "wrapped", "live") for name in ("submit", "cancel")]
CASES = [("local", name) for name in (*LOCAL, "first call", "block", "kill")] + ALSO
pytestmark = pytest.mark.timeout(600)  # each is hundreds of runs
TESTS = str(Path(__file__).parents[1])


def run(*arguments: str) -> str:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([TESTS, os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, "-m", "interrupts.injected", *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, f"{' '.join(arguments)}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.mark.once
@pytest.mark.parametrize(("backend", "method"), CASES, ids=map(" ".join, CASES))
@pytest.mark.parametrize(("way", "stride"), [("line", 13), ("opcode", 331)])
def test_an_exception_between_any_two_steps(tmp_path: Path, way: str, stride: int, backend: str, method: str) -> None:
    steps = int(run(way, backend, method, str(stride), str(tmp_path / "cache")))
    assert steps > 0 or (way == "opcode" and sys.version_info >= (3, 12))  # which tell few frames of them


@pytest.mark.wide
@pytest.mark.once
@pytest.mark.parametrize(("backend", "method"), CASES, ids=map(" ".join, CASES))
def test_an_exception_in_every_line(tmp_path: Path, backend: str, method: str) -> None:
    stride = "7" if method in ("first call", "block") else "1"  # these make an executor for each line
    run("line", backend, method, stride, str(tmp_path / "cache"))


@pytest.mark.once
@pytest.mark.parametrize("backend", ["local", "cached", "wrapped", "live"])
def test_exceptions_at_random_moments(tmp_path: Path, backend: str) -> None:
    run("random", backend, "everything", "60", str(tmp_path / "cache"))


SUBMITS = """
from callyard import Executor
try:
    with Executor(max_workers=2) as executor:
        executor.submit(abs, 0).result()
        print("up", flush=True)
        while True:
            executor.submit(abs, 1)
except KeyboardInterrupt:
    with Executor(max_workers=1) as executor:
        print(executor.submit(abs, -7).result(), flush=True)
"""


@pytest.mark.once
def test_ctrl_c_while_the_main_thread_submits() -> None:
    for number in range(12):
        process = subprocess.Popen([sys.executable, "-c", SUBMITS], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        try:
            process.communicate(timeout=0.001 + number * 0.003)  # at another moment each time
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGINT)
        try:
            assert process.communicate(timeout=60)[0].endswith("7\n")
        finally:
            process.kill()
            process.wait()
