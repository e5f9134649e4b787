"""Tokens of a function's code: by the syntax tree if the source is proven, otherwise by the instructions."""

from __future__ import annotations

from types import CodeType

from . import bytecode, syntax_tree
from .digest import combine, text
from .identity_memo import Memo

_tokens: Memo[bytes] = Memo()


def code_token(code: CodeType) -> bytes:
    """Return the token of code, made once in the life of the code object."""
    return _tokens.get(code) or _tokens.put(code, _make_token(code))


def _make_token(code: CodeType) -> bytes:
    tree = syntax_tree.function_of(code)
    try:
        made = bytecode.bytecode_token(code) if tree is None else syntax_tree.tree_token(tree[0])
    except RecursionError:  # a very long expression
        made = bytecode.bytecode_token(code)
    private = sorted(set(bytecode.private_names(code)))
    return combine(b"_", [made, text(b"n", *private)]) if private else made
