"""The key of a call: the digest of the function, the arguments, and all other influences on the result."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from types import FunctionType, MappingProxyType
from typing import Any, NamedTuple

from ..dependencies.map_chunks import run_chunk
from ..dependencies.replace_futures import is_future
from ..errors import CacheError
from .bind_arguments import bind, counted
from .code_places import places_of
from .definition_tokens import joined, token_at
from .definitions import rooted
from .digest import PendingFuture, UnkeyableError, blake2b, combine, readable
from .imported_code import CodePlaces, definition_at
from .metadata_readers import ANY
from .packages import PYTHON, owner_by_name
from .sources import Sources, texts
from .values import LinkedEncoder, ValueEncoder

ModuleAndName = tuple[str, str]  # module, and name in it
# Module, name, token of the definition when the key was made, and the places for a quick comparison with it.
Reference = tuple[str, str, bytes, CodePlaces | None]
# The word is older than the name of the project: with another one no earlier call would be found again.
_HEAD = f"penstock 2 python {PYTHON}" + (f" -O{sys.flags.optimize}" if sys.flags.optimize else "")


@dataclass(frozen=True)
class KeyContext:
    """The conditions that change the result of a call besides function and arguments: tokens, b"" for none."""

    initializer: bytes = b""  # and its arguments
    init_function: bytes = b""  # counts if a parameter is left for the function to fill
    ranks: int = 1
    env: bytes = b""


NOWHERE = KeyContext()


class Reach(NamedTuple):
    """The code and data of the user's in the reach of a call."""

    modules: frozenset[str] = frozenset()  # with any of it
    size: int = 0  # number of definitions

    def and_of(self, encoder: ValueEncoder) -> Reach:
        """Return this reach together with an encoder's."""
        return Reach(self.modules.union(encoder.modules), self.size + sum(root.size for root in encoder.roots))


NO_REACH = Reach()


@dataclass(frozen=True)
class FunctionPart:
    """The function's part of a key, at one moment; see `function_part`."""

    token: bytes
    references: tuple[Reference, ...]  # definitions imported by a worker
    ingredients: Mapping[str, bytes]
    unkeyed: Mapping[str, str]
    reads_metadata: int = 0  # see `reflection`
    sources: Sources = ()  # for people
    reach: Reach = NO_REACH

    def for_key(self) -> FunctionPart:
        """Return the same for another process, which only makes a key of it."""
        return replace(self, sources=(), reach=NO_REACH)


def function_part(function: Any, code_only: bool = False) -> FunctionPart:
    """Return the present token of `function`, before the arguments are packed, which perhaps have to wait for futures.

    Args:
        function: the function of the call.
        code_only: True to leave out the data of definitions imported by a worker.
    """
    encoder = ValueEncoder()
    token = _function_token(encoder, function)
    reads = encoder.reads_metadata > 0
    roots = encoder.with_metadata() if reads else encoder.roots
    known = roots[0].parts if type(function) is FunctionType and len(roots) == 1 else {}
    if code_only not in known:  # as long as nothing has changed, the result of the walk is the same object
        ingredients = {label: part for root in roots for label, part in root.ingredients.items()}
        pinned = _pinned(encoder, encoder.references, code_only, reads)
        token = joined(token, roots) if reads else token
        codes = {label: code for root in roots for label, code in root.codes.items()}
        known[code_only] = FunctionPart(
            token, pinned, ingredients, dict(encoder.unkeyed), encoder.reads_metadata, texts(codes.items()),
            NO_REACH.and_of(encoder),
        )  # fmt: skip
    made: FunctionPart = known[code_only]
    return made


def references_of(
    function: Any, args: Iterable[Any], kwargs: Mapping[str, Any], code_only: bool = False
) -> tuple[tuple[Reference, ...], Reach]:
    """Return the definitions imported by a call without a key where the call runs, each with its present token.

    Returns:
        The definitions, and all in reach. Both may be incomplete: the definitions behind a value without a token are
        unknown.
    """
    encoder, found, reach = ValueEncoder(), tuple[Reference, ...](), NO_REACH
    with suppress(Exception):  # a class of the user's may do anything here; the call needs no token
        part = function_part(function, code_only)
        found, reach = part.references, part.reach
    for value in (*args, *kwargs.values()):
        with suppress(Exception):
            encoder.token(value)
    with suppress(Exception):
        known = {reference[:2] for reference in found}
        found += _pinned(encoder, (place for place in encoder.references if place not in known), False, False)
    return found, reach.and_of(encoder)


def _pinned(
    encoder: ValueEncoder, places: Iterable[ModuleAndName], code_only: bool, reads_metadata: bool
) -> tuple[Reference, ...]:
    return tuple(
        (
            module,
            name,
            token_at(module, name, code_only, encoder, reads_metadata),
            None if code_only or reads_metadata else _places_at(module, name),
        )
        for module, name in list(places)
    )


def _places_at(module: str, name: str) -> CodePlaces | None:
    """Return the places for a quick comparison of a definition; None for data, or if no such comparison is possible."""
    found = definition_at(module, name)
    if not isinstance(found, (FunctionType, type)):
        return None
    walk = rooted(found)
    return None if walk.reads_metadata else places_of(walk)


class CallKey:
    """The key of a call, and the parts of the key."""

    __slots__ = (
        *("_part", "_parts", "function", "hex", "inputs"),
        *("names", "plain", "reach", "references", "surroundings", "values"),
    )

    def __init__(
        self,
        function: Any,
        names: Sequence[str],
        values: Sequence[Any],
        parts: Sequence[bytes],
        around: KeyContext,
        references: tuple[Reference, ...],
        part: FunctionPart,
        plain: bool = False,
        inputs: Mapping[str, str] = MappingProxyType({}),
        reach: Reach = NO_REACH,
    ) -> None:
        self.reach = reach
        self.inputs = inputs  # the functions, by the keys, of the calls with results among the arguments
        self.plain = plain  # without definitions in the arguments the token is the same in every process
        self.references = references
        self._part = part
        self.function, self.names, self.values, self._parts, self.surroundings = function, names, values, parts, around
        pieces = [_HEAD.encode(), *around_parts(around), *parts]
        self.hex = blake2b(combine(b"", pieces), digest_size=20).hexdigest()

    @property
    def function_token(self) -> bytes:
        return self._parts[0]

    @property
    def sources(self) -> Sources:
        """The texts of the functions in the key, by the labels of the ingredients."""
        return self._part.sources

    @property
    def arguments_token(self) -> bytes:
        return combine(b"", self._parts[1:])

    def ingredients(self) -> dict[str, str]:
        """Return the parts of the key by names for people: digests, and for arguments a short description too."""
        found = {"python": PYTHON}
        for label, token in sorted(self._part.ingredients.items()):
            look = readable(token) if label.startswith("global ") else ""
            found[label] = short_token(token) + (f" {look}" if look else _version(label))
        for name, value, token in zip(self.names, self.values, self._parts[2::2], strict=True):
            found[f"argument {name}"] = f"{short_token(token)} {description_of(value)}"
        if len(self._parts) % 2 == 0:
            found["docstrings and annotations"] = short_token(self._parts[-1])
        around = self.surroundings
        for label, part in (("initializer", around.initializer), ("init_function", around.init_function)):
            if part:
                found[label] = short_token(part)
        if around.ranks != 1:
            found["ranks"] = str(around.ranks)
        if around.env:
            found["env"] = short_token(around.env)
        return found


def surrounding(value: Any) -> bytes:
    """Return the token of a condition of a call, such as the initializer."""
    encoder = ValueEncoder()
    token = encoder.token(value)
    return joined(token, encoder.with_metadata()) if encoder.reads_metadata else token


def around_parts(around: KeyContext) -> list[bytes]:
    if around is NOWHERE or around == NOWHERE:
        return []
    return [around.initializer, around.init_function, b"%d" % around.ranks, around.env]


def call_key(
    function: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    around: KeyContext = NOWHERE,
    part: FunctionPart | None = None,
) -> CallKey:
    """Return the key of `function(*args, **kwargs)`.

    Args:
        function: the function of the call.
        args: its arguments by position.
        kwargs: its arguments by keyword.
        around: the conditions of the call.
        part: the function's part of the key, if made before.

    Raises:
        CacheError: an argument, or the function, has no token.
        PendingFuture: a future among the arguments is not done.
    """
    bound, left = counted(function, args, kwargs)
    if around.init_function and not left and not _leaves_in_chunk(function, args):
        around = KeyContext(around.initializer, b"", around.ranks, around.env)
    part = part or function_part(function)
    encoder = ValueEncoder()
    encoder.opens_results = part.reads_metadata > 0
    parts = [part.token]
    for name, value in bound:
        parts.append(name.encode("utf-8", "surrogatepass"))
        parts.append(_argument(encoder, function, name, value))
    parts += _others_metadata(encoder, function, part)
    if encoder.unkeyed or part.unkeyed:
        _warn_of_unkeyed(function, {**part.unkeyed, **encoder.unkeyed})
    known = {reference[:2] for reference in part.references}
    more = _pinned(encoder, (place for place in encoder.references if place not in known), False, len(parts) % 2 == 0)
    names, values = [name for name, _ in bound], [value for _, value in bound]
    references = (*part.references, *more)
    reach, plain = part.reach.and_of(encoder), not encoder.roots
    return CallKey(function, names, values, parts, around, references, part, plain, encoder.inputs, reach)


def _others_metadata(encoder: ValueEncoder, function: Any, part: FunctionPart) -> list[bytes]:
    """Return the token of the arguments' metadata, if any code of the call reads the metadata of other definitions.

    For reading code among the arguments, the function's metadata count too. The token of code that reads only its own
    metadata contains them already.
    """
    if not part.reads_metadata and encoder.reads_metadata < ANY:
        return []
    roots = encoder.with_metadata()
    if not part.reads_metadata:
        also = ValueEncoder()
        also.token(function)
        roots += also.with_metadata()
    return [joined(b"", roots)] if roots else []


def identity_of(
    function: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    around: KeyContext,
    part: FunctionPart,
) -> str:
    """Return an identity of a call with futures among its arguments, each of which counts as its call, done or not.

    "" without futures, because then the key is enough, or with a future of an unknown call.
    """
    encoder = LinkedEncoder()
    bound, _ = counted(function, args, kwargs)
    try:
        parts = [(name.encode("utf-8", "surrogatepass"), encoder.token(value)) for name, value in bound]
    except (PendingFuture, UnkeyableError, RecursionError):
        return ""
    if not encoder.links:
        return ""
    more = _others_metadata(encoder, function, part)
    pieces = [
        b"linked",
        _HEAD.encode(),
        *around_parts(around),
        part.token,
        *(piece for pair in parts for piece in pair),
        *more,
    ]
    return blake2b(combine(b"", pieces), digest_size=20).hexdigest()


def _leaves_in_chunk(function: Any, args: tuple[Any, ...]) -> bool:
    """Return True for a chunk of `map` with a parameter left to `init_function`."""
    if function is not run_chunk:
        return False
    inner, chunk = args
    return any(bind(inner, element, {})[1] for element in chunk)


def _function_token(encoder: ValueEncoder, function: Any) -> bytes:
    try:
        return encoder.token(function)
    except UnkeyableError as error:
        raise CacheError(
            f"the function {_name(function)!r} cannot be cached: it holds a {error.kind}{_at(error)}, which has no "
            "meaning that can be hashed; pass that as an argument, or teach it with Cache.register(type, function)"
        ) from error
    except RecursionError as error:
        raise CacheError(f"the function {_name(function)!r} reaches a value that is nested too deeply") from error


def _argument(encoder: ValueEncoder, function: Any, name: str, value: Any) -> bytes:
    try:
        return encoder.token(value)
    except UnkeyableError as error:
        raise CacheError(
            f"argument {name!r} of {_name(function)!r} cannot be cached: {name}{error.path} is a {error.kind}, "
            f"which has no meaning that can be hashed ({error.reason}); teach it with "
            f"Cache.register({error.kind}, function), or leave it out with @callyard.keyed(ignore=[{name!r}])"
        ) from error
    except RecursionError as error:
        raise CacheError(f"argument {name!r} of {_name(function)!r} is nested too deeply to be cached") from error


def _at(error: UnkeyableError) -> str:
    return f" at {error.path}" if error.path else ""


def _name(function: Any) -> str:
    return getattr(function, "__name__", None) or type(function).__name__


_warned: set[tuple[str, str]] = set()


def _warn_of_unkeyed(function: Any, unkeyed: Mapping[str, str]) -> None:
    for where, kind in unkeyed.items():
        name = getattr(function, "__qualname__", None) or _name(function)
        if (name, where) not in _warned:
            _warned.add((name, where))
            warnings.warn(
                f"calls of {name!r} are cached whatever {where.strip()} holds: it is a {kind}, "
                "which has no meaning that can be hashed; pass what matters as an argument",
                stacklevel=6,
            )


def short_token(token: bytes) -> str:
    """Return the short digest by which people, and comparisons of keys, tell tokens apart."""
    return blake2b(token, digest_size=6).hexdigest()


@lru_cache(maxsize=256)
def _version(label: str) -> str:
    """Return the version of a package for the label of an ingredient, with a space before it; "" for others."""
    kind, _, name = label.partition(" ")
    package = owner_by_name(name) if kind == "package" else None
    return "" if package is None else f" {package.version}"


def description_of(value: Any) -> str:
    """Return a line for people to tell values apart, without running user code."""
    if type(value) in (int, float, complex, bool, str, bytes, type(None)):
        return _beginning(repr(value))
    if is_future(value):
        origins: Iterable[tuple[str, str]] = getattr(value, "origins", tuple)()
        return "the result of " + (", ".join(f"{name} {key[:12]}" for key, name in origins) or "a call")
    kind = type(value).__qualname__
    if type(value).__module__ != "numpy" or not hasattr(value, "shape"):
        return f"a {kind}"
    if value.shape == () and kind != "ndarray" and value.dtype.kind not in "OV":  # which hold any objects, or fields
        return _beginning(f"{kind} {value}")
    return f"{kind} {value.dtype} {value.shape}"


def _beginning(text: str) -> str:
    return text if len(text) <= 80 else text[:77] + "..."
