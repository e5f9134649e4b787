"""The plugin by which the ranks that a scheduler starts find each other: found by trying, and kept in a file."""

from __future__ import annotations

import contextlib
import os
import re
from functools import cached_property

from ..schedulers.base import Site
from ..utils.paths import runs_directory
from .base import Host

__all__ = ["MpiPlugins"]

_TIME_LIMIT = 10.0  # s for an answer that one can do without


class MpiPlugins:
    """The plugins that may fit here, by the names that the launcher knows; an empty one is the cluster's default."""

    def __init__(self, site: Site, host: Host, chosen: str | None) -> None:
        """`chosen`: the one that the user names, which alone is tried then."""
        self._site, self._host, self._chosen = site, host, chosen

    def candidates(self) -> list[str]:
        """Return those to try, in this order."""
        if self._chosen is not None:
            return [self._chosen]
        texts = self._site.mpi
        return [""] if texts is None else texts.order(self._offered, _read(self._path))

    def fits(self, name: str) -> None:
        """Remember that ranks have found each other by this one."""
        if self._chosen is None and name and name != _read(self._path):
            with contextlib.suppress(OSError):  # it is found again
                _write(self._path, name)

    def advice(self, tried: list[str]) -> str:
        """Return what to do when ranks have found each other by none of these: the rest of a message."""
        texts = self._site.mpi
        return "use another MPI library" if texts is None else texts.advice(self._chosen, tried, self._offered)

    @cached_property
    def _offered(self) -> list[str]:
        assert self._site.mpi is not None
        query = self._site.mpi.offered
        environment = self._site.environment(self._host.environment())
        reply = self._host.run(query.argv, timeout=_TIME_LIMIT, env=environment)
        return list(query.read(reply.out + reply.err))

    @property
    def _path(self) -> str:
        """The file for this cluster: another one may have another plugin."""
        cluster = "" if self._site.mpi is None else self._site.mpi.cluster(os.environ)
        return os.path.join(runs_directory(), f"mpi-{re.sub(r'[^A-Za-z0-9_-]', '_', cluster)}")


def _read(path: str) -> str | None:
    try:
        with open(path, encoding="ascii") as file:
            return file.read()
    except (OSError, ValueError):
        return None


def _write(path: str, name: str) -> None:
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    part = f"{path}.{os.getpid()}"
    with open(part, "w", encoding="ascii", opener=lambda path, flags: os.open(path, flags, 0o600)) as file:
        file.write(name)
    os.replace(part, path)
