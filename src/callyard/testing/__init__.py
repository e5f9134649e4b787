"""Tests for authors of backends and schedulers: contract suites to inherit, and fakes to test against.

    from callyard.testing.executor_contract import ExecutorContract
    from callyard.testing.scheduler_contract import SchedulerContract

    class TestMyBackend(ExecutorContract):
        @pytest.fixture
        def ex(self):
            with Executor(backend=MyBackend()) as executor:
                yield executor

    class TestMyScheduler(SchedulerContract):
        scheduler = MyScheduler()

The suites need pytest, which Callyard itself does not; so each is a module of its own, not imported here.
"""
