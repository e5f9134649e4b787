"""What tests of futures share."""

from __future__ import annotations

import sys

import pytest


@pytest.fixture
def eager_switching():
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)
