"""Commands are typed one at a time, elsewhere; what is to be done with the answers is done in order, here."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable

import pytest

from callyard.utils.command_thread import CommandThread, Steps


def steps(name: str, said: list[str], *commands: Callable[[], str]) -> Steps:
    for command in commands:
        try:
            said.append(f"{name}: {(yield command)}")
        except LookupError as error:
            said.append(f"{name}: {error!r}")


def fails() -> str:
    raise LookupError("no answer")


def test_without_a_thread() -> None:
    said: list[str] = []
    CommandThread().run(steps("a", said, lambda: "1", fails, lambda: "2"))
    assert said == ["a: 1", "a: LookupError('no answer')", "a: 2"]


def test_many_steps_without_a_thread_are_not_deep() -> None:
    said: list[str] = []
    CommandThread().run(steps("a", said, *[lambda: "1"] * 10_000))
    assert len(said) == 10_000


def test_one_at_a_time_in_the_order_in_which_they_came() -> None:
    inbox: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()
    said, typed = list[str](), list[str]()
    begun, go = threading.Event(), threading.Event()

    def slow() -> str:
        begun.set()
        go.wait()
        return "slow"

    def typing(word: str) -> Callable[[], str]:
        return lambda: typed.append(word) or word

    clerk = CommandThread(inbox.put)
    clerk.run(steps("a", said, slow, typing("last")))
    clerk.run(steps("b", said, typing("first"), fails))
    begun.wait()
    assert clerk.busy
    assert (said, typed) == ([], [])
    go.set()
    while clerk.busy:
        inbox.get()()
    assert said == ["a: slow", "b: first", "a: last", "b: LookupError('no answer')"]
    assert typed == ["first", "last"]


def test_what_the_steps_raise_comes_out_and_the_others_go_on() -> None:
    inbox: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()
    clerk, said = CommandThread(inbox.put), list[str]()

    def bad() -> Steps:
        yield lambda: "1"
        raise ValueError("bad")

    clerk.run(bad())
    clerk.run(steps("b", said, lambda: "2"))
    with pytest.raises(ValueError, match="bad"):
        inbox.get()()
    while clerk.busy:
        inbox.get()()
    assert said == ["b: 2"]


def test_where_no_thread_can_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refused)
    said: list[str] = []
    CommandThread(lambda step: pytest.fail("nobody would look there")).run(steps("a", said, lambda: "1", lambda: "2"))
    assert said == ["a: 1", "a: 2"]
