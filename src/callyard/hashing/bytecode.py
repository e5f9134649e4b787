"""Tokens of code by its instructions, for code without a source, and the names read by code."""

from __future__ import annotations

import dis
import re
from collections.abc import Iterator
from types import CodeType
from typing import Any, NamedTuple

from ..serialize.names_in_code import IDLE, Step, all_codes, imported, inner_codes, steps
from .containers import CONTAINERS, Outliner, outline
from .digest import ATOMS, combine, text
from .identity_memo import Memo
from .packages import PYTHON

_JUMPS = frozenset((*dis.hasjrel, *dis.hasjabs))
_CONSTANTS = frozenset(dis.hasconst)
_UNKNOWN: Any = getattr(dis, "UNKNOWN", ...)  # for names of keyword arguments, left unresolved by Python 3.11
_NOT_FLAGS = 0x40  # CO_NOFREE: the cells say the same


def bytecode_token(code: CodeType) -> bytes:
    """Return the token of code: its instructions with resolved operands, without positions and file name.

    Constants not made by a compiler are left out, see `other_constants`.
    """
    instructions = [i for i in dis.get_instructions(code) if i.opname not in IDLE]
    numbers = _numbers(instructions, len(code.co_code))
    arguments = code.co_varnames[: _argument_count(code)]
    counts = (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags & ~_NOT_FLAGS)
    head = text(b"B", code.co_name, *map(str, counts), *arguments)
    return combine(b"B", [head, *(_operation(i, code, numbers) for i in instructions), *_handlers(code, numbers)])


def _argument_count(code: CodeType) -> int:
    return code.co_argcount + code.co_kwonlyargcount + bool(code.co_flags & 4) + bool(code.co_flags & 8)


def _numbers(instructions: list[dis.Instruction], end: int) -> dict[int, int]:
    """Return, by offset, the number of the next instruction with an effect."""
    numbers, place = {}, 0
    for number, instruction in enumerate([*instructions, None]):
        last = end if instruction is None else instruction.offset
        for offset in range(place, last + 1, 2):
            numbers[offset] = number
        place = last + 2
    return numbers


def _operation(instruction: dis.Instruction, code: CodeType, numbers: dict[int, int]) -> bytes:
    if instruction.opcode in _JUMPS:
        operand = b"%d" % numbers.get(instruction.argval, -1)
    elif instruction.opcode in _CONSTANTS and instruction.argval is _UNKNOWN and instruction.arg is not None:
        operand = constant(code.co_consts[instruction.arg])
    elif instruction.opcode in _CONSTANTS or isinstance(instruction.argval, (str, tuple)):
        operand = constant(instruction.argval)
    else:  # the number of a comparison has more detail than its name
        operand = f"{instruction.argval} {instruction.arg if instruction.opcode in dis.hascompare else ''}".encode()
    return combine(b"o", [instruction.opname.encode(), operand])


def _handlers(code: CodeType, numbers: dict[int, int]) -> Iterator[bytes]:
    for entry in getattr(dis.Bytecode(code), "exception_entries", ()):
        places = (numbers.get(place, -1) for place in (entry.start, entry.end, entry.target))
        yield text(b"h", *map(str, (*places, entry.depth, entry.lasti)))


# -- constants ---------------------------------------------------------------------------------------------

_CONVERSIONS = (str, repr, ascii)  # of an f-string: operands of FORMAT_VALUE, up to Python 3.12
_NESTED = (tuple, frozenset)


def constant(value: Any) -> bytes:
    """Return the token of a constant: the same as of its value elsewhere."""
    return _constants.token(value)


class _ConstantEncoder:
    """The encoder of constants made by a compiler, none of which leads to itself or to other code."""

    def token(self, value: Any) -> bytes:
        kind = type(value)
        simple = ATOMS.get(kind)
        if simple is not None:
            return simple(value)
        if isinstance(value, CodeType):
            return bytecode_token(value)
        if kind in _NESTED or kind is slice:
            return CONTAINERS[kind](self, value)
        return self.definition(value) if any(value is one for one in _CONVERSIONS) else self.sentinel(value)

    def outline(self, value: Any) -> bytes:
        return outline(value, Outliner(bytecode_token))

    def definition(self, thing: Any) -> bytes:
        return _by_name("builtins", thing)

    def sentinel(self, value: Any) -> bytes:
        """Return a placeholder for a constant not made by a compiler; `other_constants` yields the value."""
        return text(b"?", type(value).__qualname__)

    def future(self, future: Any) -> bytes:
        return self.sentinel(future)


_constants = _ConstantEncoder()


def _by_name(module: str, thing: Any) -> bytes:
    """Return the token of a definition of Python's own."""
    return combine(b"D", [text(b"I", "python", PYTHON, module, thing.__name__)])


def other_constants(code: CodeType) -> list[Any]:
    """Return the constants not made by a compiler, but put into the code object by a program."""
    return [value for each in all_codes(code) for value in _others(each.co_consts)]


def _others(values: Any) -> Iterator[Any]:
    for value in values:
        if type(value) in _NESTED:
            yield from _others(value)
        elif type(value) not in ATOMS and not isinstance(value, (CodeType, slice)):
            yield value


def private_names(code: CodeType) -> Iterator[str]:
    """Yield the names mangled with the class around: `__x` is `_C__x` in a class C."""
    for each in all_codes(code):
        for name in (*each.co_names, *each.co_varnames, *each.co_cellvars, *each.co_freevars):
            if name.startswith("_") and not name.startswith("__") and "__" in name:
                yield name


# -- names read by code ------------------------------------------------------------------------------------

Chain = tuple[str, ...]  # attributes of attributes; () where something is used as a whole


class Import(NamedTuple):
    """An import statement inside a function: of a module, or of a name in one."""

    module: str
    level: int
    name: str | None
    variable: str | None


class Reads(NamedTuple):
    """The names read by code, inner code included, each with the attributes read through the name."""

    names: dict[str, set[Chain]]  # of the module
    variables: dict[str, set[Chain]]  # of the function, and of the functions around it
    imports: list[Import]
    special: set[str]  # names such as `__doc__`, read as an attribute of anything, or written in a string


_LOADS = frozenset(("LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS"))
_VARIABLES = ("LOAD_FAST", "LOAD_DEREF", "LOAD_CLASSDEREF", "LOAD_FROM_DICT_OR_DEREF")
_STORES = ("STORE_FAST", "STORE_DEREF", "STORE_GLOBAL", "STORE_NAME")
_ATTRIBUTES = ("LOAD_ATTR", "LOAD_METHOD")
_OWN_ANNOTATIONS = ("LOAD_NAME", "__annotations__")  # a class body adds to its annotations
_SPECIAL = re.compile(r"(?<![A-Za-z0-9_])(?:__[a-z_]+__|(?:co|f|tb|gi|cr|ag)_[a-z]+)(?![A-Za-z0-9_])")
_reads: Memo[Reads] = Memo()


def reads(code: CodeType) -> Reads:
    """Return the names read by code, found once in the life of the code object."""
    known = _reads.get(code)
    if known is not None:
        return known
    found = Reads({}, {}, [], set())
    _note_reads(code, found)
    return _reads.put(code, found)  # stored only when complete, because other threads read the memo without a lock


def _note_reads(code: CodeType, found: Reads) -> None:
    instructions = list(steps(code))
    cells = {*code.co_cellvars, *code.co_freevars}
    for number, (name, argument) in enumerate(instructions):
        if name in _LOADS:
            if argument == "__name__" and instructions[number + 1 :][:1] == [("STORE_NAME", "__module__")]:
                continue  # as in each class body
            found.names.setdefault(argument, set()).add(_chain(instructions, number + 1))
        # The cell itself is loaded for inner code; the reads of inner code are noted below.
        elif name.startswith(_VARIABLES) and not (name.startswith("LOAD_FAST") and argument in cells):
            found.variables.setdefault(argument, set()).add(_chain(instructions, number + 1))
        elif name == "IMPORT_NAME":
            found.imports.extend(_imports(instructions, number))
        if name not in _STORES and (name, argument) != _OWN_ANNOTATIONS:  # a docstring is stored, not loaded
            found.special.update(set(_special(argument)) - _usual_in(code.co_name))
    for inner in inner_codes(code):
        _note_reads(inner, found)


def _usual_in(name: str) -> set[str]:
    """Return the special names of a method, read without effect on the token: a `__repr__` the class's name."""
    return {"__qualname__"} if name == "__repr__" else set()


def _special(argument: Any) -> Iterator[str]:
    """Yield the special names in an instruction's argument: a name, a string, or several of them."""
    if isinstance(argument, str):
        yield from _SPECIAL.findall(argument)
    elif isinstance(argument, (tuple, frozenset)):
        for part in argument:
            yield from _special(part)


def _chain(found: list[Step], start: int) -> Chain:
    chain: list[str] = []
    for name, argument in found[start:]:
        if name not in _ATTRIBUTES:
            break
        chain.append(argument)
    return tuple(chain)


def _imports(found: list[Step], number: int) -> Iterator[Import]:
    """Yield the imports of the statement at this step: for `from a import b, c` one for each name."""
    module, level, names = imported(found, number)
    if not names:
        yield Import(module, level, None, _stored(found, number + 1))
        return
    for step in range(number + 1, len(found)):
        if found[step][0] not in ("IMPORT_FROM", *_STORES):
            return
        if found[step][0] == "IMPORT_FROM":
            yield Import(module, level, found[step][1], _stored(found, step + 1))


def _stored(found: list[Step], start: int) -> str | None:
    """Return the local variable bound by an import, past the steps of `import a.b as c`; None without one."""
    for name, argument in found[start:]:
        if name in _STORES:
            return str(argument) if name.endswith(("FAST", "DEREF")) else None
        if name not in ("IMPORT_FROM", "SWAP", "ROT_TWO", "POP_TOP"):
            return None
    return None
