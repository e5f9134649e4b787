"""`Executor(logs=...)`: a file with the output and the failure of each call."""

from __future__ import annotations

import os
import signal
import stat
from pathlib import Path

import pytest

from callyard import Again, CallyardError, Executor, Local, current

linux = pytest.mark.needs("linux")  # elsewhere workers have no guards, which copy the output


def speak(x: int) -> int:
    print("speaking", x)
    return x


def invert(x: float) -> float:
    print("inverting", x, flush=True)
    return 1 / x


def be_silent(x: int) -> int:
    return x


def die(words: str) -> None:
    print(words, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)


def go_on(total: int) -> int:
    run = current()
    assert run is not None
    print("run", run.attempt)
    if run.attempt < total:
        raise Again(total)
    return run.attempt


def texts(directory: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in directory.iterdir()}


@linux
def test_output_and_failures(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    logs = tmp_path / "deep" / "logs"
    with Executor(1, logs=logs) as ex:
        futures = [ex.submit(speak, 1), ex.submit(be_silent, 2), ex.submit(invert, 0), ex.submit(go_on, 2)]
        lost = ex.submit(die, "last words")
        dependent = ex.submit(be_silent, futures[2])
        assert isinstance(futures[2].exception(), ZeroDivisionError)
        message = str(lost.exception())
        assert dependent.exception() is not None
    found = texts(logs)
    assert found.pop("speak-1.log") == "speaking 1\n"
    failed = found.pop("invert-3.log").splitlines()
    assert (failed[0], failed[1][:9], failed[-1]) == (
        "inverting 0", "Traceback", "ZeroDivisionError: division by zero",
    )  # fmt: skip
    assert found.pop("go_on-4.log") == "run 1\nrun 2\n"
    assert found.pop("die-5.log") == f"last words\nWorkerLost: {message}\n"
    assert found == {}
    assert stat.S_IMODE(logs.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in logs.iterdir()} == {0o600}
    assert "speaking 1" in capfd.readouterr().out


def test_numbers_go_on(tmp_path: Path) -> None:
    (tmp_path / "speak-41.log").write_text("of another day")
    with Executor(1, logs=str(tmp_path)) as ex:
        assert ex.submit(invert, 0).exception()
    assert (tmp_path / "invert-42.log").exists()
    assert (tmp_path / "speak-41.log").read_text() == "of another day"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"cache": "results"}, "leave one of them out"),
        ({"backend": Local(detached=True)}, "elsewhere give cache="),
    ],
)
def test_what_does_not_go_together(tmp_path: Path, options: dict[str, object], words: str) -> None:
    with pytest.raises(CallyardError, match=words):
        Executor(logs=tmp_path, **options)  # type: ignore[arg-type]


def test_a_directory_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="logs must be the path of a directory, not 3"):
        Executor(logs=3)  # type: ignore[arg-type]
    (tmp_path / "file").touch()
    with pytest.raises(CallyardError, match=r"logs='' names no directory; use '\.'"):
        Executor(logs="")
    with pytest.raises(CallyardError, match="choose another directory"):
        Executor(logs=tmp_path / "file")


@linux
def test_two_executors_in_one_directory(tmp_path: Path) -> None:
    with Executor(1, logs=tmp_path) as one, Executor(1, logs=tmp_path) as other:
        assert [ex.submit(speak, x).result() for x, ex in enumerate((one, other, one))] == [0, 1, 2]
    assert texts(tmp_path) == {f"speak-{x + 1}.log": f"speaking {x}\n" for x in range(3)}


@linux
def test_the_name_of_a_log_is_not_too_long(tmp_path: Path) -> None:
    def long(x: int) -> int:
        return speak(x)

    long.__name__ = "x" * 300
    with Executor(1, logs=tmp_path) as ex:
        ex.submit(long, 1).result()
    assert texts(tmp_path) == {f"{'x' * 60}-1.log": "speaking 1\n"}


@linux
def test_executors_of_a_process_may_share_a_directory(tmp_path: Path) -> None:
    with Executor(1, logs=tmp_path) as one, Executor(1, logs=tmp_path) as two:
        futures = [ex.submit(speak, number) for number in range(3) for ex in (one, two)]
        for future in futures:
            future.result()
    assert sorted(texts(tmp_path).values()) == [f"speaking {number}\n" for number in (0, 0, 1, 1, 2, 2)]
