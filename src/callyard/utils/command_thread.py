"""The command thread: commands of a scheduler run beside the thread that waits for their replies.

A procedure with a scheduler is written as a generator of commands: it yields one, is resumed with what that returned or
raised, and yields the next. All generators of an executor run in its own thread, so they need no locks; only the
commands, which may take a minute, run in another, one at a time.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator
from functools import partial
from typing import Any

__all__ = ["Command", "CommandThread", "Steps"]

Command = Callable[[], Any]
Steps = Generator[Command, Any, None]
Post = Callable[[Callable[[], object]], object]


class CommandThread:
    """Runs commands, one at a time. Their replies are given to `post`, which has the owner's thread deal with them.

    Without `post` each command is waited for.
    """

    def __init__(self, post: Post | None = None) -> None:
        self._post = post
        self._waiting: deque[tuple[Command, Steps]] = deque()
        self.busy = False  # a command is running

    def run(self, steps: Steps) -> None:
        """Begin with the steps. Their exceptions come out of here, or of the functions that are given to `post`."""
        self._resume(partial(next, steps), steps)
        self._run_next()

    def do(self, command: Command) -> None:
        """Run one command whose reply does not matter."""
        self.run(_alone(command))

    def stay(self) -> None:
        """From now on wait for each command, because no thread can be started any more."""
        self._post = None

    def _resume(self, step: Callable[[], Command], steps: Steps) -> None:
        try:
            self._waiting.append((step(), steps))
        except StopIteration:
            pass

    def _run_next(self) -> None:
        while self._waiting and not self.busy:
            command, steps = self._waiting.popleft()
            self.busy = True
            if self._post is not None and _started(partial(self._run_beside, self._post, command, steps)):
                return
            self._go_on(_replied(command, steps), steps)

    def _run_beside(self, post: Post, command: Command, steps: Steps) -> None:
        post(partial(self._answered, _replied(command, steps), steps))

    def _answered(self, step: Callable[[], Command], steps: Steps) -> None:
        try:
            self._go_on(step, steps)
        finally:
            self._run_next()

    def _go_on(self, step: Callable[[], Command], steps: Steps) -> None:
        self.busy = False
        self._resume(step, steps)


def _alone(command: Command) -> Steps:
    yield command


def _replied(command: Command, steps: Steps) -> Callable[[], Command]:
    """Run the command; return the function that resumes the steps with its reply."""
    try:
        return partial(steps.send, command())
    except Exception as error:
        return partial(steps.throw, error)


def _started(work: Callable[[], object]) -> bool:
    """Start a thread for it; return False at the end of the interpreter, or at a limit, where none is to be had."""
    try:
        threading.Thread(target=work, name="callyard-commands", daemon=True).start()
    except RuntimeError:
        return False
    return True
