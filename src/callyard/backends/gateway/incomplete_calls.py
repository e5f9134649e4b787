"""The calls that wait, on the side of the gateway, for contents on their way or for calls that do."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator

from .protocol import ContentName, SentCall

__all__ = ["IncompleteCalls"]


class _Waiting:
    def __init__(self, call: SentCall, contents: set[ContentName], inputs: set[int]) -> None:
        self.call, self.contents, self.inputs = call, contents, inputs


class IncompleteCalls:
    """Decides which calls may be submitted: those whose contents are there, and whose inputs were submitted."""

    def __init__(self) -> None:
        self._calls: dict[int, _Waiting] = {}  # in their order
        self._by_content: defaultdict[ContentName, list[int]] = defaultdict(list)
        self._by_input: defaultdict[int, list[int]] = defaultdict(list)

    def __len__(self) -> int:
        return len(self._calls)

    def add(self, number: int, call: SentCall, absent: Iterable[ContentName]) -> bool:
        """Let a call wait; return False if there is nothing to wait for."""
        inputs = {given.number for given in call.inputs if given.number in self._calls}
        contents = set(absent)
        if not inputs and not contents:
            return False
        self._calls[number] = _Waiting(call, contents, inputs)
        for content in contents:
            self._by_content[content].append(number)
        for given in inputs:
            self._by_input[given].append(number)
        return True

    def arrived(self, content: ContentName) -> Iterator[tuple[int, SentCall]]:
        """Yield the calls that may be submitted now, each after its inputs."""
        for number in self._by_content.pop(content, ()):
            waiting = self._calls.get(number)
            if waiting is not None:
                waiting.contents.discard(content)
                yield from self._if_ready(number, waiting)

    def that_need(self, content: ContentName) -> list[int]:
        """Return the calls that wait for a content."""
        return [number for number in self._by_content.get(content, ()) if number in self._calls]

    def drop(self, number: int) -> Iterator[tuple[int, SentCall]]:
        """Forget a call that is not going to be submitted, and yield those that waited for nothing else."""
        if self._calls.pop(number, None) is not None:
            yield from self._gone(number)

    def clear(self) -> list[int]:
        """Forget all calls, and return their numbers."""
        numbers = list(self._calls)
        self._calls.clear()
        self._by_content.clear()
        self._by_input.clear()
        return numbers

    def _if_ready(self, number: int, waiting: _Waiting) -> Iterator[tuple[int, SentCall]]:
        if not waiting.contents and not waiting.inputs:
            del self._calls[number]
            yield number, waiting.call
            yield from self._gone(number)

    def _gone(self, number: int) -> Iterator[tuple[int, SentCall]]:
        """Yield the calls that waited for nothing but this one, and so on. Without recursion: chains may be long."""
        todo = [number]
        while todo:
            for dependent in self._by_input.pop(todo.pop(), ()):
                waiting = self._calls.get(dependent)
                if waiting is None:
                    continue
                waiting.inputs -= {each for each in waiting.inputs if each not in self._calls}
                if not waiting.contents and not waiting.inputs:
                    del self._calls[dependent]
                    yield dependent, waiting.call
                    todo.append(dependent)
