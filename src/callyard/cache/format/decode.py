"""The decoder of values: makes objects from nodes, the same as `pickle` would have made from the stored values."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Mapping

from ...errors import CacheError
from ...utils.lite_stdlib import Any, Protocol, json_loads
from .dtypes import build
from .encode import Described, Node, Omitted


class ByteSource(Protocol):
    """The `size` bytes of a file; both methods raise ValueError for a span outside of them."""

    size: int

    def read(self, at: int, length: int) -> memoryview: ...
    def read_into(self, at: int, target: memoryview) -> None: ...
    def map(self, at: int, length: int) -> memoryview | None:
        """Return these bytes as writable memory that is read from the file when it is looked at; None for a copy."""


class Unloadable(CacheError):
    """An undamaged value whose object cannot be made in this process."""


def decode(node: Node, source: ByteSource) -> Any:
    """Return the value of a node; a senseless node raises one of many exceptions."""
    return _DECODERS[node["is"]](node, source)


def _read_struct(layout: str) -> Callable[[Node, ByteSource], Any]:
    form = struct.Struct(layout)
    return lambda node, source: form.unpack(source.read(node["at"], form.size))[0]


def _read_complex(node: Node, source: ByteSource) -> complex:
    return complex(*struct.unpack("<dd", source.read(node["at"], 16)))


def _read_bytes(node: Node, source: ByteSource) -> bytes:
    return bytes(source.read(node["at"], node["bytes"]))


def _read_text(node: Node, source: ByteSource) -> str:
    return _read_bytes(node, source).rstrip(b"\0").decode()


def _read_scalar(node: Node, source: ByteSource) -> Any:
    import numpy as np

    dtype = np.dtype(node["dtype"])
    return np.frombuffer(source.read(node["at"], dtype.itemsize), dtype)[0]


def _read_array(node: Node, source: ByteSource) -> Any:
    import numpy as np

    dtype, shape = build(node["dtype"]), tuple(node["shape"])
    length = math.prod(shape) * max(dtype.itemsize, 1)
    if dtype.hasobject or min(shape, default=0) < 0 or length > source.size:
        raise ValueError("not an array of this file")
    mapped = source.map(node["at"], length) if length and dtype.itemsize else None
    array = np.empty(shape, dtype) if mapped is None else np.frombuffer(mapped, dtype).reshape(shape)
    if length and mapped is None:
        source.read_into(node["at"], memoryview(array.reshape(-1).view(np.uint8)))
    if node.get("order") == "F":
        array = np.asfortranarray(array)
    elif "axes" in node:
        axes = node["axes"]
        array = np.ascontiguousarray(array.transpose(np.argsort(axes))).transpose(axes)
    array.flags.writeable = not node.get("readonly", False)
    return array


def _read_row(node: Node, source: ByteSource) -> list[Any]:
    if "of" not in node:
        return [decode(item, source) for item in node["items"]]
    if node["of"] not in ("d", "q", "?"):
        raise ValueError("not numbers")
    form = struct.Struct(f"<{node['count']}{node['of']}")
    return list(form.unpack(source.read(node["at"], form.size)))


def _read_omitted(node: Node, _: ByteSource) -> Omitted:
    return Omitted(str(build(node["dtype"])), tuple(node["shape"]))


def _read_pickle(node: Node, source: ByteSource) -> Any:
    from .unpickle import loads

    arrays = [decode(each, source) for each in node["arrays"]]
    data = source.read(node["at"], node["bytes"])
    try:
        return loads(data, arrays)
    except Exception as error:  # raised by the user's classes, or because they are missing here
        raise Unloadable(f"{type(error).__name__}: {error}") from error


_DECODERS: Mapping[str, Callable[[Node, ByteSource], Any]] = {
    "float": _read_struct("<d"),
    "int": _read_struct("<q"),
    "bool": _read_struct("<?"),
    "complex": _read_complex,
    "none": lambda *_: None,
    "str": _read_text,
    "bytes": _read_bytes,
    "json": lambda node, source: json_loads(_read_bytes(node, source)),
    "described": lambda node, source: Described(_read_text(node, source)),
    "scalar": _read_scalar,
    "array": _read_array,
    "omitted": _read_omitted,
    "pickle": _read_pickle,
    "list": _read_row,
    "tuple": lambda node, source: tuple(_read_row(node, source)),
    "dict": lambda node, source: {name: decode(item, source) for name, item in node["items"].items()},
    "pairs": lambda node, source: {name: decode(item, source) for name, item in node["items"]},
}
