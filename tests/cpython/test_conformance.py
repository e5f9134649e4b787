"""CPython's own executor tests, run against Callyard: on this machine, around threads, around processes.

None of them is copied: their classes are imported from the interpreter's `test` package and given another
executor. Which are left out, and why, is written down in `departures.py`.
"""

from __future__ import annotations

import gc
import logging
import sys
import unittest
from collections.abc import Iterator
from concurrent import futures

import cpython_executors
import departures
import pytest
import stdlib_tests

from callyard.futures import Future

if not stdlib_tests.make_importable():
    pytest.skip(stdlib_tests.MISSING, allow_module_level=True)

from test import support
from test.support.script_helper import assert_python_ok

util = stdlib_tests.module("util")

# Some of the tests' functions reach the stream that pytest captures.
pytestmark = pytest.mark.filterwarnings("ignore:calls of .* are cached whatever")

# Callyard's workers have no start method; CPython's tests use it for managers and events of their own too.
MIXINS = {
    "local": util.ProcessPoolForkserverMixin,
    "cached": util.ProcessPoolForkserverMixin,
    "threads": util.ThreadPoolMixin,
    "processes": util.ProcessPoolForkserverMixin,
}


class Adapted:
    """What CPython's tests do with private attributes when they have already failed."""

    TIMEOUT = support.SHORT_TIMEOUT  # CPython's, of five minutes, is longer than any test here may take

    def _fail_on_deadlock(self, executor: object) -> None:
        self.fail(f"deadlock of {executor!r}")


class Cleaned(util.BaseTestCase):
    """Ends the pools that Callyard was put around, and fails where CPython would only warn of leaks."""

    def setUp(self) -> None:
        support.environment_altered = False
        super().setUp()

    def tearDown(self) -> None:
        cpython_executors.shutdown_wrapped()
        gc.collect()  # Python 3.10 counts threads that have ended too, while an object of theirs is there
        super().tearDown()
        assert not support.environment_altered, "threads or processes were left behind; see stderr"


class OurFutures:
    """Puts our class of futures in the place of the standard library's."""

    def setUp(self) -> None:
        super().setUp()
        patch = pytest.MonkeyPatch()
        self.addCleanup(patch.undo)
        patch.setattr(logging.root, "handlers", [])  # without pytest's: what is logged is expected on stderr
        tests = stdlib_tests.module("test_future")
        for module in (util, tests):
            patch.setattr(module, "Future", Future)
        for name, value in list(vars(tests).items()):
            if isinstance(value, futures.Future):  # one that its tests share
                patch.setattr(tests, name, util.create_future(value._state, value._exception, value._result))


def build(suite: str, module: str, against: str) -> type[unittest.TestCase]:
    """Make a class of CPython's tests one about us."""
    base = getattr(stdlib_tests.module(module), suite)
    left_out = departures.left_out([each.__name__ for each in base.__mro__], against)
    namespace = {"__module__": __name__, **dict.fromkeys(left_out)}
    if against == "future":
        return type("Our" + suite, (OurFutures, base), namespace)
    namespace["executor_type"] = staticmethod(getattr(cpython_executors, against))
    return type(against.capitalize() + suite, (Adapted, base, MIXINS[against], Cleaned), namespace)


for suite, module, backends in departures.SUITES:
    for against in backends:
        case = build(suite, module, against)
        globals()[case.__name__] = case if against in ("local", "future") else pytest.mark.wide(case)
del case  # pytest would find the last one twice


@pytest.fixture(scope="module", autouse=True)
def scripts_use_callyard() -> Iterator[None]:
    """Let the scripts that CPython's tests run in a new interpreter import the executor under test."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stdlib_tests.module("test_shutdown"), "assert_python_ok", run_script)
        yield


def run_script(option: str, code: str) -> object:
    for name in ("local", "cached", "threads", "processes"):
        code = code.replace(f"from concurrent.futures import {name}", f"from cpython_executors import {name}")
    code = code.replace(
        "from concurrent.futures import ThreadPoolExecutor",
        "from cpython_executors import threads as ThreadPoolExecutor",
    )
    # One of CPython's scripts uses multiprocessing without importing it, where its own tests never come.
    return assert_python_ok(option, f"import multiprocessing, sys; sys.path[:] = {sys.path!r}\n{code}")
