"""The check of a call's resources at `submit`: whether a job can be asked for with them, before anything is written."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping

from ...errors import CallyardError, ResourceError
from ...jobs.submission import note_of, trial_of
from ...resources import Resources
from .call import like_of
from .scheduler_client import SchedulerClient
from .writer import JobSettings

__all__ = ["RequestCheck"]

_MOST = 1000  # kinds of resources that are remembered


class RequestCheck:
    """The kinds of resources with which jobs can be asked for, as far as that was tried."""

    def __init__(self, scheduler: SchedulerClient, settings: JobSettings) -> None:
        self._scheduler, self._settings = scheduler, settings
        self._checked: set[str] = set()

    def check(self, resources: Resources) -> None:
        """Raise ResourceError if these resources cannot be written down, or no command can be made of them."""
        like = like_of(resources)
        if like in self._checked:
            return
        for name, value in resources.asked().items():
            for text in _texts(value):
                _check_text(name, text)
        time, templated = self._settings.time(resources.run_time), self._settings.template is not None
        try:
            self._scheduler.check(trial_of(note_of("call", resources, None, time, templated, ())))
        except CallyardError:
            raise
        except Exception as error:  # as an unclosed quote, or a value that JSON has nothing for
            asked = ", ".join(f"{name}={value!r}" for name, value in resources.asked().items())
            raise ResourceError(f"no job can be asked for with {asked}: {error}") from error
        if len(self._checked) >= _MOST:
            self._checked.clear()
        self._checked.add(like)


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, os.PathLike):
        yield os.fspath(value)
    elif isinstance(value, Mapping):
        yield from _texts([*value.keys(), *value.values()])
    elif isinstance(value, (list, tuple, set, frozenset)):
        yield from (text for each in value for text in _texts(each))


def _check_text(name: str, text: str) -> None:
    try:
        if "\0" not in text:
            os.fsencode(text)
            return
        problem = "has a character of the number 0 in it"
    except UnicodeEncodeError:
        problem = "has a character in it that this system's encoding lacks"
    raise ResourceError(f"{name} {problem}, with which no job can be asked for: {text!r}; leave that out")
