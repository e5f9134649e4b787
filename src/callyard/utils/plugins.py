"""Plug-ins: classes found by name, our own in a table and others among the entry points of installed packages.

Nothing is imported before its name is used, and installed packages are searched only for names missing in our table,
because reading the metadata of packages takes longer than most calls.
"""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["find_plugin", "plugin_names"]


def find_plugin(group: str, name: str, own: Mapping[str, str]) -> object | None:
    """Return the object of this name; None if there is none.

    Args:
        group: the entry-point group of other packages.
        name: the name, as users write it.
        own: our objects by name, in the form of entry points: "package.module:attribute". Other packages cannot take
            these names.

    Raises:
        ImportError: the entry point of another package leads nowhere.
    """
    if name in own:
        from importlib import import_module

        module, _, attribute = own[name].partition(":")
        found: object = getattr(import_module(module), attribute)
        return found
    from importlib.metadata import entry_points

    for other in entry_points(group=group, name=name):
        try:
            loaded: object = other.load()
        except (ImportError, AttributeError) as error:
            raise ImportError(f"{other.value}, the entry point {name!r} of {group}, is not there: {error}") from error
        return loaded
    return None


def plugin_names(group: str, own: Mapping[str, str]) -> list[str]:
    """Return all names, our own first."""
    from importlib.metadata import entry_points

    return list(dict.fromkeys([*own, *sorted(entry_points(group=group).names)]))
