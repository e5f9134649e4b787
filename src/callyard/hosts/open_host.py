"""The choice of the host on which the commands of a scheduler run."""

from __future__ import annotations

from ..schedulers.base import Site
from .base import Host
from .this_machine import LocalHost

__all__ = ["open_host"]


def open_host(site: Site) -> Host:
    """Return the host for a backend or a command line: the only constructor call, so another kind is added here."""
    if site.daemon:
        from .daemon import DaemonHost  # here, because few processes speak with a daemon

        return DaemonHost()
    return LocalHost()
