"""The path of a failure, in a note of the exception: the names from the call that could not run to the one that failed.

callyard: optimise <- energy <- relax
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["add_path", "path_of"]

_MARK, _ARROW, _GAP = "callyard: ", " <- ", "..."
_LENGTH = 12  # the most names shown


def path_of(error: BaseException) -> list[str]:
    """Return the names of the path that is noted; [] without one."""
    return next((note[len(_MARK) :].split(_ARROW) for note in _notes(error) if _is_path(note)), [])


def add_path(error: BaseException, names: Sequence[str]) -> None:
    """Note a path, and behind it the one noted before: from the last of these calls on, or of calls within that one."""
    earlier = path_of(error)
    if names[-1] in earlier:
        earlier = earlier[earlier.index(names[-1]) + 1 :]
    path = [*names, *earlier]
    if len(path) > _LENGTH:
        path[_LENGTH // 2 : -_LENGTH // 2] = [_GAP]
    others = [note for note in _notes(error) if not _is_path(note)]
    # `add_note` by hand: Python 3.10 has none, and the class may be frozen.
    BaseException.__setattr__(error, "__notes__", [*others, _MARK + _ARROW.join(path)])


def _notes(error: BaseException) -> list[str]:
    return list(getattr(error, "__notes__", ()))


def _is_path(note: object) -> bool:
    return isinstance(note, str) and note.startswith(_MARK) and _ARROW in note
