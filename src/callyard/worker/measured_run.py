"""A call in an executor of another library, with what it uses and where it runs."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from ..events.usage import Usage
from .usage_meter import UsageMeter

__all__ = ["MeasuredValue", "run_measured"]


class MeasuredValue(NamedTuple):
    """The value of a call, and the facts of its run."""

    value: Any
    usage: Usage
    host: str
    worker: str  # "worker 4711", or the name of a thread
    began: float  # s since 1970


def run_measured(
    driver: int, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> MeasuredValue:
    """Return the value of `fn(*args, **kwargs)`; `driver` is the process that has submitted the call.

    In that process the call is a thread among others: only its time counts then.
    """
    began = time.time()
    if os.getpid() == driver:
        started, cpu = time.perf_counter(), time.thread_time()
        value = fn(*args, **kwargs)
        usage = Usage(time.perf_counter() - started, time.thread_time() - cpu)
        return MeasuredValue(value, usage, socket.gethostname(), threading.current_thread().name, began)
    meter = UsageMeter()
    value = fn(*args, **kwargs)
    return MeasuredValue(value, meter.usage(), socket.gethostname(), f"worker {os.getpid()}", began)
