"""Tokens of arrays and tables: of dtype, shape and content, whatever their layout in memory."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterable
from typing import Any

from .containers import sequence
from .digest import Encoder, Handler, UnkeyableError, combine, content, text
from .objects import attributes, reduced
from .packages import module_of, owner

# -- numpy -------------------------------------------------------------------------------------------------


def _array(encoder: Encoder, array: Any) -> bytes:
    import numpy as np

    if type(array) is np.ndarray:
        return combine(b"A", [b"array", _content(encoder, array)])
    if type(array) is np.memmap:  # the file does not count
        return combine(b"A", [b"memmap", _content(encoder, np.asarray(array))])
    plain = array.view(np.ndarray)
    return combine(b"A", [encoder.definition(type(array)), _content(encoder, plain), attributes(encoder, array)])


def _masked(encoder: Encoder, array: Any) -> bytes:
    import numpy as np

    if array is np.ma.masked:  # a constant without a fill value
        return text(b"g", "numpy", "masked")
    parts = [array.view(np.ndarray), np.ma.getmaskarray(array), array.fill_value, bool(array.hardmask)]
    return combine(b"A", [encoder.definition(type(array)), *map(encoder.token, parts)])


def _content(encoder: Encoder, array: Any) -> bytes:
    dtype = array.dtype
    head = [text(b"h", dtype.str, *map(str, array.shape)), _metadata(encoder, dtype)]
    if dtype.names is not None:  # field by field, because the padding bytes are arbitrary
        fields = (part for name in dtype.names for part in (text(b"s", name), _content(encoder, array[name])))
        return combine(b"a", [*head, *fields])
    if dtype.hasobject or dtype.kind == "T":
        return combine(b"a", [*head, sequence(encoder, array.ravel().tolist())])
    if dtype.itemsize == 0:
        return combine(b"a", head)
    return combine(b"a", [*head, _raw(array)])


def _metadata(encoder: Encoder, dtype: Any) -> bytes:
    return encoder.token(dict(dtype.metadata)) if dtype.metadata else b""


def _raw(array: Any) -> bytes:
    import numpy as np

    rows = np.ascontiguousarray(array).reshape(-1)
    if array.dtype.kind in "fc" and np.finfo(array.dtype).nmant == 63:  # 80 bits in 16 bytes; the rest is undefined
        rows = np.ascontiguousarray(rows.view(np.uint8).reshape(-1, rows.itemsize // (1 + (array.dtype.kind == "c"))))
        rows = np.ascontiguousarray(rows[:, :10]).reshape(-1)
    return content(b"b", memoryview(rows.view(np.uint8)))


def _scalar(encoder: Encoder, value: Any) -> bytes:
    import numpy as np

    return combine(b"A", [type(value).__name__.encode(), _content(encoder, np.asarray(value))])


def _dtype(encoder: Encoder, dtype: Any) -> bytes:
    fields = repr([(name, *dtype.fields[name][1:]) for name in dtype.names or ()])  # with their offsets and titles
    head = text(b"h", dtype.str, fields, str(dtype))
    return combine(b"A", [b"dtype", head, _metadata(encoder, dtype)])


def _ufunc(encoder: Encoder, ufunc: Any) -> bytes:
    """Return the token of a ufunc: by its name in a library, or by its Python function.

    Only the garbage collector knows the Python function inside a ufunc made by `frompyfunc`.
    """
    for name, module in list(sys.modules.items()):
        package = owner(name) if getattr(module, "__dict__", {}).get(ufunc.__name__) is ufunc else None
        if package is not None:
            return text(b"g", package.name, package.version, "ufunc", ufunc.__name__)
    made_from = [thing for thing in gc.get_referents(ufunc) if callable(thing)]
    if len(made_from) != 1:
        raise UnkeyableError(ufunc, "it does not tell which function it was made from")
    return combine(b"W", [text(b"n", "ufunc", str(ufunc.nin), str(ufunc.nout)), encoder.token(made_from[0])])


def _of_dtype(encoder: Encoder, limits: Any) -> bytes:
    """Return the token of `finfo` or `iinfo`: its dtype."""
    return combine(b"A", [encoder.definition(type(limits)), encoder.token(limits.dtype)])


# -- pandas ------------------------------------------------------------------------------------------------


def _frame(encoder: Encoder, frame: Any) -> bytes:
    columns = (_values(encoder, frame.iloc[:, i].array) for i in range(frame.shape[1]))
    return combine(b"p", [*_head(encoder, frame), _index(encoder, frame.columns), *columns])


def _series(encoder: Encoder, series: Any) -> bytes:
    return combine(b"p", [*_head(encoder, series), encoder.token(series.name), _values(encoder, series.array)])


def _head(encoder: Encoder, table: Any) -> Iterable[bytes]:
    # Subclasses list their own attributes in _metadata.
    more = {name: getattr(table, name, None) for name in type(table)._metadata}
    notes = [dict(table.attrs), table.flags.allows_duplicate_labels, more]
    return [encoder.definition(type(table)), *map(encoder.token, notes), _index(encoder, table.index)]


def _index(encoder: Encoder, index: Any) -> bytes:
    head = [encoder.definition(type(index)), encoder.token(list(index.names))]
    if index.nlevels > 1:
        columns = (index.get_level_values(i) for i in range(index.nlevels))
        return combine(b"p", [*head, *(_index(encoder, part) for part in (*columns, *index.levels))])
    return combine(b"p", [*head, text(b"s", str(getattr(index, "freq", ""))), _values(encoder, index.array)])


def _values(encoder: Encoder, values: Any) -> bytes:
    """Return the token of a column's values. The array's state, a matter of storage, does not count."""
    import pandas as pd

    if module_of(type(values)).partition(".")[0] != "pandas":
        return encoder.token(values)
    head = text(b"s", str(values.dtype))
    if isinstance(values, pd.Categorical):
        parts = [encoder.token(values.codes), encoder.token(bool(values.ordered)), _index(encoder, values.categories)]
        return combine(b"p", [head, *parts])
    plain = getattr(values, "_ndarray", None)  # an attribute of arrays of numpy's own types, dates and times
    return combine(b"p", [head, encoder.token(values.to_numpy(dtype=object) if plain is None else plain)])


def _extension(encoder: Encoder, array: Any) -> bytes:
    """Return the token of an array of pandas outside of a column; an array of a user's class counts by its state."""
    if module_of(type(array)).partition(".")[0] != "pandas":
        return reduced(encoder, array)
    freq = text(b"s", str(getattr(array, "freq", "")))
    return combine(b"p", [encoder.definition(type(array)), freq, _values(encoder, array)])


# -- torch -------------------------------------------------------------------------------------------------


def _tensor(encoder: Encoder, tensor: Any) -> bytes:
    import torch

    if tensor.layout is not torch.strided or tensor.is_quantized:
        return reduced(encoder, tensor)
    plain = tensor.detach().cpu().resolve_conj().resolve_neg().contiguous().reshape(-1).view(torch.uint8).numpy()
    head = text(b"h", str(tensor.dtype), str(tensor.requires_grad), tensor.device.type, *map(str, tensor.shape))
    return combine(b"A", [encoder.definition(type(tensor)), head, _raw(plain), attributes(encoder, tensor)])


_KINDS: dict[tuple[str, str], Handler] = {
    ("numpy", "MaskedArray"): _masked,
    ("numpy", "ndarray"): _array,
    ("numpy", "generic"): _scalar,
    ("numpy", "dtype"): _dtype,
    ("numpy", "ufunc"): _ufunc,
    **{("numpy", name): _of_dtype for name in ("finfo", "iinfo")},
    ("pandas", "DataFrame"): _frame,
    ("pandas", "Series"): _series,
    ("pandas", "Index"): _index,
    ("pandas", "ExtensionArray"): _extension,
    ("torch", "Tensor"): _tensor,
}


def handler_of(base: type) -> Handler | None:
    """Return the handler for instances of a class of these libraries; None for a class without a special handler."""
    return _KINDS.get((module_of(base).partition(".")[0], base.__name__))
