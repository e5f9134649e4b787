"""What the processes of an executor inherit: no signals, descriptors or import path of the driver's harm them."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import textwrap
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import acts
import hypothesis.strategies as st
import pytest
from hypothesis import example, given, settings

from callyard import Executor, TimeLimitExceeded, WorkerLost

pytestmark = pytest.mark.needs("linux")

ALL = signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}
SIGNALS = st.sets(st.sampled_from(sorted(ALL)))


@contextlib.contextmanager
def _signals(blocked: set[int], ignored: set[int]) -> Iterator[None]:
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, blocked)
    before = {signum: signal.signal(signum, signal.SIG_IGN) for signum in ignored}
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


@settings(max_examples=5)
@example(set(ALL), set(ALL))
@example({signal.SIGCHLD}, set())
@given(SIGNALS, SIGNALS)
def test_signals_are_as_in_a_fresh_process_and_deaths_are_noticed(blocked: set[int], ignored: set[int]) -> None:
    fresh = {signal.SIGPIPE: "<Handlers.SIG_IGN: 1>", signal.SIGXFSZ: "<Handlers.SIG_IGN: 1>"}
    with _signals(blocked, ignored), Executor(1) as executor:
        mask, handlers = executor.submit(acts.mask_and_handlers).result()
        assert mask == []
        assert "Running._on_term" in handlers.pop(signal.SIGTERM)
        assert "Running._on_wake" in handlers.pop(signal.SIGURG)  # ends a sleep in which SIGTERM was not noticed
        assert handlers == {**fresh, signal.SIGINT: repr(signal.default_int_handler)}
        error = executor.submit(acts.exit_at_once, 3).exception()
        assert isinstance(error, WorkerLost)
        assert error.exitcode == 3
        late = executor.submit(acts.stay, resource_dict={"run_time": 0.1})
        assert isinstance(late.exception(), TimeLimitExceeded)


def test_a_fresh_interpreter_and_what_calls_start_see_no_blocked_signals() -> None:
    blocked = {signal.SIGCHLD, signal.SIGTERM, signal.SIGUSR1}
    with _signals(blocked, blocked), Executor(1) as executor:
        fresh = executor.with_resources(env={"PYTHONDONTWRITEBYTECODE": "1"})
        for each in (executor, fresh):
            assert each.submit(acts.signals_of_a_program).result() == (0, 0)


def _run(code: str, *options: str, cwd: Path, **how: Any) -> subprocess.CompletedProcess[str]:
    """A driver whose modules are found by `sys.path` alone, in `places`."""
    places = [os.path.dirname(__file__), *filter(None, sys.path)]
    text = f"import sys; places = {places!r}; sys.path[:0] = places\n" + textwrap.dedent(code)
    command = [sys.executable, *options, "-c", text]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, **how)


TWO_KINDS = """
import acts
from callyard import Executor
with Executor(1) as executor:
    fresh = executor.with_resources(env={"PYTHONDONTWRITEBYTECODE": "1"})
    print([each.submit(lambda: acts.gone(1)).result() for each in (executor, fresh)])
"""


@pytest.mark.parametrize("options", ["-S", "-I", "-E", "-O", "-IS"])
def test_modules_that_are_there_by_the_path_alone(tmp_path: Path, options: str) -> None:
    run = _run(TWO_KINDS, options, cwd=tmp_path, env={})
    assert (run.stdout, run.stderr) == ("[False, False]\n", "")


def test_a_package_in_an_archive(tmp_path: Path) -> None:
    import cloudpickle

    import callyard

    with zipfile.ZipFile(tmp_path / "app.pyz", "w") as archive:
        for package in (callyard, cloudpickle):
            place = Path(package.__path__[0])
            for path in place.rglob("*.py"):
                archive.write(path, path.relative_to(place.parent))
        archive.writestr(
            "__main__.py",
            TWO_KINDS.replace("import acts", "acts = __import__('os').path").replace("gone(1)", "isabs('')"),
        )
    command = [sys.executable, "-IS", "app.pyz"]
    run = subprocess.run(command, cwd=tmp_path, env={}, capture_output=True, text=True, check=False)
    assert (run.stdout, run.stderr) == ("[False, False]\n", "")


def test_no_file_of_the_user_is_taken_for_one_of_the_standard_library(tmp_path: Path) -> None:
    for name in ("selectors", "pickle", "shutil", "socket"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('not this one')")
    run = _run("import callyard.pool.worker_pool; sys.path.insert(0, '.')\n" + TWO_KINDS, cwd=tmp_path, env={})
    assert (run.stdout, run.stderr) == ("[False, False]\n", "")


def test_a_directory_that_is_gone(tmp_path: Path) -> None:
    gone = "import os, subprocess; os.mkdir('gone'); os.chdir('gone'); os.rmdir('../gone')\n"
    plain = "raise SystemExit(subprocess.call([sys.executable, '-c', 'import socket']))"
    if _run(gone + plain, cwd=tmp_path, env={}).returncode:
        pytest.skip("this Python cannot start there at all (3.13.0)")
    run = _run(gone + TWO_KINDS, cwd=tmp_path, env={})
    assert (run.stdout, run.stderr) == ("[False, False]\n", "")


@pytest.mark.parametrize("closed", [(0,), (1,), (2,), (0, 1, 2)])
def test_standard_descriptors_that_are_closed(tmp_path: Path, closed: tuple[int, ...]) -> None:
    """Nothing of ours takes their place, where a print would reach it."""
    code = f"""
    import os
    for fd in {closed}: os.close(fd)
    sys.stdout = sys.stderr = None
    import acts
    from callyard import Executor
    with Executor(1) as executor:
        fresh = executor.with_resources(env={{"PYTHONDONTWRITEBYTECODE": "1"}})
        said = [each.submit(acts.kinds_of_standard_descriptors).result() for each in (executor, fresh)]
    open("said", "w").write(repr(said))
    """
    run = _run(code, cwd=tmp_path, env={})
    assert run.returncode == 0, run
    kinds = ["null", *("null" if fd in closed else "pipe" for fd in (1, 2))]
    assert (tmp_path / "said").read_text() == repr([kinds, kinds])


def test_an_interpreter_that_does_not_know_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "")
    with Executor(1) as executor, pytest.raises(WorkerLost, match=r"sys\.executable is not set: set it to"):
        executor.submit(pow, 2, 2).result()
