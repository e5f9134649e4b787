"""What has no meaning that can be hashed, and where in an argument it was found."""

from __future__ import annotations


class UnkeyableError(Exception):
    """A value has no meaning that can be hashed. `path` leads to it from where the walk began."""

    def __init__(self, value: object, reason: str) -> None:
        super().__init__(reason)
        self.kind = type(value).__qualname__
        self.reason = reason
        self.path = ""

    def inside(self, step: str) -> UnkeyableError:
        """The same, seen from one step further out."""
        self.path = step + self.path
        return self


class Pending(Exception):  # not an error: the key has to wait
    """A future among the arguments is not done."""
