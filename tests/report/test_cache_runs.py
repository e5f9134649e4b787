"""The run that a cache tells of: its calls with what they have used, and the calls before them."""

from __future__ import annotations

from pathlib import Path

import pytest

from callyard import Executor
from callyard.report.runs import runs_at


def test_usage_inputs_and_failures_of_a_cache(tmp_path: Path) -> None:
    with Executor(1, cache=tmp_path / "results") as ex:
        first = ex.submit(abs, -4)
        last = ex.submit(divmod, first, 3)
        failed = ex.submit(int, "four")
        assert last.result() == (1, 1)
        with pytest.raises(ValueError, match="four"):
            failed.result()
    (run,) = runs_at(str(tmp_path / "results"))
    calls = {call.name: call for call in run.calls.values()}
    assert calls["divmod"].inputs == (calls["abs"].number,)
    assert calls["abs"].inputs == ()
    assert calls["abs"].usage is not None
    assert calls["abs"].usage.cpu is not None
    assert (calls["int"].state, calls["int"].failure and calls["int"].failure.error) == ("failed", "ValueError")
