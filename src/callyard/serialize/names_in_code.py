"""The names in the instructions of code: globals, attributes, and modules of import statements."""

from __future__ import annotations

import dis
import weakref
from collections.abc import Iterator
from types import CodeType
from typing import Any, NamedTuple

IDLE = frozenset(("CACHE", "EXTENDED_ARG", "NOP", "RESUME"))  # instructions without an effect
_GLOBAL = frozenset(("LOAD_GLOBAL", "LOAD_NAME", "STORE_GLOBAL", "DELETE_GLOBAL", "LOAD_FROM_DICT_OR_GLOBALS"))

Step = tuple[str, Any]  # the name of an instruction, and its argument


def inner_codes(code: CodeType) -> Iterator[CodeType]:
    """Yield the code of the functions and classes defined directly in this code."""
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield constant


def all_codes(code: CodeType) -> Iterator[CodeType]:
    """Yield this code and all inner code at any depth."""
    yield code
    for inner in inner_codes(code):
        yield from all_codes(inner)


def steps(code: CodeType) -> Iterator[Step]:
    """Yield the instructions with an effect; a combined instruction, as LOAD_FAST_LOAD_FAST, is yielded as two."""
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

    The compiler loads level and names just before IMPORT_NAME; in code written by hand other instructions may be there.
    """
    level, names = (found[number - back][1] if number >= back else 0 for back in (2, 1))
    return found[number][1], level if type(level) is int else 0, names


class Names(NamedTuple):
    """The names in code, inner code included."""

    globals: tuple[str, ...]  # globals to read, set or delete, in order of occurrence
    everything: frozenset[str]  # globals and attributes
    imports: frozenset[tuple[str, int]]  # modules of import statements, with their levels


_names: weakref.WeakKeyDictionary[CodeType, Names] = weakref.WeakKeyDictionary()


def names(code: CodeType) -> Names:
    """Return the names in code, found once in the life of the code object."""
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
