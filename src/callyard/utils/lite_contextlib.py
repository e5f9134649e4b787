"""Light contextlib: `suppress` without the rest of that module, which takes as long to load as five of ours."""

from __future__ import annotations

__all__ = ["suppress"]


class suppress:  # noqa: N801  # as in `contextlib`
    """A context manager that ends its block at these exceptions, and lets the program go on after it."""

    def __init__(self, *kinds: type[BaseException]) -> None:
        self._kinds = kinds

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> bool:
        return kind is not None and issubclass(kind, self._kinds)
