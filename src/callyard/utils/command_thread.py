"""The command thread: runs the commands of a scheduler beside the thread that needs their replies.

A procedure with a scheduler is written as a generator of commands: it yields a command, is resumed with its result or
exception, and yields the next. All generators of an executor run in the executor's own thread, so they need no locks;
only the commands, each of which may take a minute, run in another thread, one at a time.
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
    """A queue of commands, run one at a time; replies are passed to `post`, which handles them in the owner's thread.

    Without `post` the caller waits for each command.
    """

    def __init__(self, post: Post | None = None) -> None:
        self._post = post
        self._waiting: deque[tuple[Command, Steps]] = deque()
        self.busy = False  # a command is running

    def run(self, steps: Steps) -> None:
        """Start a generator of commands. Its exceptions leave this method, or the functions passed to `post`."""
        self._resume(partial(next, steps), steps)
        self._run_next()

    def do(self, command: Command) -> None:
        """Run one command and ignore its reply."""
        self.run(_alone(command))

    def stay(self) -> None:
        """Wait for each command from now on, because no thread can be started any more."""
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
            # Without another thread this one waits for the command.
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
        # First, because the generator may start others, with commands to run at once.
        self.busy = False
        self._resume(step, steps)


def _alone(command: Command) -> Steps:
    yield command


def _replied(command: Command, steps: Steps) -> Callable[[], Command]:
    """Run the command; return a function for resuming the generator with the result or exception."""
    try:
        return partial(steps.send, command())
    except Exception as error:
        return partial(steps.throw, error)


def _started(work: Callable[[], object]) -> bool:
    """Start a thread; return False if none can be started, as at the interpreter's end or at a limit on threads."""
    try:
        threading.Thread(target=work, name="callyard-commands", daemon=True).start()
    except RuntimeError:
        return False
    return True
