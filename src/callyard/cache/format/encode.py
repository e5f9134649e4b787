"""The encoder of values: numbers, texts and arrays as datasets of their own, everything else as pickles beside arrays.

A value is described by a *node*, a dictionary for JSON with its type and the place of its bytes. Short tuples, lists
and dictionaries of such values are groups of them. The exact type of everything comes back.
"""

from __future__ import annotations

import sys

from ...utils.lite_stdlib import Any, Callable, Frozen, Mapping, struct
from .hdf5 import MAX_RANK, Spec, fits, is_name, spec

Node = dict[str, Any]

_MEMBERS = 12  # the most datasets of a value that is stored without a pickle
_DEPTH = 6
_VIEWED = 1 << 16  # bytes from which an array is not copied before it is written


class Omitted(Frozen):
    """A placeholder for an array among the arguments that was too large to be stored with the result."""

    dtype: str
    shape: tuple[int, ...]

    def __repr__(self) -> str:
        return f"<array of {self.dtype}, shape {self.shape}: too large to be stored with the result>"


class Described(Frozen):
    """A placeholder for an argument that cannot be pickled, or is too large."""

    text: str

    def __repr__(self) -> str:
        return f"<not stored: {self.text}>"


class Datasets:
    """The datasets of a file. Larger arrays than `limit` bytes are only described."""

    def __init__(self) -> None:
        self.specs: list[Spec] = []
        self.data: list[Any] = []  # for each spec, bytes or the memory of an array
        self.nodes: list[Node] = []  # for each spec, the node that gets its offset
        self.limit: int | None = None
        self.keep: Callable[[Any], tuple[str, str]] | None = None  # keeps a `File`, and names content and file
        self.files: dict[str, None] = {}  # the contents kept, in their order

    def add(self, thing: Spec, data: Any = b"", node: Node | None = None) -> Node:
        self.specs.append(thing)
        self.data.append(data)
        self.nodes.append({} if node is None else node)
        return self.nodes[-1]

    def add_text(self, path: str, data: bytes, what: str, multiple: int, filler: bytes = b"\0") -> Node:
        """Add a text, padded, so that texts of similar lengths give files of the same structure."""
        length = max(-(-len(data) // multiple), 1) * multiple
        return self.add(spec(path, "text", (length,)), data.ljust(length, filler), {"is": what, "bytes": length})

    def add_bytes(self, path: str, data: bytes, what: str) -> Node:
        length = -(-len(data) // 64) * 64
        return self.add(spec(path, "|u1", (length,)), data.ljust(length, b"\0"), {"is": what, "bytes": len(data)})

    def keep_file(self, file: Any) -> tuple[str, str]:
        assert self.keep is not None, "it is asked for only then"
        content, name = self.keep(file)
        self.files[content] = None
        return content, name

    def forget(self, mark: int) -> None:
        """Remove all datasets but the first `mark` of them."""
        for part in (self.specs, self.data, self.nodes):
            del part[mark:]


# -- to nodes ----------------------------------------------------------------------------------------------


def encode(value: Any, path: str, parts: Datasets) -> Node:
    """Return the node of a value, and add its datasets; if pickle raises an exception, add none."""
    mark = len(parts.specs)
    try:
        node = _NodeMaker(parts).node(value, path)
        if node is not None:
            return node
        parts.forget(mark)
        return _pickled(value, path, parts)
    except BaseException:
        parts.forget(mark)
        raise


def encode_arguments(arguments: tuple[Any, ...] | dict[str, Any], path: str, parts: Datasets) -> Node:
    """Return the node of arguments, each encoded by itself: readers of HDF5 see all arguments without need of a pickle.

    An argument that cannot be pickled is described instead.
    """
    parts.add(spec(path, "group"))
    if isinstance(arguments, tuple):
        return {"is": "tuple", "items": [_argument(item, f"{path}/{i}", parts) for i, item in enumerate(arguments)]}
    if all(map(is_name, arguments)):
        items = {name: _argument(item, f"{path}/{name}", parts) for name, item in arguments.items()}
        return {"is": "dict", "items": items}
    pairs = [(name, _argument(item, f"{path}/{i}", parts)) for i, (name, item) in enumerate(arguments.items())]
    return {"is": "pairs", "items": pairs}


def _argument(value: Any, path: str, parts: Datasets) -> Node:
    try:
        return encode(value, path, parts)
    except Exception:
        return parts.add_text(path, _describe(value).encode(errors="replace"), "described", 64)


def _describe(value: Any) -> str:
    try:
        text = repr(value) if sys.getsizeof(value) < 1 << 20 else object.__repr__(value)
    except Exception:
        text = object.__repr__(value)
    return text.replace("\0", "?")[:1000]


class _NodeMaker:
    """A maker of nodes without pickles; None for a large or deep value, or one that holds the same object twice."""

    def __init__(self, parts: Datasets) -> None:
        self._parts = parts
        self._end = len(parts.specs) + _MEMBERS
        self._seen: set[int] = set()

    def node(self, value: Any, path: str, depth: int = 0) -> Node | None:
        kind = type(value)
        scalar = _SCALARS.get(kind)
        if scalar is not None:
            return scalar(value, path, self._parts)
        if kind is tuple or kind is list or kind is dict:
            if value and (self._came_before(value) or depth == _DEPTH):
                return None
            form = _UNIFORM.get(type(value[0])) if value and kind is not dict else None
            if form is not None and len(set(map(type, value))) == 1:
                return _numbers(value, form, path, self._parts)
            if not self._has_room(len(value)):
                return None
            self._parts.add(spec(path, "group"))
            return self._dictionary(value, path, depth + 1) if kind is dict else self._row(value, path, depth + 1)
        if kind.__module__ != "numpy" or (kind.__name__ == "ndarray" and self._came_before(value)):
            return None
        return _numpy(value, path, self._parts)

    def _came_before(self, value: Any) -> bool:
        known = id(value) in self._seen
        self._seen.add(id(value))
        return known

    def _has_room(self, count: int) -> bool:
        return len(self._parts.specs) + count < self._end

    def _row(self, value: Any, path: str, depth: int) -> Node | None:
        items = []
        for number, item in enumerate(value):
            node = self.node(item, f"{path}/{number}", depth)
            if node is None:
                return None
            items.append(node)
        return {"is": type(value).__name__, "items": items}

    def _dictionary(self, value: dict[Any, Any], path: str, depth: int) -> Node | None:
        items = {}
        for key, item in value.items():
            node = self.node(item, f"{path}/{key}", depth) if is_name(key) else None
            if node is None:
                return None
            items[key] = node
        return {"is": "dict", "items": items}


def _float(value: float, path: str, parts: Datasets) -> Node:
    return parts.add(spec(path, "<f8"), struct.pack("<d", value), {"is": "float"})


def _int(value: int, path: str, parts: Datasets) -> Node | None:
    if -(1 << 63) <= value < 1 << 63:
        return parts.add(spec(path, "<i8"), struct.pack("<q", value), {"is": "int"})
    return None


def _bool(value: bool, path: str, parts: Datasets) -> Node:
    return parts.add(spec(path, "?"), b"\1" if value else b"\0", {"is": "bool"})


def _complex(value: complex, path: str, parts: Datasets) -> Node:
    return parts.add(spec(path, "<c16"), struct.pack("<dd", value.real, value.imag), {"is": "complex"})


def _none(_: None, path: str, parts: Datasets) -> Node:
    return parts.add(spec(path, "none"), b"", {"is": "none"})


def _str(value: str, path: str, parts: Datasets) -> Node | None:
    if parts.limit is not None and len(value) > parts.limit:
        return None
    try:
        data = value.encode()
    except UnicodeEncodeError:  # lone surrogates
        return None
    return None if b"\0" in data else parts.add_text(path, data, "str", 64)


def _bytes(value: bytes, path: str, parts: Datasets) -> Node | None:
    if parts.limit is not None and len(value) > parts.limit:
        return None
    return parts.add(spec(path, "|u1", (len(value),)), value, {"is": "bytes", "bytes": len(value)})


_UNIFORM = {float: "d", int: "q", bool: "?"}  # the types of numbers in uniform lists, as formats of `struct`


def _numbers(values: Any, form: str, path: str, parts: Datasets) -> Node | None:
    """Encode a list or tuple of numbers of one type as one dataset, because each alone would take almost a kilobyte."""
    if parts.limit is not None and 8 * len(values) > parts.limit:
        return None
    try:
        data = struct.pack(f"<{len(values)}{form}", *values)
    except struct.error:  # an integer that is too large
        return None
    kind = {"d": "<f8", "q": "<i8", "?": "?"}[form]
    return parts.add(
        spec(path, kind, (len(values),)), data, {"is": type(values).__name__, "of": form, "count": len(values)}
    )


_SCALARS: Mapping[type, Callable[[Any, str, Datasets], Node | None]] = {
    float: _float, int: _int, bool: _bool, complex: _complex, str: _str, bytes: _bytes, type(None): _none,
}  # fmt: skip


def _numpy(value: Any, path: str, parts: Datasets) -> Node | None:
    import numpy as np  # imported already, because the value is of numpy

    from .dtypes import describe_array, is_native  # here and below, because numbers need none of it

    if type(value) is np.ndarray:
        described = describe_array(value)
        return None if described is None else _array(value, described, path, parts)
    if not isinstance(value, np.generic) or not value.dtype.isnative or value.dtype.names is not None:
        return None
    dtype = np.dtype(value.dtype.str)
    if value.dtype.kind == "S" or not is_native(dtype) or dtype.type is not type(value):
        return None
    return parts.add(spec(path, dtype.str), value.tobytes(), {"is": "scalar", "dtype": dtype.str})


def _array(array: Any, described: Any, path: str, parts: Datasets) -> Node | None:
    from .dtypes import build, is_native

    dtype, shape = build(described), array.shape
    node: Node = {"is": "array", "dtype": described, "shape": list(shape)}
    notes = (("dtype", str(dtype)), ("shape", str(shape)))
    if parts.limit is not None and array.nbytes > parts.limit:
        node["is"] = "omitted"
        return parts.add(spec(path, "none", (), notes), b"", node)
    if array.ndim > MAX_RANK:
        return None
    node.update(_order_in_memory(array))
    if is_native(dtype) and fits(dtype):
        return parts.add(spec(path, dtype, shape), _memory(array), node)
    return parts.add(spec(path, "|u1", (*shape, dtype.itemsize), notes), _memory(array), node)


def _order_in_memory(array: Any) -> Node:
    """Return the properties kept of an array by numpy's own pickle: its order in memory, and read-only or not."""
    from .dtypes import has_buffer

    flags = array.flags
    if flags.c_contiguous:
        order: Node = {}
    elif flags.f_contiguous:
        order = {"order": "F"}
    else:
        axes = _axes(array)
        if axes is None:
            return {}  # pickle makes a writable copy of an array that is not contiguous
        order = {"axes": axes}
    return order if flags.writeable or not has_buffer(array) else {**order, "readonly": True}


def _axes(array: Any) -> list[int] | None:
    """Return the axes by which `transpose` turns a C-ordered array into this one; None if numpy pickles none."""
    by_step = sorted(range(array.ndim), key=lambda axis: -array.strides[axis])
    if not array.transpose(by_step).flags.c_contiguous:
        return None
    make, arguments, *_ = array.__reduce_ex__(5)
    return list(arguments[4]) if make.__name__ == "_frombuffer" and len(arguments) > 4 else None


def _memory(array: Any) -> Any:
    """Return the bytes of an array in C order; of a large array without a copy, if it is in C order."""
    import numpy as np

    if array.nbytes < _VIEWED:
        return array.tobytes()
    return memoryview(np.asarray(array, order="C").reshape(-1).view(np.uint8))


def _pickled(value: Any, path: str, parts: Datasets) -> Node:
    from .pickles_with_arrays import dump  # here, because numbers need none of its imports

    data, arrays = dump(value, None if parts.keep is None else parts.keep_file)
    if parts.limit is not None and len(data) > parts.limit:
        raise ValueError("too large to be stored with the result")
    node = parts.add_bytes(f"{path}/pickle", data, "pickle")
    node["arrays"] = [_array(array, described, f"{path}/{name}", parts) for array, described, name in arrays]
    return node
