"""Our backends keep the contract that is public."""

from __future__ import annotations

import pytest

from callyard.testing.executor_contract import ExecutorContract


@pytest.mark.smoke
class TestOurBackends(ExecutorContract):
    """On each backend of the suite, by its fixture `ex`."""
