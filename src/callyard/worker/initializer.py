"""The initializers of a worker, run once before its first call: `initializer` and executorlib's `init_function`."""

from __future__ import annotations

import _pickle as pickle

from ..dependencies.map_chunks import run_chunk
from ..utils.lite_stdlib import Any, Callable


class Initialized:
    """The result of a worker's start for later calls: entries that become keyword arguments."""

    def __init__(self, entries: dict[str, Any] | None = None) -> None:
        self.entries = entries or {}

    @classmethod
    def load(cls, packed: bytes | None) -> Initialized:
        """Run the functions that the driver packed: (initializer, initargs, init_function)."""
        if packed is None:
            return cls()
        initializer, initargs, init_function = pickle.loads(packed)
        if initializer is not None:
            initializer(*initargs)
        entries = init_function() if init_function is not None else {}
        if not isinstance(entries, dict):
            raise TypeError(f"init_function must return a dict, not {type(entries).__name__}")
        return cls(entries)

    def apply(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call the function with the entries for its parameters; return the result."""
        if self.entries:
            if function is run_chunk:  # the entries are for the function of `map`, not for this one
                inner, chunk = args
                return [self.apply(inner, element, {}) for element in chunk]
            return self._call(function, args, self.complete(function, args, kwargs))
        return function(*args, **kwargs)

    def _call(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        try:
            return function(*args, **kwargs)
        except TypeError as error:
            trace = error.__traceback__
            if trace is None or trace.tb_next is not None:  # the function has begun
                raise
            raise TypeError(f"{error}; init_function gives: {', '.join(map(str, self.entries))}") from None

    def complete(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        """Return `kwargs` with the entries for which `function` has a parameter without a value so far."""
        if not self.entries:
            return kwargs
        import inspect  # here, because few workers need this slow import

        try:
            signature = inspect.signature(function)
            given = signature.bind_partial(*args, **kwargs).arguments
        except (TypeError, ValueError):  # no signature, or arguments that do not fit: the call fails with the reason
            return kwargs
        missing = {
            name: value
            for name, value in self.entries.items()
            if name in signature.parameters
            and name not in given
            and signature.parameters[name].kind
            in (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
        }
        return {**kwargs, **missing}
