"""A host that runs nothing and answers each command from a script."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from threading import Event

from ..schedulers.command import Reply

__all__ = ["ScriptedHost"]


class ScriptedHost:
    """A host with prepared answers, which records the commands it is given.

    Args:
        answer: the reply to each command, or a function that makes the reply from its words and its input.

    Attributes:
        commands: the words of each command, in order.

    >>> host = ScriptedHost(Reply(0, "7"))
    >>> host.run(["submit", "script"], timeout=1).out
    '7'
    >>> host.commands
    [['submit', 'script']]
    """

    def __init__(self, answer: Reply | Callable[[Sequence[str], str], Reply]) -> None:
        self._answer = answer
        self.commands: list[list[str]] = []

    def environment(self) -> Mapping[str, str]:
        """Return no variables."""
        return {}

    def exists(self, path: str) -> bool:
        """Return True: every file is there."""
        return True

    def run(
        self,
        argv: Sequence[str],
        *,
        timeout: float,
        env: Mapping[str, str] | None = None,
        stop: Event | None = None,
        stdin: str = "",
    ) -> Reply:
        """Record the command, and return its answer at once."""
        self.commands.append(list(argv))
        return self._answer if isinstance(self._answer, Reply) else self._answer(argv, stdin)
