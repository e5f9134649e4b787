"""The meaning of loaded code whose source is not there, and what code reads by name."""

from __future__ import annotations

import dis
import re
from collections.abc import Iterator
from types import CodeType
from typing import Any, NamedTuple

from .digest import combine, text
from .identity_memo import Memo

_IDLE = frozenset(("CACHE", "EXTENDED_ARG", "NOP", "RESUME"))
_JUMPS = frozenset((*dis.hasjrel, *dis.hasjabs))
_CONSTANTS = frozenset(dis.hasconst)
_NOT_FLAGS = 0x40  # CO_NOFREE: said by the cells anyway


def meaning(code: CodeType) -> bytes:
    """The token of code: its instructions with what their operands mean, without positions and file name."""
    instructions = [i for i in dis.get_instructions(code) if i.opname not in _IDLE]
    numbers = _numbers(instructions, len(code.co_code))
    arguments = code.co_varnames[: _argument_count(code)]
    counts = (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags & ~_NOT_FLAGS)
    head = text(b"B", code.co_name, *map(str, counts), *arguments)
    return combine(b"B", [head, *(_operation(i, numbers) for i in instructions), *_handlers(code, numbers)])


def _argument_count(code: CodeType) -> int:
    return code.co_argcount + code.co_kwonlyargcount + bool(code.co_flags & 4) + bool(code.co_flags & 8)


def _numbers(instructions: list[dis.Instruction], end: int) -> dict[int, int]:
    """By offset, the number of the next instruction that counts."""
    numbers, place = {}, 0
    for number, instruction in enumerate([*instructions, None]):
        last = end if instruction is None else instruction.offset
        for offset in range(place, last + 1, 2):
            numbers[offset] = number
        place = last + 2
    return numbers


def _operation(instruction: dis.Instruction, numbers: dict[int, int]) -> bytes:
    if instruction.opcode in _JUMPS:
        operand = b"%d" % numbers.get(instruction.argval, -1)
    elif instruction.opcode in _CONSTANTS or isinstance(instruction.argval, (str, tuple)):
        operand = constant(instruction.argval)
    else:  # a comparison's number says more than its name
        operand = f"{instruction.argval} {instruction.arg if instruction.opcode in dis.hascompare else ''}".encode()
    return combine(b"o", [instruction.opname.encode(), operand])


def _handlers(code: CodeType, numbers: dict[int, int]) -> Iterator[bytes]:
    for entry in getattr(dis.Bytecode(code), "exception_entries", ()):
        places = (numbers.get(place, -1) for place in (entry.start, entry.end, entry.target))
        yield text(b"h", *map(str, (*places, entry.depth, entry.lasti)))


def constant(value: Any) -> bytes:
    if isinstance(value, CodeType):
        return meaning(value)
    from .values import meaning as value_meaning  # here, because values lead to functions, and those to their code

    return value_meaning(value)


def private_names(code: CodeType) -> Iterator[str]:
    """The names that depend on the class around: `__x` is `_C__x` in a class C."""
    for name in (*code.co_names, *code.co_varnames, *code.co_cellvars, *code.co_freevars):
        if name.startswith("_") and not name.startswith("__") and "__" in name:
            yield name
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from private_names(constant)


# -- what code reads ---------------------------------------------------------------------------------------

Chain = tuple[str, ...]  # attributes, one after the other; () where something is used as a whole
Step = tuple[str, Any]  # what an instruction does, and with what


class Import(NamedTuple):
    """An import statement inside a function: of a module, or of a name in one."""

    module: str
    level: int
    name: str | None
    variable: str | None


class Reads(NamedTuple):
    """What code, and the code inside it, reads by name: of each thing, which attributes."""

    names: dict[str, set[Chain]]  # of the module
    variables: dict[str, set[Chain]]  # of the function, and of those around it
    imports: list[Import]
    special: set[str]  # names as `__doc__`, read of anything, or written in a text


_LOADS = frozenset(("LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS"))
_VARIABLES = ("LOAD_FAST", "LOAD_DEREF", "LOAD_CLASSDEREF", "LOAD_FROM_DICT_OR_DEREF")
_STORES = ("STORE_FAST", "STORE_DEREF", "STORE_GLOBAL", "STORE_NAME")
_ATTRIBUTES = ("LOAD_ATTR", "LOAD_METHOD")
_OWN_ANNOTATIONS = ("LOAD_NAME", "__annotations__")  # a class that is being made adds to them
_SPECIAL = re.compile(r"(?<![A-Za-z0-9_])(?:__[a-z_]+__|(?:co|f|tb|gi|cr|ag)_[a-z]+)(?![A-Za-z0-9_])")
_reads: Memo[Reads] = Memo()


def reads(code: CodeType) -> Reads:
    known = _reads.get(code)
    if known is not None:
        return known
    found = Reads({}, {}, [], set())
    _note_reads(code, found)
    return _reads.put(code, found)  # not before it is complete: another thread may ask


def _note_reads(code: CodeType, found: Reads) -> None:
    steps = list(_steps(code))
    cells = {*code.co_cellvars, *code.co_freevars}
    for number, (name, argument) in enumerate(steps):
        if name in _LOADS:
            if argument == "__name__" and steps[number + 1 :][:1] == [("STORE_NAME", "__module__")]:
                continue  # every class has that
            found.names.setdefault(argument, set()).add(_chain(steps, number + 1))
        # A cell itself is loaded for the code inside, which is looked at too.
        elif name.startswith(_VARIABLES) and not (name.startswith("LOAD_FAST") and argument in cells):
            found.variables.setdefault(argument, set()).add(_chain(steps, number + 1))
        elif name == "IMPORT_NAME":
            found.imports.extend(_imports(steps, number))
        if name not in _STORES and (name, argument) != _OWN_ANNOTATIONS:  # no instruction loads a docstring
            found.special.update(set(_special(argument)) - _usual_in(code.co_name))
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            _note_reads(constant, found)


def _usual_in(name: str) -> set[str]:
    """What a method may read though it is nothing special: the name of a class, which counts anyway."""
    return {"__qualname__"} if name == "__repr__" else set()


def _special(argument: Any) -> Iterator[str]:
    """The names in what an instruction has: a name, a text, or names in a tuple."""
    if isinstance(argument, str):
        yield from _SPECIAL.findall(argument)
    elif isinstance(argument, (tuple, frozenset)):
        for part in argument:
            yield from _special(part)


def _steps(code: CodeType) -> Iterator[Step]:
    """The instructions; each of those that do two things at once as two."""
    for instruction in dis.get_instructions(code):
        name, argument = instruction.opname, instruction.argval
        if name in _IDLE:
            continue
        if name.count("_FAST") == 2 and isinstance(argument, tuple):
            first, second = name.split("_FAST")[:2]
            yield first + "_FAST", argument[0]
            yield second.split("_")[-1] + "_FAST", argument[1]
        else:
            yield name, argument


def _chain(steps: list[Step], start: int) -> Chain:
    chain: list[str] = []
    for name, argument in steps[start:]:
        if name not in _ATTRIBUTES:
            break
        chain.append(argument)
    return tuple(chain)


def _imports(steps: list[Step], number: int) -> Iterator[Import]:
    level, names = steps[number - 2][1], steps[number - 1][1]
    module = steps[number][1]
    if not names:
        yield Import(module, level, None, _stored(steps, number + 1))
    for step in range(number + 1, len(steps)):
        if not names or steps[step][0] not in ("IMPORT_FROM", *_STORES):
            return
        if steps[step][0] == "IMPORT_FROM":
            yield Import(module, level, steps[step][1], _stored(steps, step + 1))


def _stored(steps: list[Step], start: int) -> str | None:
    """The function's variable that an import is bound to, past the steps of `import a.b as c`; None if it is none."""
    for name, argument in steps[start:]:
        if name in _STORES:
            return str(argument) if name.endswith(("FAST", "DEREF")) else None
        if name not in ("IMPORT_FROM", "SWAP", "ROT_TWO", "POP_TOP"):
            return None
    return None
