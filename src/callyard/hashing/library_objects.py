"""Tokens of objects of SciPy, xarray and pydantic, whose state contains more than their content."""

from __future__ import annotations

import copyreg
import sys
from collections.abc import Mapping
from typing import Any

from .containers import pairs, state
from .digest import Encoder, Handler, combine, text
from .objects import reduced
from .packages import module_of, owner

# -- SciPy -------------------------------------------------------------------------------------------------


def _by_keys(encoder: Encoder, matrix: Any) -> bytes:
    """Return the token of a sparse matrix with a dict inside; the types of the numbers in the keys do not count."""
    content = pairs(encoder, ((tuple(map(int, place)), value) for place, value in matrix.items()))
    return combine(b"6", [encoder.definition(type(matrix)), encoder.token((matrix.shape, matrix.dtype)), content])


def _distribution(encoder: Encoder, distribution: Any) -> bytes:
    """Return the token of a distribution. SciPy's own count by name: their state includes a random generator."""
    module, name = module_of(type(distribution)), str(getattr(distribution, "name", ""))
    package = owner(module)
    if package is not None and getattr(sys.modules.get("scipy.stats"), name, None) is distribution:
        return text(b"g", package.name, package.version, name)
    from numpy.random import mtrand

    is_global = getattr(distribution, "_random_state", None) is mtrand._rand
    return reduced(encoder, distribution, frozenset(("_random_state",) if is_global else ()))


# -- xarray ------------------------------------------------------------------------------------------------


def _variable(encoder: Encoder, variable: Any) -> bytes:
    notes = [tuple(variable.dims), dict(variable.attrs), dict(variable.encoding)]
    return _labelled(encoder, variable, *map(encoder.token, notes), encoder.token(variable.data))


def _data_array(encoder: Encoder, array: Any) -> bytes:
    parts = [array.name, array.variable, _variables(array.coords)]
    return _labelled(encoder, array, *map(encoder.token, parts), _indexes(encoder, array))


def _dataset(encoder: Encoder, dataset: Any) -> bytes:
    notes = [dict(dataset.attrs), dict(dataset.encoding), set(dataset.coords), _variables(dataset.variables)]
    return _labelled(encoder, dataset, *map(encoder.token, notes), _indexes(encoder, dataset))


def _variables(named: Mapping[Any, Any]) -> dict[Any, Any]:
    return {name: getattr(variable, "variable", variable) for name, variable in named.items()}


def _indexes(encoder: Encoder, labelled: Any) -> bytes:
    return pairs(encoder, ((name, getattr(one, "index", one)) for name, one in labelled.xindexes.items()))


def _tree(encoder: Encoder, node: Any) -> bytes:
    """Return the token of a tree; a node inside counts by the whole tree and its path there."""
    if node.parent is not None:
        return combine(b"6", [encoder.token(node.root), text(b"s", node.path)])
    nodes = {one.path: one.to_dataset(inherit=False) for one in node.subtree}
    return _labelled(encoder, node, encoder.token(node.name), encoder.token(nodes))


def _labelled(encoder: Encoder, value: Any, *parts: bytes) -> bytes:
    """Return the token of an object of xarray with the attributes added by a user's class."""
    base = next(base for base in type(value).__mro__ if owner(module_of(base)) is not None)
    slots = set(copyreg._slotnames(type(value))) - set(copyreg._slotnames(base))  # type: ignore[attr-defined]
    more = {name: getattr(value, name) for name in slots if hasattr(value, name)}
    if base is not type(value):
        more |= getattr(value, "__dict__", {})
    return combine(b"6", [encoder.definition(type(value)), state(encoder, more), *parts])


# -- pydantic ----------------------------------------------------------------------------------------------


def _validated_call(encoder: Encoder, call: Any) -> bytes:
    """Return the token of a function with `validate_call`; its validator follows from the annotations."""
    function = next(value for name in ("function", "raw_function") if (value := getattr(call, name, None)) is not None)
    config = getattr(getattr(call, "config_wrapper", None), "config_dict", getattr(call, "_config", None))
    returns = getattr(call, "validate_return", getattr(call, "_validate_return", False))
    annotations = dict(getattr(function, "__annotations__", {}))
    parts = (function, config, returns, annotations)
    return combine(b"6", [encoder.definition(type(call)), *map(encoder.token, parts)])


def _type_adapter(encoder: Encoder, adapter: Any) -> bytes:
    parts = (adapter._type, getattr(adapter, "_config", None))
    return combine(b"6", [encoder.definition(type(adapter)), *map(encoder.token, parts)])


_KINDS: dict[tuple[str, str], Handler] = {
    **{("scipy", name): _by_keys for name in ("_dok_base", "dok_matrix")},
    **{("scipy", name): _distribution for name in ("rv_generic", "multi_rv_generic")},
    ("pydantic", "ValidateCallWrapper"): _validated_call,
    ("pydantic", "TypeAdapter"): _type_adapter,
    ("xarray", "Variable"): _variable,
    ("xarray", "DataArray"): _data_array,
    ("xarray", "Dataset"): _dataset,
    ("xarray", "DataTree"): _tree,
}


def handler_of(base: type) -> Handler | None:
    """Return the handler for instances of a class of these libraries; None for a class without a special handler."""
    return _KINDS.get((module_of(base).partition(".")[0], base.__name__))
