"""Light typing: names for annotations without the module `typing`, whose import takes as long as most of a job.

Annotations are never evaluated, so at run time the names of `typing` only have to exist. The abstract classes are those
of `collections.abc`, from the module loaded by each interpreter at its start.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
    from typing import Any, ClassVar, Literal, NoReturn, Protocol

    from typing_extensions import Self, dataclass_transform
else:
    from _collections_abc import Callable, Container, Iterable, Iterator, Mapping, Sequence

    class _Type:
        def __class_getitem__(cls, _: object) -> object:
            return cls

    Any = ClassVar = Literal = NoReturn = Protocol = Self = _Type

    def dataclass_transform(**_):
        return lambda cls: cls


__all__ = [
    "TYPE_CHECKING",
    "Any",
    "Callable",
    "ClassVar",
    "Container",
    "Iterable",
    "Iterator",
    "Literal",
    "Mapping",
    "NoReturn",
    "Protocol",
    "Self",
    "Sequence",
    "dataclass_transform",
]
