"""Files that people ask for: reports and drawings."""

from __future__ import annotations

import os

from ..utils.paths import expand

__all__ = ["write_file"]


def write_file(path: str | os.PathLike[str], content: str | bytes) -> None:
    """Write a file, a new one for the user alone, because messages and paths may tell what others shall not know."""
    data = content.encode("utf-8", "backslashreplace") if isinstance(content, str) else content
    with open(expand(os.fspath(path)), "wb", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
        file.write(data)
