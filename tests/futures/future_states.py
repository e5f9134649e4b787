"""Futures that have ended, packed values, and threads that begin at one moment, for the tests of futures."""

from __future__ import annotations

import threading

from callyard.futures import Future


class Parcel:
    """Something packed; counts how often it is opened."""

    def __init__(self, content: object, fails: bool = False) -> None:
        self.content, self.fails, self.opened = content, fails, 0

    def load(self) -> object:
        self.opened += 1
        if self.fails:
            raise self.content  # type: ignore[misc]
        return self.content


class Thing:
    """Something that can be referred to weakly."""


def done(value: object) -> Future:
    future: Future = Future()
    future.set_result(value)
    return future


def failed(error: BaseException) -> Future:
    future: Future = Future()
    future.set_exception(error)
    return future


def cancelled() -> Future:
    future: Future = Future()
    future.cancel()
    return future


def race(*actions) -> None:
    """Run the actions in threads that begin at the same moment."""
    ready = threading.Barrier(len(actions))

    def run(action) -> None:
        ready.wait(60)
        action()

    threads = [threading.Thread(target=run, args=(action,)) for action in actions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
