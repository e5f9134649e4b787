"""Light typing: names for annotations without the module `typing`, whose import takes as long as most of a job.

Annotations are never evaluated, so at run time the names only have to exist.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, ClassVar, Literal, NoReturn, Protocol

    from typing_extensions import Self, dataclass_transform
else:

    class _Type:
        def __class_getitem__(cls, _: object) -> object:
            return cls

    Any = ClassVar = Literal = NoReturn = Protocol = Self = _Type

    def dataclass_transform(**_):
        return lambda cls: cls


__all__ = ["TYPE_CHECKING", "Any", "ClassVar", "Literal", "NoReturn", "Protocol", "Self", "dataclass_transform"]
