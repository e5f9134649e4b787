"""The meaning of a function's code: by its syntax tree where the source is proven, otherwise by its instructions."""

from __future__ import annotations

from types import CodeType

from . import bytecode, syntax_tree
from .digest import combine, text
from .identity_memo import Memo

_tokens: Memo[bytes] = Memo()


def code_token(code: CodeType) -> bytes:
    """Return the token of code. It is made once, as long as the code lives."""
    return _tokens.get(code) or _tokens.put(code, _make_token(code))


def _make_token(code: CodeType) -> bytes:
    tree = syntax_tree.function_of(code)
    try:
        made = bytecode.meaning(code) if tree is None else syntax_tree.meaning(tree[0])
    except RecursionError:  # a very long expression
        made = bytecode.meaning(code)
    private = sorted(set(bytecode.private_names(code)))
    return combine(b"_", [made, text(b"n", *private)]) if private else made
