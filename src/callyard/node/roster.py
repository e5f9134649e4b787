"""Which nodes have an agent, and when one is to be started: decisions only, no processes, no clocks."""

from __future__ import annotations

from collections.abc import Iterable

CONNECT = 60.0  # s in which an agent must have connected
_AGAIN = (0.5, 2.0, 10.0, 30.0, 60.0)  # s after which an agent that is gone is started again


class _Node:
    __slots__ = ("failures", "since", "state")

    def __init__(self) -> None:
        self.state = "idle"  # then "starting", "there", "gone"
        self.since = 0.0
        self.failures = 0  # in a row


class Roster:
    """The nodes by name."""

    def __init__(self, names: Iterable[str]) -> None:
        self._nodes = {name: _Node() for name in names}
        self.changed = True  # since somebody set this to False
        self.ever = False  # whether an agent has been there since the first was started

    # -- events ----------------------------------------------------------------------------------------

    def starting(self, names: Iterable[str], now: float) -> None:
        for name in names:
            self._goes(name, "starting", now)

    def there(self, name: str, now: float) -> None:
        self._nodes.setdefault(name, _Node()).failures = 0
        self._goes(name, "there", now)
        self.ever = True

    def gone(self, name: str, now: float) -> None:
        """The agent cannot be reached any more. If its process is there, it is going to come back by itself."""
        if self._nodes[name].state == "there":
            self._goes(name, "starting", now)

    def ended(self, names: Iterable[str], now: float) -> None:
        """What was started for these nodes has ended."""
        for name in names:
            node = self._nodes[name]
            if node.state in ("starting", "there"):
                node.failures += 1
                self._goes(name, "gone", now)

    def forget(self) -> None:
        """Begin anew with those that are not there."""
        for name, node in self._nodes.items():
            if node.state == "gone":
                node.failures = 0
                self._goes(name, "idle", 0.0)
        self.ever = any(node.state == "there" for node in self._nodes.values())

    def _goes(self, name: str, state: str, now: float) -> None:
        node = self._nodes[name]
        node.state, node.since = state, now
        self.changed = True

    # -- questions -------------------------------------------------------------------------------------

    def to_start(self, now: float, wanted: bool) -> list[str]:
        """Those to be started now. `wanted`: there are calls; those that never were there wait for that."""
        return [name for name, node in self._nodes.items() if (when := _when(node, wanted)) is not None and when <= now]

    def next_start(self, wanted: bool) -> float | None:
        """When there is a next one to be started."""
        times = (_when(node, wanted) for node in self._nodes.values())
        return min((when for when in times if when is not None), default=None)

    def expected(self) -> list[str]:
        """Those that have been started and are not there yet."""
        return [name for name, node in self._nodes.items() if node.state == "starting"]

    def missing(self) -> list[str]:
        return [name for name, node in self._nodes.items() if node.state != "there"]


def _when(node: _Node, wanted: bool) -> float | None:
    """When its agent is to be started; None if it is not."""
    if node.state == "idle":
        return 0.0 if wanted else None
    if node.state == "starting":
        return node.since + CONNECT
    if node.state == "gone":
        return node.since + _AGAIN[min(node.failures, len(_AGAIN)) - 1]
    return None
