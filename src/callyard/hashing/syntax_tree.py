"""Tokens of syntax trees, and the search for the tree of a loaded function.

A source text is the source of a loaded function only if its compilation gives equal code, because the file may have
been edited since. So each version of a file is kept from the first reading on, and each function is looked for in all
versions.
"""

from __future__ import annotations

import ast
import linecache
import os
import sys
import tokenize
import warnings
from collections.abc import Iterable, Iterator, Mapping
from types import CodeType
from typing import Any

from ..serialize.names_in_code import all_codes
from ..utils.locks import new_lock, under
from .digest import ATOMS, combine, text

Function = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
_SKIPPED = frozenset(("ctx", "kind", "type_comment", "returns", "annotation", "type_ignores"))
_FUTURES = 0x1FF0000  # the flags of code set by statements `from __future__ import ...`
_CELL = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT  # a notebook's cell may await
_lock = new_lock()  # guards `_texts`; reentrant, because a finalizer may make a key meanwhile
if hasattr(os, "register_at_fork"):  # another thread may hold the lock during a fork
    os.register_at_fork(after_in_child=_lock._at_fork_reinit)
_texts: dict[str, list[_Text]] = {}  # the versions of each file read so far


class _Text:
    """A version of a file, compiled: its functions by name and first line."""

    def __init__(self, source: str, filename: str, flags: int) -> None:
        self.source = source
        self.filename = filename
        self.flags = flags
        self.nodes: dict[tuple[str, int], list[Function]] = {}
        self.codes: dict[tuple[str, int], list[CodeType]] = {}
        self._alone: dict[tuple[str, int], list[CodeType]] | None = None
        self._tree: ast.Module | None = None
        try:
            with warnings.catch_warnings():  # the user saw the warnings at the first compilation
                warnings.simplefilter("ignore")
                tree = ast.parse(source, filename)
            whole = self._compile(tree)
        except (SyntaxError, ValueError, RecursionError):
            return
        for node in ast.walk(tree):
            if isinstance(node, Function):
                self.nodes.setdefault(_place(node), []).append(node)
        self._tree = tree
        _by_place([whole], self.codes)

    def find(self, code: CodeType) -> Function | None:
        """Return the function of this text with this code; None if there is none, or two begin in one line."""
        place = code.co_name, code.co_firstlineno
        nodes = self.nodes.get(place, [])
        if len(nodes) != 1:
            return None
        proven = _is_among(code, self.codes.get(place, ())) or _is_among(code, self._compiled_alone().get(place, ()))
        return nodes[0] if proven else None

    def _compiled_alone(self) -> dict[tuple[str, int], list[CodeType]]:
        """Compile each statement alone, as IPython does with the statements of a cell.

        The code is then different: for `name.method()` the compiler looks for an import of the name in the same text.
        """
        if self._alone is None:
            statements = [] if self._tree is None else self._tree.body
            self._alone = _by_place([self._compile(ast.Module([one], [])) for one in statements], {})
        return self._alone

    def _compile(self, tree: ast.Module) -> CodeType:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            code: CodeType = compile(tree, self.filename, "exec", flags=self.flags | _CELL, dont_inherit=True)
        return code


def _place(node: Function) -> tuple[str, int]:
    if isinstance(node, ast.Lambda):
        return "<lambda>", node.lineno
    return node.name, min(node.lineno, *(d.lineno for d in node.decorator_list), node.lineno)


def _by_place(
    wholes: Iterable[CodeType], found: dict[tuple[str, int], list[CodeType]]
) -> dict[tuple[str, int], list[CodeType]]:
    for whole in wholes:
        for code in all_codes(whole):
            found.setdefault((code.co_name, code.co_firstlineno), []).append(code)
    return found


def _is_among(code: CodeType, others: Iterable[CodeType]) -> bool:
    return any(_is_same(code, other) for other in others)


def _is_same(one: CodeType, other: CodeType) -> bool:
    """Compare two code objects including their exception tables, which `==` leaves out in some versions of Python."""
    return one == other and all(
        getattr(a, "co_exceptiontable", b"") == getattr(b, "co_exceptiontable", b"")
        for a, b in zip(all_codes(one), all_codes(other), strict=True)
    )


def function_of(code: CodeType) -> tuple[Function, str] | None:
    """Return the syntax tree of the function with this code, and its source text; None without proof."""
    return under(_lock, _find, code)


def _find(code: CodeType) -> tuple[Function, str] | None:
    filename, flags = code.co_filename, code.co_flags & _FUTURES
    versions = _texts.setdefault(filename, [])
    for version in versions:
        if version.flags == flags and (node := version.find(code)) is not None:
            return node, version.source
    source = _read(filename)
    if source is None or any(v.source == source and v.flags == flags for v in versions):
        return None
    versions.append(_Text(source, filename, flags))
    node = versions[-1].find(code)
    return None if node is None else (node, source)


def _has_loader(space: Mapping[str, Any]) -> bool:
    """Return True for the globals of a module with a loader that linecache can ask; of others Python 3.15 warns."""
    return getattr(space.get("__spec__"), "loader", None) is not None


def _read(filename: str) -> str | None:
    """Return the present text of a file, of a notebook's cell, of a module in an archive, or of `python -c`."""
    if os.path.isfile(filename):
        try:
            with tokenize.open(filename) as file:
                return file.read()
        except (OSError, SyntaxError, UnicodeDecodeError):
            return None
    if filename == "<string>" and "-c" in sys.orig_argv[:-1]:  # `exec` uses the same name, but its code will not match
        return sys.orig_argv[sys.orig_argv.index("-c") + 1]
    spaces = (getattr(module, "__dict__", {}) for module in list(sys.modules.values()))
    owner = next((space for space in spaces if space.get("__file__") == filename and _has_loader(space)), None)
    return "".join(linecache.getlines(filename, owner)) or None


# -- the meaning of a tree ---------------------------------------------------------------------------------


def tree_token(function: Function) -> bytes:
    """Return the token of a function's tree, without positions, comments, docstrings and annotations.

    Its own decorators and defaults are left out too, because their values count.
    """
    arguments = _fields(function.args, without=("defaults", "kw_defaults"))
    if isinstance(function, ast.Lambda):
        return combine(b"L", [*arguments, _dump(function.body)])
    kind = type(function).__name__
    parts = [text(b"n", function.name), *arguments, *_body(function.body)]
    return combine(b"D", [kind.encode(), *parts])


def _dump(value: Any) -> bytes:
    if isinstance(value, ast.AST):
        return _dump_node(value)
    if isinstance(value, list):
        return combine(b"[", map(_dump, value))
    return ATOMS[type(value)](value)  # in parsed trees, all other values are atoms


def _dump_node(node: ast.AST) -> bytes:
    kind = type(node).__name__
    if isinstance(node, ast.AnnAssign):
        return _annotated(node)
    if isinstance(node, ast.Constant):
        return combine(b"C", [_dump(node.value)])
    if isinstance(node, ast.ClassDef):
        return combine(b"K", [*_fields(node, without=("body",)), *_body(node.body, annotations=True)])
    return combine(b"N", [kind.encode(), *_fields(node), *_annotations_read(node)])


def _annotations_read(node: ast.AST) -> Iterator[bytes]:
    """Yield the annotations of a decorated function inside another: the decorator may read annotations."""
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.decorator_list:
        yield _dump([arg.annotation for arg in ast.walk(node.args) if isinstance(arg, ast.arg)])
        yield _dump(node.returns)


def _fields(node: ast.AST, without: tuple[str, ...] = ()) -> Iterator[bytes]:
    for name in node._fields:
        value = getattr(node, name, None)
        if name in _SKIPPED or name in without or value is None or value == []:
            continue
        yield name.encode()
        if name in ("body", "orelse", "finalbody") and isinstance(value, list):
            yield combine(b"[", _body(value, docstring=isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))))
        else:
            yield _dump(value)


def _body(statements: list[ast.stmt], docstring: bool = True, annotations: bool = False) -> Iterator[bytes]:
    """Yield the tokens of the statements with an effect."""
    for number, statement in enumerate(statements):
        is_text = (
            isinstance(statement, ast.Expr)
            and isinstance(statement.value, ast.Constant)
            and isinstance(statement.value.value, str)
        )
        if isinstance(statement, ast.Pass) or (docstring and number == 0 and is_text):
            continue
        yield _dump(statement)
        if annotations and isinstance(statement, ast.AnnAssign):  # of a class, because `dataclass` reads annotations
            yield _dump(statement.annotation)


def _annotated(node: ast.AnnAssign) -> bytes:
    """Return the token of an annotated assignment without the annotation, which only makes the name local."""
    if node.value is None:
        return combine(b"A", [_dump(node.target)])
    return _dump_node(ast.Assign(targets=[node.target], value=node.value))
