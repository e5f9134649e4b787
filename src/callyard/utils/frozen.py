"""Values with named fields, for processes that live for a moment only.

They are what frozen dataclasses are. But those load `inspect`, and compile code for each class: that takes a job
longer than a short call.
"""

from __future__ import annotations

from .lite_typing import Any, ClassVar, Self, dataclass_transform

__all__ = ["Frozen"]


@dataclass_transform(frozen_default=True)
class Frozen:
    """The annotations of a subclass are its fields, after those of its base; what is assigned there are defaults.

    Fields whose names begin with an underscore are not shown.
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
        """Return the same value, but for these fields."""
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
