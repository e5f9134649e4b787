"""The check whether a job can be asked for with some resources: its command is made as text, and not run."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from ...errors import CallyardError, ResourceError
from ...jobs.submission import trial_of
from ...resources import Resources
from ..resource_mapping import check_template, job_options, with_nodes
from .call import like_of

if TYPE_CHECKING:
    from ...schedulers.base import Scheduler
    from .writer import JobSettings

__all__ = ["JobCheck"]

_MOST_KINDS = 1000  # of resources that are remembered


class JobCheck:
    """The check for the jobs of one executor; it remembers what it has found possible."""

    def __init__(self, scheduler: Scheduler, settings: JobSettings) -> None:
        self._scheduler, self._settings = scheduler, settings
        self._site = scheduler.site()
        self._possible: set[str] = set()

    def completed(self, resources: Resources) -> Resources:
        """Return a call's resources with the executor's defaults, and the number of nodes.

        Raises:
            ResourceError: some contradict each other.
        """
        asked = resources.asked()
        missing = {name: value for name, value in self._settings.defaults.items() if name not in asked}
        return with_nodes(resources.updated(missing))

    def check(self, resources: Resources) -> None:
        """Raise ResourceError if no job can have these resources, which are complete, in any of its attempts."""
        job_options(resources)
        like, settings = like_of(resources), self._settings
        if like in self._possible:
            return
        if settings.template is not None:
            check_template(resources, settings.template_uses)
        try:
            for each in resources.attempts():
                self._try(each)
        except CallyardError:
            raise
        except Exception as error:  # as an unclosed quote, or a value unknown to JSON
            asked = ", ".join(f"{name}={value!r}" for name, value in resources.asked().items())
            raise ResourceError(f"no job can be asked for with {asked}: {error}") from error
        if len(self._possible) >= _MOST_KINDS:
            self._possible.clear()
        self._possible.add(like)

    def _try(self, resources: Resources) -> None:
        """Make the command of a request without running it. Any exception tells why there is none."""
        limit, templated = self._settings.time(resources.run_time), self._settings.template is not None
        request = trial_of(resources, limit, templated, self._settings.options)
        self._site.check(request.resources)
        for word in self._scheduler.submit(request).argv:
            if b"\0" in os.fsencode(word):
                raise ValueError(f"no command has a word with a character of the number 0: {word!r}")

    def check_call(self, resources: Resources) -> None:
        """Raise ResourceError if no job can have the resources that a call asks for."""
        self.check(self.completed(resources))
