"""The code of a script and its modules as their files have it: nothing is imported, and nothing of it runs."""

from __future__ import annotations

import ast
import os
import sys
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib.machinery import PathFinder
from types import CodeType

from ...errors import CacheError
from ...hashing.call_key import short_token
from ...hashing.code import code_token
from ...hashing.digest import readable
from ...hashing.packages import PYTHON, owner_by_name
from ...hashing.sources import text_of
from ...hashing.values import value_token
from ...serialize.names_in_code import all_codes
from .key_differences import look

__all__ = ["ScriptCode", "module_file", "parsed", "what_runs"]

_Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


@dataclass(frozen=True)
class _File:
    """What a file defines: by names as "Atom.move" the ingredients, as of `CallKey.ingredients`, and the texts."""

    codes: dict[str, str] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
    constants: dict[str, str] = field(default_factory=dict)


class ScriptCode:
    """The present ingredients of keys, as far as the files of a script tell.

    Args:
        path: the script.

    Raises:
        CacheError: it cannot be read, or is no Python.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.tree = parsed(path)
        self._script = _defined(path, self.tree)
        self._files: dict[str, _File | None] = {}  # by module
        self._places = [os.path.dirname(os.path.abspath(path)), *sys.path]
        self._name = os.path.basename(path).removesuffix(".py")

    def defines(self, function: str) -> bool:
        """Return True if the script itself has a function of this name."""
        return any(name.rpartition(".")[2] == function for name in self._script.codes)

    def knows(self, function: str, noted: Mapping[str, str]) -> bool:
        """Return True if the script, or a module of the user's, has the function of a call with these ingredients."""
        own = [label for label in noted if label.startswith("code of ") and label.rpartition(".")[2] == function]
        return self.defines(function) or any(self.source(label) for label in own)

    def leads_to(self, noted: Mapping[str, str]) -> bool:
        """Return True unless code or a global in these ingredients of a call is another one by now, or not there."""
        for label, then in noted.items():
            if label.startswith(("code of ", "global ")):
                now = self.ingredient(label, then)
                if now is None or now.partition(" ")[0] != then.partition(" ")[0]:
                    return False
        return True

    def caches(self) -> list[str]:
        """Return the directories that the script gives to executors, where they are written out."""
        found = [_literal(keyword.value) for node in ast.walk(self.tree) if isinstance(node, ast.Call)
                 for keyword in node.keywords if keyword.arg == "cache"]  # fmt: skip
        calls = [node for node in ast.walk(self.tree) if isinstance(node, ast.Call) and node.args]
        found += [_literal(call.args[0]) for call in calls if _last_name(call.func) == "Cache"]
        return list(dict.fromkeys(place for place in found if place))

    def ingredient(self, label: str, then: str) -> str | None:
        """Return the present ingredient of this label.

        Args:
            label: as in a key.
            then: the ingredient of a stored call.

        Returns:
            The same text for whatever the files do not tell; None for code that is not there any more.
        """
        kind, _, rest = label.partition(" ")
        if label == "python":
            return PYTHON
        if kind == "package":
            owner = owner_by_name(rest) if look(then) else None
            return then if owner is None or owner.version == look(then) else f"? {owner.version}"
        if label.startswith("code of "):
            file, name = self._definition(label[8:])
            return then if file is None or "<" in name else file.codes.get(name)
        if kind == "global":
            file, name = self._definition(rest.removeprefix("__main__."))
            return then if file is None else file.constants.get(name, then)
        return then

    def source(self, label: str) -> str:
        """Return the text of the function with this label; "" if it is not known."""
        file, name = self._definition(label.removeprefix("code of "))
        return "" if file is None else file.texts.get(name, "")

    def _definition(self, name: str) -> tuple[_File | None, str]:
        """Return the file of a definition, None if there is none, and its name there."""
        parts = name.split(".")
        for count in range(len(parts) - 1, 0, -1):
            file = self._file(".".join(parts[:count]))
            if file is not None:
                return file, ".".join(parts[count:])
        known = len(parts) == 1 or parts[0] in {other.partition(".")[0] for other in self._script.codes}
        return (self._script if known else None), name

    def _file(self, module: str) -> _File | None:
        if module == self._name:
            return self._script
        if module not in self._files:
            path = module_file(module, self._places)
            self._files[module] = None if path is None else _defined(path, parsed(path))
        return self._files[module]


def module_file(module: str, places: list[str]) -> str | None:
    """Return the source file of a module of the user's below one of these directories; None for any other module."""
    path: str | None = None
    search: list[str] | None = places
    for part in module.split("."):
        spec = None if search is None else PathFinder.find_spec(part, search)
        if spec is None:
            return None
        path = spec.origin if spec.has_location else None
        search = None if spec.submodule_search_locations is None else list(spec.submodule_search_locations)
    ours = path is not None and path.endswith(".py") and owner_by_name(module.partition(".")[0]) is None
    return path if ours else None


def parsed(path: str) -> ast.Module:
    """Return the syntax tree of a file.

    Raises:
        CacheError: it cannot be read, or is no Python.
    """
    try:
        with open(path, "rb") as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(file.read(), path)
    except OSError as error:
        raise CacheError(f"{path} cannot be read: {error.strerror}") from None
    except (SyntaxError, ValueError) as error:
        raise CacheError(f"{path} is not Python {PYTHON}: {error}") from None


def _defined(path: str, tree: ast.Module) -> _File:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        whole = compile(tree, path, "exec", dont_inherit=True)
    codes: dict[tuple[str, int], CodeType] = {(code.co_name, code.co_firstlineno): code for code in all_codes(whole)}
    file = _File()
    for name, node in _definitions(tree, ""):
        code = codes.get((node.name, min([node.lineno, *(each.lineno for each in node.decorator_list)])))
        if code is not None and not isinstance(node, ast.ClassDef):
            file.codes[name] = short_token(code_token(code))
            file.texts[name] = text_of(code)
    file.constants.update(_constants(tree))
    return file


def _definitions(node: ast.AST, prefix: str) -> Iterator[tuple[str, _Definition]]:
    """Yield the functions and classes with their qualified names; definitions inside functions are left out."""
    for inner in ast.iter_child_nodes(node):
        if isinstance(inner, _Definition):
            yield prefix + inner.name, inner
            if isinstance(inner, ast.ClassDef):
                yield from _definitions(inner, f"{prefix}{inner.name}.")
        elif isinstance(inner, (ast.If, ast.Try, ast.With)):
            yield from _definitions(inner, prefix)


def _constants(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """Yield the ingredients of globals that are assigned once, to something written out."""
    assigned: dict[str, list[ast.expr]] = {}
    for node in ast.walk(tree):
        targets = [node.target] if isinstance(node, _ASSIGNING) else getattr(node, "targets", [])
        for target in targets:
            if isinstance(target, ast.Name):
                assigned.setdefault(target.id, []).append(getattr(node, "value", None) or target)
    at_top = {id(node.value) for node in tree.body if isinstance(node, ast.Assign)}
    for name, values in assigned.items():
        if len(values) == 1 and id(values[0]) in at_top:
            try:
                token = value_token(ast.literal_eval(values[0]))
            except (ValueError, TypeError, SyntaxError):
                continue
            text = readable(token)
            yield name, short_token(token) + (f" {text}" if text else "")


_ASSIGNING = (ast.AnnAssign, ast.AugAssign, ast.NamedExpr, ast.For)


def _literal(node: ast.expr) -> str:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""


def _last_name(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


# ------------------------------------------------------------------ what an import does

_HARMLESS = frozenset(("basicConfig", "filterwarnings", "simplefilter", "getLogger", "seed", "append", "insert"))
_OF_STUDIES = frozenset(("Executor", "submit", "map", "result"))


def what_runs(tree: ast.Module) -> list[int]:
    """Return the lines of statements at the top of a module that do more than define, when it is imported."""
    return [node.lineno for node in tree.body if _acts(node)]


def _acts(node: ast.stmt) -> bool:
    if isinstance(node, _Definition) or _is_guard(node):
        return False
    if isinstance(node, (ast.With, ast.For, ast.While, ast.AsyncFor, ast.AsyncWith)):
        return True
    calls = [inner for inner in ast.walk(node) if isinstance(inner, ast.Call)]
    if isinstance(node, ast.Expr):
        return any(_last_name(call.func) not in _HARMLESS for call in calls)
    return any(_last_name(call.func) in _OF_STUDIES for call in calls)


def _is_guard(node: ast.stmt) -> bool:
    """Return True for `if __name__ == "__main__":`."""
    return isinstance(node, ast.If) and any(
        isinstance(inner, ast.Name) and inner.id == "__name__" for inner in ast.walk(node.test)
    )
