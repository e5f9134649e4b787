"""Signs of life of peers: which to ask whether they are there, and which are gone.

The kernels notice a machine that is gone, or the network between, but not a process that hangs. So a peer from which
nothing has moved for a while is asked, and one without an answer in thrice that time is gone.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from .tls_connection import TlsConnection

__all__ = ["SignsOfLife", "SilentPeers"]


class SilentPeers(NamedTuple):
    """Peers without a sign of life: to be asked, and gone."""

    ask: list[TlsConnection]
    gone: list[TlsConnection]


class SignsOfLife:
    """The silence of each peer, in periods.

    A period in which this process itself was stopped, as a suspended job is, counts as one, however long it was: so
    peers that were stopped with it have time to answer.
    """

    def __init__(self, period: float) -> None:
        """Make the count, with periods of so many seconds."""
        self._period = period
        self._due = 0.0  # the end of the period
        self._silent: dict[TlsConnection, int] = {}  # whole periods of silence

    def look(self, peers: Collection[TlsConnection], now: float) -> SilentPeers:
        """Return the peers to ask, and those that are gone."""
        silent = SilentPeers([], [])
        if now < self._due:
            return silent
        self._due = now + self._period
        before, self._silent = self._silent, {}
        for peer in peers:
            periods = 0 if peer.moved else before.get(peer, 0) + 1
            peer.moved = False
            self._silent[peer] = periods
            if periods == 1:
                silent.ask.append(peer)
            elif periods > 3:  # the first may have been nearly over when it was asked
                silent.gone.append(peer)
        return silent

    def next_look(self) -> float:
        """Return the end of the period."""
        return self._due
