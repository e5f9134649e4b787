"""Immutable values with named fields, for short-lived processes.

They behave as frozen dataclasses, which would load `inspect` and compile code for each class: more time than a short
call takes.
"""

from __future__ import annotations

from .lite_typing import Any, ClassVar, Self, dataclass_transform

__all__ = ["Frozen"]


@dataclass_transform(frozen_default=True)
class Frozen:
    """A base class whose annotations are fields, after those of the bases; assigned values are defaults.

    The repr leaves out fields with a leading underscore.
    """

    fields: ClassVar[tuple[str, ...]] = ()  # their names
    _defaults: ClassVar[dict[str, Any]] = {}

    def __init_subclass__(cls) -> None:
        own, held = cls.__annotations__, vars(cls)
        cls.fields = (*cls.fields, *own)
        cls._defaults = {**cls._defaults, **{name: held[name] for name in own if name in held}}

    def __init__(self, *args: Any, **named: Any) -> None:
        given = {**self._defaults, **dict(zip(self.fields, args, strict=False)), **named}
        twice = args and not named.keys().isdisjoint(self.fields[: len(args)])
        if twice or len(args) > len(self.fields) or given.keys() != {*self.fields}:
            raise TypeError(f"{type(self).__name__} has the fields {', '.join(self.fields)}, each of them once")
        vars(self).update(given)

    def replace(self, **changes: Any) -> Self:
        """Return a copy with these fields changed."""
        return type(self)(**{**vars(self), **changes})

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"{type(self).__name__} is not changed: {name} is what it is")

    def __eq__(self, other: object) -> bool:
        return vars(self) == vars(other) if type(self) is type(other) else NotImplemented

    def __hash__(self) -> int:
        return hash(tuple(vars(self)[name] for name in self.fields))

    def __repr__(self) -> str:
        shown = (f"{name}={vars(self)[name]!r}" for name in self.fields if not name.startswith("_"))
        return f"{type(self).__qualname__}({', '.join(shown)})"
