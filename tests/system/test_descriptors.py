"""Room for many connections."""

from __future__ import annotations

import subprocess
import sys

import pytest

TRY = """
import resource
from callyard.system.descriptors import make_room
resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}))
make_room({count})
print(*resource.getrlimit(resource.RLIMIT_NOFILE))
"""


@pytest.mark.parametrize(
    ("soft", "hard", "count", "said"),
    [
        (300, 2000, 10, "300 2000"),
        (300, 2000, 1000, "1256 2000"),
        (300, 900, 1000, "900 900"),
    ],
)
def test_the_limit_is_raised_as_far_as_needed_and_allowed(soft: int, hard: int, count: int, said: str) -> None:
    script = TRY.format(soft=soft, hard=hard, count=count)
    assert subprocess.check_output([sys.executable, "-c", script], text=True).strip() == said
