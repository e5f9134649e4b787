"""Who types the commands: in a thread, so that whoever waits for an answer can look at something else meanwhile.

What is to be done with a scheduler is written as a generator of commands: it gives one, is resumed with what that
returned or raised, gives the next. All generators of an executor run in its own thread, so they need no locks; only
the commands, which may take a minute, run in another, one at a time.
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
    """Types commands; replies come back through `post`, which lets the thread run them that uses the clerk.

    Without `post` each command is waited for.
    """

    def __init__(self, post: Post | None = None) -> None:
        self._post = post
        self._todo: deque[tuple[Command, Steps]] = deque()
        self.busy = False  # a command is being typed

    def run(self, steps: Steps) -> None:
        """Begin with them. What they raise comes out of here, or of what is given to `post`."""
        self._resume(partial(next, steps), steps)
        self._type_next()

    def do(self, command: Command) -> None:
        """Type one command whose answer does not matter."""
        self.run(_alone(command))

    def stay(self) -> None:
        """From now on let each command be waited for: threads cannot be started any more."""
        self._post = None

    def _resume(self, step: Callable[[], Command], steps: Steps) -> None:
        try:
            self._todo.append((step(), steps))
        except StopIteration:
            pass

    def _type_next(self) -> None:
        while self._todo and not self.busy:
            command, steps = self._todo.popleft()
            self.busy = True
            if self._post is not None and _started(partial(self._type, self._post, command, steps)):
                return
            self._go_on(_typed(command, steps), steps)

    def _type(self, post: Post, command: Command, steps: Steps) -> None:
        post(partial(self._answered, _typed(command, steps), steps))

    def _answered(self, step: Callable[[], Command], steps: Steps) -> None:
        try:
            self._go_on(step, steps)
        finally:
            self._type_next()

    def _go_on(self, step: Callable[[], Command], steps: Steps) -> None:
        self.busy = False
        self._resume(step, steps)


def _alone(command: Command) -> Steps:
    yield command


def _typed(command: Command, steps: Steps) -> Callable[[], Command]:
    """What resumes the steps, once their command was typed."""
    try:
        return partial(steps.send, command())
    except Exception as error:
        return partial(steps.throw, error)


def _started(work: Callable[[], object]) -> bool:
    """Whether there is a thread for it; at the end of the interpreter, and at a limit, there is none to be had."""
    try:
        threading.Thread(target=work, name="callyard-types", daemon=True).start()
    except RuntimeError:
        return False
    return True
