"""The values of resources: counts, amounts, texts, times, paths and environments, checked and made uniform."""

from __future__ import annotations

import datetime as dt
import numbers
import operator
import os
import re
import shlex
import signal
from collections.abc import Iterable, Mapping
from typing import Any

from .errors import ResourceError
from .utils.paths import expand
from .utils.quantities import MEMORY, measured, seconds

__all__ = [
    "Amount",
    "amount",
    "arguments",
    "begin",
    "environment",
    "limits",
    "mail_types",
    "memory_bytes",
    "names",
    "path",
    "path_here",
    "signal_name",
    "text",
    "whole",
]

_MAY_BE_ZERO = ("grace",)
_SIZES = ("memory", "log_limit")  # in GiB
# Signals without a meaning to Python or the kernel, which end a process without a handler.
_WARNINGS = ("USR1", "USR2", "HUP")
_MOST = 1e300  # beyond any machine and any age, and still a float in every unit


class Amount:
    """A field of a dataclass in GiB or seconds, given as a number or as a text with a unit and kept as a number."""

    def __init__(self, default: float | str | None = None) -> None:
        self._default = default

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, instance: object, owner: type | None = None) -> float | None:
        if instance is None:
            return self._default if self._default is None else amount(self._name, self._default)
        value: float | None = vars(instance)[self._name]
        return value

    def __set__(self, instance: object, value: float | str | None) -> None:
        vars(instance)[self._name] = amount(self._name, value)


def whole(name: str, value: Any, least: int | None) -> int:
    """Return an integer of any library as Python's own; refuse other values and too small ones."""
    try:
        whole = None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        whole = None
    if whole is None or (least is not None and whole < least):
        kind = "an integer" if least is None else f"a whole number of at least {least}"
        raise ResourceError(f"{name} must be {kind}, not {value!r}")
    return whole


def amount(name: str, value: Any) -> float | None:
    """Return GiB or seconds as Python's own number, from a number or a text with a unit.

    Raises:
        ResourceError: the value is no number, negative, or 0 for a field that must be positive.
    """
    if value is None:
        return None
    try:
        number = _number(name, value)
    except OverflowError:
        number = float("inf")
    zero = name in _MAY_BE_ZERO and number == 0
    if not zero and not 0 < number < _MOST:
        unit, text = ("GiB", '"4GB"') if name in _SIZES else ("seconds", '"90min" or "12:00:00"')
        hint = f" or a text as {text}" if isinstance(value, str) else ""
        least = f"a {'non-negative' if name in _MAY_BE_ZERO else 'positive'} number of {unit}"
        raise ResourceError(f"{name} must be {least}{hint}, not {value!r}")
    return value if type(value) is int else number


def limits(name: str, value: Any) -> list[Any]:
    """Return the limits of a call's attempts, from one limit or a list of them; the first is unchecked."""
    if not isinstance(value, (list, tuple)):
        return [value]
    if not value or None in value:
        raise ResourceError(f"{name} must be a limit, or a list of limits to try in turn, not {value!r}")
    return [amount(name, each) for each in value]


def memory_bytes(memory: float | None) -> int:
    """Return GiB in bytes, at least one, because 0 stands for a call without a limit."""
    return 0 if memory is None else max(1, int(memory * MEMORY["gib"]))


def _number(name: str, value: Any) -> float:
    if isinstance(value, str):
        return measured(value, MEMORY) / MEMORY["gib"] if name in _SIZES else seconds(value)
    return float("nan") if isinstance(value, bool) or not isinstance(value, numbers.Real) else float(value)


def signal_name(value: object) -> str:
    """Return the name of a signal for the warning of a call, without SIG, from a name or a number."""
    known = {str(name): name for name in _WARNINGS} | {str(int(_signal(name))): name for name in _WARNINGS}
    name = known.get(str(value).upper().removeprefix("SIG"))
    if name is None or isinstance(value, bool):
        raise ResourceError(f"warn_signal must be one of {', '.join(_WARNINGS)}, or its number, not {value!r}")
    return name


def _signal(name: str) -> signal.Signals:
    return signal.Signals[f"SIG{name}"]


def path(name: str, value: object) -> str | os.PathLike[str]:
    """Return the path as it is: what `~` stands for is known on the computer of the call."""
    if not isinstance(value, (str, os.PathLike)) or not os.fspath(value):
        raise ResourceError(f"{name} must be a path, not {value!r}")
    if not _fits_system(os.fspath(value)):
        raise ResourceError(f"{name} must be a path without NUL, of characters that files can have, not {value!r}")
    return value


def path_here(name: str, value: object) -> str | os.PathLike[str]:
    """Return a path of this computer, with its `~` expanded."""
    given = path(name, value)
    return expand(os.fspath(given)) if str(given).startswith("~") else given


def _fits_system(text: str | bytes) -> bool:
    """Return False for a text that the system takes neither as a path nor in an environment."""
    try:
        return b"\0" not in os.fsencode(text)
    except UnicodeEncodeError:  # half of a surrogate pair, say
        return False


def environment(key: str, env: object) -> dict[str, str]:
    """Return a copy: the call gets the variables of this moment."""
    if not isinstance(env, Mapping):
        raise ResourceError(f"{key} must be a mapping of names to values, not {env!r}")
    for name, value in env.items():
        if not _is_variable(name) or not isinstance(value, str) or not _fits_system(value):
            raise ResourceError(f"{key} must map names to strings, which {name!r}: {value!r} does not")
    return dict(env)


def _is_variable(name: object) -> bool:
    return isinstance(name, str) and bool(name) and "=" not in name and _fits_system(name)


# ------------------------------------------------------------------ texts for schedulers

# Compiled at first use, because every program imports this module.
_CONTROL = r"[\0-\x1f\x7f]"
_MAILS = (
    *("NONE", "BEGIN", "END", "FAIL", "REQUEUE", "ALL", "INVALID_DEPEND", "STAGE_OUT", "ARRAY_TASKS"),
    *("TIME_LIMIT", "TIME_LIMIT_90", "TIME_LIMIT_80", "TIME_LIMIT_50"),
)
_TIME_OF_DAY = r"\d{1,2}:\d\d(?::\d\d)?(?: ?[ap]m)?"
_DATE = r"\d{4}-\d\d?-\d\d?|\d{6}|\d\d?[/.]\d\d?(?:[/.]\d\d(?:\d\d)?)?"
_MOMENT = rf"now(?: ?[+-] ?\d+ ?[a-z]*)?|today|tomorrow|midnight|noon|fika|teatime|{_TIME_OF_DAY}|{_DATE}"
_BEGIN = rf"(?i:(?:{_MOMENT})(?:(?:T| +)(?:{_MOMENT}))*)"


def text(name: str, value: object) -> str:
    """Return a text for a command, unchanged; refuse other values, and characters impossible in a command."""
    if not isinstance(value, str) or not value.strip() or re.search(_CONTROL, value):
        raise ResourceError(f"{name} must be a text on one line, not {value!r}")
    return value


def names(name: str, value: object) -> str:
    """Return one or several names as a text with commas between them."""
    given = [value] if isinstance(value, str) else list(value) if isinstance(value, Iterable) else []
    words = [each.strip(" ") if isinstance(each, str) else "" for each in given]
    if not words or not all(words) or any(re.search(_CONTROL, word) or " " in word for word in words):
        raise ResourceError(f"{name} must be a text without blanks, or a list of such texts, not {value!r}")
    return ",".join(words)


def mail_types(name: str, value: object) -> str:
    """Return kinds of mail as Slurm writes them."""
    words = names(name, value).upper()
    if not set(words.split(",")) <= set(_MAILS):
        raise ResourceError(f"{name} must be one or several of {', '.join(_MAILS)}, not {value!r}")
    return words


def begin(name: str, value: object) -> str:
    """Return the earliest start of a job as Slurm reads it; a time with a zone becomes one of this machine's zone."""
    if isinstance(value, dt.datetime):
        local = value if value.tzinfo is None else value.astimezone().replace(tzinfo=None)
        return local.isoformat(timespec="seconds")
    if not isinstance(value, str) or not re.fullmatch(_BEGIN, value.strip(" ")):
        raise ResourceError(
            f'{name} must be a datetime, or a text such as "now+2hours", "16:00" or "2030-01-31T12:00", not {value!r}'
        )
    return value.strip(" ")


def arguments(name: str, value: object) -> str | tuple[str, ...]:
    """Return arguments of a command: a text, which a shell could read as words, or the words."""
    if not isinstance(value, Iterable) or isinstance(value, (bytes, Mapping)):
        raise ResourceError(f"{name} must be a text or a list of words, not {value!r}")
    found = value if isinstance(value, str) else tuple(map(str, value))
    try:
        words = shlex.split(found) if isinstance(found, str) else found
    except ValueError as error:
        raise ResourceError(f"{name} must be words as in a shell ({error}), not {value!r}") from None
    if any("\0" in word for word in words):
        raise ResourceError(f"{name} must be words without NUL, not {value!r}")
    return found
