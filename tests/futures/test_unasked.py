"""Failures that nobody has asked for are told once, when the program ends."""

from __future__ import annotations

import asyncio
import logging
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait

import pytest

from callyard import Cache, Executor, ResourceError, batched, item, unzip
from callyard.futures import Future, unasked


def fail(number: int) -> None:
    raise ValueError(f"no {number}")


@pytest.fixture(autouse=True)
def nothing_so_far() -> Iterator[None]:
    unasked.forget_all()
    unasked._silent.clear()  # by other tests, which end workers and never wait for it
    yield
    unasked.forget_all()


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """Return the lines of the program's end, if it were now."""

    def tell() -> list[str]:
        caplog.clear()
        unasked.tell()
        assert all(record.levelno == logging.WARNING and record.name == "callyard" for record in caplog.records)
        return [re.sub(r", or see `callyard logs \S+`$", "", record.getMessage()) for record in caplog.records]

    return tell


def one(number: int) -> str:
    return (
        "1 call of Callyard has failed, and its result was never asked for; the first: 'fail' raised ValueError: "
        f"no {number}. Ask with future.result() or future.exception()"
    )


@pytest.fixture(params=["live", "cached", "threads"])
def ex(request: pytest.FixtureRequest, tmp_path) -> Iterator[Executor]:
    with ThreadPoolExecutor(1) as threads:
        options = {"cached": {"cache": tmp_path / "results"}, "live": {}, "threads": {"backend": threads}}
        with Executor(**options[request.param]) as ex:
            yield ex


def test_failures_are_told_once(ex: Executor, told) -> None:
    for number in range(3):
        ex.submit(fail, number)
    ex.submit(pow, 2, 3)
    ex.shutdown()
    (line,) = told()
    assert line.startswith("3 calls of Callyard have failed, and their results were never asked for; the first: 'fail'")
    assert told() == []


def test_with_a_cache_the_line_says_where_to_look(results, caplog: pytest.LogCaptureFixture) -> None:
    with Executor(1, cache=results) as ex:
        ex.submit(fail, 1)
    unasked.tell()
    assert caplog.messages == [f"{one(1)}, or see `callyard logs {results}`"]


def test_what_was_refused_at_once_is_not_told(ex: Executor, told) -> None:
    """The submitter has the error, and no future to ask."""
    with pytest.raises(ResourceError):
        ex.submit(fail, 1, resource_dict={"cores_per_rank": 10_000})
    ex.shutdown()
    assert told() == []


def by_result(future: Future) -> None:
    with pytest.raises(ValueError, match="no"):
        future.result()


@pytest.mark.parametrize("ask", [Future.exception, by_result])
def test_what_was_asked_for_is_not_told(ex: Executor, told, ask) -> None:
    futures = [ex.submit(fail, number) for number in range(3)]
    for future in (*futures[:2], futures[0]):
        ask(future)
    ex.shutdown()
    assert told() == [one(2)]
    ask(futures[2])
    assert told() == []


def test_awaited_failures_are_not_told(ex: Executor, told) -> None:
    async def main() -> None:
        with pytest.raises(ValueError, match="no 1"):
            await ex.submit(fail, 1)

    asyncio.run(main())
    ex.shutdown()
    assert told() == []


def sharing(ex: Executor) -> list[Future]:
    """Return a call that fails, and all that fails because of it."""
    first = ex.submit(fail, 0)
    dependent = ex.submit(pow, first, 2)
    return [first, dependent, ex.submit(pow, dependent, 2), item(first, 0), *unzip(first, 2), *batched([first], 1)]


def test_who_asks_for_one_asks_for_all_that_share_the_failure(ex: Executor, told) -> None:
    for number in range(7):
        futures = sharing(ex)
        wait(futures)
        assert isinstance(futures[number].exception(), ValueError)
        assert told() == [], number


def test_a_shared_failure_counts_once(ex: Executor, told) -> None:
    wait(sharing(ex))
    assert told() == [one(0)]


def test_cancelled_calls_are_not_told(told) -> None:
    future = Future("fail")
    assert future.cancel()
    assert not future.fail_with(ValueError())
    other = Future("fail")
    other.set_result(1)
    assert not other.fail_with(ValueError())
    assert told() == []
    failed = Future("fail")
    assert failed.fail_with(ValueError("no 4"))
    assert not failed.fail_with(TypeError())
    assert told() == [one(4)]


def test_a_failure_from_the_cache_is_told(tmp_path, told) -> None:
    for _ in range(2):  # run; then remembered
        with Executor(cache=Cache(tmp_path / "results", failures=True)) as ex:
            ex.submit(fail, 5)
        assert told() == [one(5)]


def test_nothing_is_told_where_a_block_was_left_by_an_exception(ex: Executor, told) -> None:
    with pytest.raises(KeyError), ex:
        ex.submit(fail, 1)
        raise KeyError
    assert told() == []


@pytest.mark.parametrize("way", ["kill_workers", "terminate_workers"])
def test_calls_that_were_ended_on_purpose_are_not_told(told, way: str) -> None:
    with Executor(max_workers=1) as ex:
        ex.submit(fail, 1)
        getattr(ex, way)()
    assert told() == []
    with Executor(max_workers=1) as ex:
        ex.submit(fail, 6)
    assert told() == [one(6)]  # later ones are


class Unreadable(Exception):
    def __init__(self, one: int, two: int) -> None:
        super().__init__(one)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ValueError("a\nb"), " raised ValueError: a b."),
        (KeyError(), " raised KeyError."),
        (ValueError("x" * 1000), "x..."),
        (SystemExit(3), " raised SystemExit: 3."),
    ],
)
def test_words(told, error: BaseException, words: str) -> None:
    Future("fail").fail_with(error)
    (line,) = told()
    assert words in line
    assert len(line) < 500


def test_an_error_that_cannot_be_opened_is_told_by_its_name(told) -> None:
    class Broken:
        def load(self) -> object:
            raise Unreadable(1, 2)

    Future("fail").fail(Broken())
    (line,) = told()
    assert "the first: 'fail'. Ask with" in line


def test_few_errors_are_kept(told) -> None:
    for number in range(1000):
        Future("fail").fail_with(ValueError(f"no {number}"))
    assert len(unasked._failures) < 100
    assert told()[0].startswith("1,000 calls of Callyard have failed")


@pytest.mark.parametrize(
    ("more", "lines"),
    [
        ("", 1),
        ("future.exception()", 0),
        ("import logging; logging.getLogger('callyard').setLevel('ERROR')", 0),
        ("import atexit; atexit.register(future.exception)", 0),
        ("import os; os.fork() or os._exit(0); os.wait()", 1),
    ],
)
def test_the_end_of_a_program(more: str, lines: int, tmp_path) -> None:
    script = tmp_path / "script.py"
    text = "from callyard import Executor\nwith Executor() as ex:\n    future = ex.submit(divmod, 1, 0)\n"
    script.write_text(text + more)
    ended = subprocess.run(
        [sys.executable, "-Wignore::DeprecationWarning", script], capture_output=True, text=True, check=True, timeout=60
    )
    assert ended.stdout == ""
    assert ended.stderr.count("\n") == lines
    assert ("'divmod' raised ZeroDivisionError" in ended.stderr) == bool(lines)
