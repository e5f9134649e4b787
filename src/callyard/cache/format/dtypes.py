"""The dtypes of arrays in files: their description as JSON, and the ones that HDF5 has too."""

from __future__ import annotations

import itertools

from ...utils.lite_stdlib import Any

_SIZES = {"b": (1,), "i": (1, 2, 4, 8), "u": (1, 2, 4, 8), "f": (2, 4, 8), "c": (8, 16)}  # bytes, by kind
_LONGEST = 40  # characters of the text of a dtype


def describe(dtype: Any) -> Any:
    """Return a text, list or dictionary from which `build` makes an equal dtype; None if there is none."""
    if dtype.hasobject or not dtype.itemsize:
        return None
    try:
        described = _describe(dtype)
        return described if _same(build(described), dtype) else None
    except (TypeError, ValueError):
        return None


def describe_array(array: Any) -> Any:
    """Return the description of an array's dtype; None if only a pickle can restore the array."""
    if not array.dtype.isnative and not (array.flags.forc and has_buffer(array)):
        return None  # because pickle may change the byte order
    return describe(array.dtype)


def has_buffer(array: Any) -> bool:
    """Return True if an array exports its memory; of others, such as arrays of dates, pickle makes a writable copy."""
    try:
        memoryview(array)
    except (BufferError, TypeError, ValueError):
        return False
    return True


def _describe(dtype: Any) -> Any:
    if dtype.subdtype is not None:
        base, shape = dtype.subdtype
        return [_describe(base), list(shape)]
    if dtype.names is None:
        return dtype.str
    fields = [dtype.fields[name] for name in dtype.names]
    return {
        "names": list(dtype.names),
        "formats": [_describe(field[0]) for field in fields],
        "offsets": [field[1] for field in fields],
        "itemsize": dtype.itemsize,
        "aligned": dtype.isalignedstruct,
    }


def build(described: Any) -> Any:
    """Return the dtype of a description; a senseless one raises one of many exceptions."""
    import numpy as np

    if isinstance(described, str):
        if len(described) > _LONGEST or "," in described:  # numpy takes a text with commas for a record
            raise ValueError("not the text of one dtype")
        return np.dtype(described)
    if isinstance(described, list):
        base, shape = described
        return np.dtype((build(base), tuple(shape)))
    parts = {**described, "formats": [build(part) for part in described["formats"]]}
    aligned = parts.pop("aligned")
    return np.dtype(parts, align=aligned)


def _same(built: Any, dtype: Any) -> bool:
    """Return True if two dtypes are equal, also in the properties that `==` ignores."""
    if built != dtype or built.type is not dtype.type or built.isalignedstruct != dtype.isalignedstruct:
        return False
    if dtype.metadata:
        return False
    if dtype.subdtype is not None:
        return _same(built.base, dtype.base)
    if dtype.names is None:
        return True
    return all(_same(built.fields[name][0], dtype.fields[name][0]) for name in dtype.names)


def is_native(dtype: Any) -> bool:
    """Return True if HDF5 has a type for arrays of this dtype."""
    if dtype.subdtype is not None:
        base, shape = dtype.subdtype
        return is_native(base) and all(shape)
    if dtype.names is not None:
        return _is_native_record(dtype)
    return dtype.itemsize in _SIZES.get(dtype.kind, ()) or (dtype.kind == "S" and dtype.itemsize > 0)


def _is_native_record(dtype: Any) -> bool:
    spans = sorted((offset, offset + part.itemsize) for part, offset, *_ in dtype.fields.values())
    apart = all(first[1] <= second[0] for first, second in itertools.pairwise(spans))
    fields = dtype.fields.items()
    return bool(fields) and apart and all(name and name.isprintable() and is_native(field[0]) for name, field in fields)
