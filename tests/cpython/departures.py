"""CPython's tests of concurrent.futures: which are run, which are left out, and why.

Run as a script, it prints the table that `docs/conformance.md` shows.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

ALL = ("local", "cached", "threads", "processes")

# CPython's class of tests, the module that it is in, and what it is run against.
SUITES = (
    ("WaitTests", "test_wait", ("local", "cached", "processes")),
    ("ThreadPoolWaitTests", "test_wait", ("threads",)),
    ("AsCompletedTests", "test_as_completed", ALL),
    ("ProcessPoolExecutorTest", "test_process_pool", ("local", "cached", "processes")),
    ("ThreadPoolExecutorTest", "test_thread_pool", ("threads",)),
    ("ProcessPoolShutdownTest", "test_shutdown", ("local", "cached", "processes")),
    ("ThreadPoolShutdownTest", "test_shutdown", ("threads",)),
    ("ExecutorDeadlockTest", "test_deadlock", ("local", "cached", "processes")),
    ("InitializerMixin", "test_init", ALL),
    ("FailingInitializerMixin", "test_init", ALL),
    ("FutureTests", "test_future", ("future",)),
)


class Departure(NamedTuple):
    """A test that is left out."""

    test: str
    reason: str
    instead: str = ""  # the test of ours that asks the same through the public interface
    against: tuple[str, ...] = (*ALL, "future")
    since: tuple[int, int] = (3, 10)  # the Python that has this test for certain


# Reasons that `test_departures.py` checks against the code of the tests.
PRIVATE = "looks into private attributes of the standard library's executor"
BY_NAME = "creates the standard library's executor by its name, whichever is under test"
# Others.
WINDOWS = "is about a limit of Windows"
WORDS = "expects the words of the standard library; ours name the call"
SHARED = "makes the same call many times; a cache makes one of them"
REFUSED = "passes what has no meaning that can be hashed: `submit` itself says so, as there is no key without it"
CAPTURED = "reaches, through a helper, the stream that pytest captures, of which a worker has another kind"
STATE = "reads a private state, between cancelling and telling who waits, that ours does not have"

LEFT_OUT = {
    "ProcessPoolExecutorTest": (
        Departure("test_max_workers_too_large", WINDOWS),
        Departure("test_killed_child", PRIVATE, "test_a_worker_that_dies"),
        Departure("test_saturation", PRIVATE, "test_saturation"),
        Departure("test_idle_process_reuse_one", PRIVATE, "test_an_idle_worker_is_used_again"),
        Departure("test_idle_process_reuse_multiple", PRIVATE, "test_an_idle_worker_is_used_again"),
        Departure("test_max_tasks_per_child", PRIVATE, "test_max_tasks_per_child", since=(3, 11)),
        Departure("test_max_tasks_per_child_defaults_to_spawn_context", PRIVATE, since=(3, 11)),
        Departure("test_python_finalization_error", PRIVATE, since=(3, 13)),
        Departure("test_terminate_workers", PRIVATE, "test_ending_workers", since=(3, 14)),
        Departure("test_kill_workers", PRIVATE, "test_ending_workers", since=(3, 14)),
        Departure("test_force_shutdown_workers", PRIVATE, "test_ending_workers", since=(3, 14)),
        Departure("test_force_shutdown_workers_invalid_op", PRIVATE, since=(3, 14)),
        Departure("test_force_shutdown_workers_stops_pool", PRIVATE, "test_ending_workers", since=(3, 14)),
        Departure("test_force_shutdown_during_max_tasks_worker_exit", PRIVATE, since=(3, 15)),
        Departure("test_shutdown_no_wait_max_tasks_gh119592", PRIVATE, since=(3, 15)),
        Departure("test_gc_during_max_tasks_worker_exit_gh152967", PRIVATE, since=(3, 15)),
        Departure("test_failed_worker_replacement_breaks_pool", PRIVATE, since=(3, 15)),
        Departure("test_broken_process_pool_traceback", PRIVATE, "test_a_worker_that_dies", since=(3, 15)),
        Departure(
            "test_traceback_when_child_process_terminates_abruptly",
            WORDS,
            "test_a_worker_that_dies",
            since=(3, 15),
        ),
        Departure("test_traceback", CAPTURED, against=("cached",)),
        Departure("test_sysconf_permission_error", BY_NAME, since=(3, 15)),
    ),
    "ThreadPoolExecutorTest": (
        Departure("test_default_workers", PRIVATE),
        Departure("test_saturation", PRIVATE, "test_saturation"),
        Departure("test_idle_thread_reuse", PRIVATE, "test_an_idle_worker_is_used_again"),
        Departure("test_hang_global_shutdown_lock", BY_NAME),
        Departure("test_process_fork_from_a_threadpool", BY_NAME, since=(3, 15)),
    ),
    "ProcessPoolShutdownTest": (
        Departure("test_cancel_futures", SHARED, "test_cancelling_different_calls", against=("cached",)),
        Departure("test_processes_terminate", PRIVATE, "test_shutdown_ends_the_workers"),
        Departure("test_context_manager_shutdown", BY_NAME, "test_shutdown_ends_the_workers"),
        Departure("test_del_shutdown", BY_NAME, "test_a_dropped_executor_finishes_its_calls"),
        Departure("test_shutdown_no_wait", BY_NAME, "test_shutdown_without_waiting"),
        Departure(
            "test_shutdown_gh_132969_case_1", BY_NAME, "test_shutdown_without_waiting", since=(3, 14)
        ),
        Departure(
            "test_shutdown_gh_132969_case_2", BY_NAME, "test_shutdown_without_waiting", since=(3, 14)
        ),
    ),
    "ThreadPoolShutdownTest": (
        Departure("test_threads_terminate", PRIVATE),
        Departure("test_context_manager_shutdown", BY_NAME),
        Departure("test_del_shutdown", BY_NAME, "test_a_dropped_executor_finishes_its_calls"),
        Departure("test_shutdown_no_wait", BY_NAME, "test_shutdown_without_waiting"),
        Departure("test_thread_names_assigned", BY_NAME),
        Departure("test_thread_names_default", BY_NAME),
    ),
    "ExecutorDeadlockTest": (
        Departure("test_error_at_task_pickle", REFUSED, "test_what_has_no_meaning", against=("cached",)),
        Departure("test_shutdown_deadlock_pickle", PRIVATE, "test_what_cannot_be_pickled_after_shutdown"),
        Departure("test_gh105829_should_not_deadlock_if_wakeup_pipe_full", PRIVATE, since=(3, 13)),
    ),
    "FailingInitializerMixin": (
        Departure("test_initializer", PRIVATE, "test_an_initializer_that_fails"),
    ),
    "FutureTests": (
        Departure("test_cancel", STATE),
        Departure("test_repr", WORDS),
        Departure("test_multiple_set_result", WORDS),
        Departure("test_multiple_set_exception", WORDS),
    ),
}  # fmt: skip


def left_out(classes: Iterable[str], against: str) -> list[str]:
    """Return the names of the tests that a class with these bases does not run against something."""
    departures = (departure for name in classes for departure in LEFT_OUT.get(name, ()))
    return [departure.test for departure in departures if against in departure.against]


def table() -> str:
    """Return the tests that are left out as a table in Markdown."""
    lines = ["| CPython's test | against | left out because it | ours instead |", "|---|---|---|---|"]
    for suite, _, against in SUITES:
        for departure in LEFT_OUT.get(suite, ()):
            affected = ", ".join(name for name in against if name in departure.against)
            test, instead = f"`{suite}.{departure.test}`", departure.instead and f"`{departure.instead}`"
            lines.append(f"| {test} | {affected} | {departure.reason} | {instead} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())
