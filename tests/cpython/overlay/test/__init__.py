"""Stands before the interpreter's own `test` package where that lacks the tests of concurrent.futures.

The package is the interpreter's own, extended by the directory of another Python's tests. So `test.support`
is that of this Python, and only what it lacks comes from elsewhere.
"""

import os
import pkgutil

__path__ = [*pkgutil.extend_path(__path__, __name__), os.environ["CALLYARD_CPYTHON_TESTS"]]
