"""The PMI plugin by which ranks started by a scheduler find each other: found by trying, and kept in a file."""

from __future__ import annotations

import contextlib
import os
import re
from functools import cached_property

from ..schedulers.base import Site
from ..utils.paths import runs_directory
from .base import Host

__all__ = ["MpiPlugins"]

_TIME_LIMIT = 10.0  # s for an optional answer


class MpiPlugins:
    """The candidate plugins, by the launcher's names for them; an empty name is the cluster's default."""

    def __init__(self, site: Site, host: Host, chosen: str | None) -> None:
        """Prepare the search; `chosen` is the user's own choice, then the only candidate."""
        self._site, self._host, self._chosen = site, host, chosen

    def candidates(self) -> list[str]:
        """Return the candidates, the most likely first."""
        if self._chosen is not None:
            return [self._chosen]
        texts = self._site.mpi
        return [""] if texts is None else texts.order(self._offered, _read(self._path))

    def fits(self, name: str) -> None:
        """Store this plugin as the one with which ranks have found each other."""
        if self._chosen is None and name and name != _read(self._path):
            with contextlib.suppress(OSError):  # the search will find it again
                _write(self._path, name)

    def advice(self, tried: list[str]) -> str:
        """Return the rest of a message: advice for when ranks found each other by none of the plugins tried."""
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
        """The path of the stored choice, one file for each cluster."""
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
