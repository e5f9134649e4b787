"""The names that code reads, taken from its instructions: globals, attributes, and modules of import statements."""

from __future__ import annotations

import dis
import weakref
from collections.abc import Iterator
from types import CodeType
from typing import Any, NamedTuple

IDLE = frozenset(("CACHE", "EXTENDED_ARG", "NOP", "RESUME"))  # instructions that do nothing a reader needs
_GLOBAL = frozenset(("LOAD_GLOBAL", "LOAD_NAME", "STORE_GLOBAL", "DELETE_GLOBAL", "LOAD_FROM_DICT_OR_GLOBALS"))

Step = tuple[str, Any]  # the name of an instruction, and its argument


def inner_codes(code: CodeType) -> Iterator[CodeType]:
    """Yield the code of the functions and classes that are defined directly in this code."""
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield constant


def all_codes(code: CodeType) -> Iterator[CodeType]:
    """Yield this code and, at any depth, the code that is defined in it."""
    yield code
    for inner in inner_codes(code):
        yield from all_codes(inner)


def steps(code: CodeType) -> Iterator[Step]:
    """Yield the instructions that do something; one that does two things at once is yielded as two."""
    for instruction in dis.get_instructions(code):
        name, argument = instruction.opname, instruction.argval
        if name in IDLE:
            continue
        if name.count("_FAST") == 2 and isinstance(argument, tuple):
            first, second = name.split("_FAST")[:2]
            yield first + "_FAST", argument[0]
            yield second.split("_")[-1] + "_FAST", argument[1]
        else:
            yield name, argument


def imported(found: list[Step], number: int) -> tuple[str, int, Any]:
    """Return the module, the level and the list of names of the import statement at this step.

    The compiler loads level and names just before IMPORT_NAME; code that was written by hand may do anything there.
    """
    level, names = (found[number - back][1] if number >= back else 0 for back in (2, 1))
    return found[number][1], level if type(level) is int else 0, names


class Names(NamedTuple):
    """The names in code, and in all code that is defined in it."""

    globals: tuple[str, ...]  # those that it may read, set or delete, in the order in which they occur
    everything: frozenset[str]  # these and the names of attributes
    imports: frozenset[tuple[str, int]]  # modules of import statements, with their levels


_names: weakref.WeakKeyDictionary[CodeType, Names] = weakref.WeakKeyDictionary()


def names(code: CodeType) -> Names:
    """Return the names in code. They are found once, as long as the code lives."""
    found = _names.get(code)
    if found is None:
        found = _names[code] = _find_names(code)
    return found


def _find_names(code: CodeType) -> Names:
    globals_, everything, imports = dict[str, None](), set(code.co_names), set[tuple[str, int]]()
    instructions = list(steps(code))
    for number, (name, argument) in enumerate(instructions):
        if name in _GLOBAL:
            globals_[argument] = None
        elif name == "IMPORT_NAME":
            imports.add(imported(instructions, number)[:2])
    for inner in map(names, inner_codes(code)):
        globals_.update(dict.fromkeys(inner.globals))
        everything |= inner.everything
        imports |= inner.imports
    return Names(tuple(globals_), frozenset(everything), frozenset(imports))
