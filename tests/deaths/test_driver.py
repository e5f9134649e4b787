"""When the process that made an executor is gone, however it went, so is all that it started."""

from __future__ import annotations

import os
import signal
from typing import Any

import acts
import pytest

RUNNING = """
def main():
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # under nohup it is ignored, also by what the tests start
    executor = Executor(2)
    call = executor.submit(acts.start_all_and_stay, MEETING)
    pids = acts.hear(MEETING)
    executor.submit(pow, 2, 2).result()  # a second worker, idle
    acts.tell(READY, pids)
    {end}
main()
"""

WAYS = {
    "killed": ("acts.stay()", signal.SIGKILL, -signal.SIGKILL),
    "terminated": ("acts.stay()", signal.SIGTERM, -signal.SIGTERM),
    "hung up": ("acts.stay()", signal.SIGHUP, -signal.SIGHUP),
    "exit at once": ("os._exit(5)", None, 5),
    "segfault": ("acts.segfault()", None, -signal.SIGSEGV),
}

linux = pytest.mark.needs("linux")  # elsewhere only what stays in its process group is found


def _grandchildren(pids: str) -> list[int]:
    assert len(pids.split()) == 5
    return [int(pid) for pid in pids.split()]


@linux
@pytest.mark.parametrize("way", WAYS)
def test_all_processes_end_with_the_driver(script: Any, fifo: Any, ended: Any, way: str) -> None:
    end, signum, code = WAYS[way]
    meeting, ready = fifo(), fifo()
    run = script(RUNNING.format(end=end), MEETING=meeting, READY=ready)
    pids = _grandchildren(acts.hear(ready))
    if signum is not None:
        assert len(run.relatives()) >= 6  # the zygote, two workers, four that the call started
        run.process.send_signal(signum)
    assert run.wait() == code
    ended(pids)
    run.assert_nothing_left()


@linux
def test_driver_dies_while_workers_start(script: Any, fifo: Any) -> None:
    ready = fifo()
    run = script(
        """
        executor = Executor(2, initializer=acts.stay_in_initializer, initargs=(READY,))
        call = executor.submit(pow, 2, 2)
        acts.stay()
        """,
        READY=ready,
    )
    acts.hear(ready)
    run.process.kill()
    run.wait()
    run.assert_nothing_left()


@linux
@pytest.mark.parametrize("where", ["before", "during"])
def test_forked_child_of_the_driver_keeps_nothing_alive(script: Any, fifo: Any, ended: Any, where: str) -> None:
    """The child has inherited every descriptor, and lives on."""
    ready, meeting, child = fifo(), fifo(), fifo()
    fork = "if os.fork() == 0: acts.tell_and_stay(CHILD)"
    run = script(
        f"""
        executor = Executor(2)
        executor.submit(pow, 2, 2).result()
        {fork if where == "before" else "pass"}
        call = executor.submit(acts.start_all_and_stay, MEETING)
        pids = acts.hear(MEETING)
        {fork if where == "during" else "pass"}
        acts.tell(READY, pids)
        acts.stay()
        """,
        READY=ready,
        MEETING=meeting,
        CHILD=child,
    )
    if where == "before":
        forked = int(acts.hear(child))
        pids = _grandchildren(acts.hear(ready))
    else:
        forked = int(acts.hear(child))
        pids = _grandchildren(acts.hear(ready))
    run.process.kill()
    run.wait()
    ended(pids)
    run.assert_nothing_left(but=(forked,))
    assert not acts.gone(forked)
    os.kill(forked, signal.SIGKILL)
    run.assert_nothing_left()


@linux
def test_child_forked_in_c_keeps_nothing_alive(script: Any, fifo: Any, ended: Any) -> None:
    """Python's hooks do not run in it, so it holds the connections open."""
    ready, meeting, child = fifo(), fifo(), fifo()
    run = script(
        """
        import ctypes
        executor = Executor(2)
        call = executor.submit(acts.start_all_and_stay, MEETING)
        pids = acts.hear(MEETING)
        if ctypes.PyDLL(None).fork() == 0:
            acts.tell_and_stay(CHILD)
        acts.tell(READY, pids)
        acts.stay()
        """,
        READY=ready,
        MEETING=meeting,
        CHILD=child,
    )
    forked = int(acts.hear(child))
    pids = _grandchildren(acts.hear(ready))
    run.process.kill()
    run.wait()
    ended(pids)
    run.assert_nothing_left(but=(forked,))
    os.kill(forked, signal.SIGKILL)
    run.assert_nothing_left()


def test_thread_that_submitted_first_may_end(script: Any) -> None:
    """The kernel ends the zygote with the thread that started it, which must not be the user's."""
    run = script(
        """
        executor = Executor(1)
        pids = []
        def first():
            pids.append(executor.submit(os.getpid).result())
        thread = threading.Thread(target=first)
        thread.start()
        thread.join()
        print(executor.submit(os.getpid).result() == pids[0])
        executor.shutdown()
        """
    )
    assert run.finish() == (0, "True\n", "")
    run.assert_nothing_left()


# -- ends that wait ---------------------------------------------------------------------------------------


def test_normal_exit_waits_for_live_calls(script: Any, fifo: Any, journal: str) -> None:
    there, go = fifo(), fifo()
    run = script(
        """
        executor = Executor(1)
        executor.submit(acts.tell_and_hear, THERE, GO)
        for i in range(10):
            executor.submit(acts.note, JOURNAL, i)
        late = executor.submit(acts.note, JOURNAL, executor.submit(pow, 10, 1))
        """,
        THERE=there,
        GO=go,
        JOURNAL=journal,
    )
    acts.hear(there)
    acts.tell(go)
    assert run.finish() == (0, "", "")
    assert sorted(acts.noted(journal), key=int) == [str(i) for i in range(11)]
    run.assert_nothing_left()


def test_unhandled_exception_waits_too(script: Any, fifo: Any, journal: str) -> None:
    go = fifo()
    run = script(
        """
        executor = Executor(1)
        executor.submit(acts.note_once_heard, JOURNAL, "done", GO)
        raise ValueError("the user's own")
        """,
        GO=go,
        JOURNAL=journal,
    )
    acts.tell(go)
    code, _, errors = run.finish()
    assert code == 1
    assert errors.count("Traceback") == 1
    assert errors.rstrip().endswith("ValueError: the user's own")
    assert acts.noted(journal) == ["done"]
    run.assert_nothing_left()


def test_exit_without_shutdown_of_idle_executors(script: Any) -> None:
    run = script(
        """
        executors = [Executor(1), Executor(1), Executor(1)]
        print([executor.submit(pow, 2, 2).result() for executor in executors[1:]])
        """
    )
    assert run.finish() == (0, "[4, 4]\n", "")
    run.assert_nothing_left()


@linux
def test_what_calls_left_behind_ends_with_a_normal_exit(script: Any, ended: Any) -> None:
    run = script(
        """
        executor = Executor(1)
        print(*executor.submit(acts.start_all).result())
        """
    )
    code, out, errors = run.finish()
    assert (code, errors) == (0, "")
    ended([int(pid) for pid in out.split()])
    run.assert_nothing_left()


# -- Ctrl-C ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", ["running", "many"])
def test_interrupt_ends_a_script_at_once(script: Any, fifo: Any, length: str) -> None:
    ready = fifo()
    run = script(
        """
        with Executor(2) as executor:
            first = executor.submit(acts.tell_and_stay, READY)
            others = [executor.submit(acts.stay) for _ in range(COUNT)]
            chained = executor.submit(acts.stay, first)
            first.result()
        """,
        READY=ready,
        COUNT=0 if length == "running" else 100,
    )
    acts.hear(ready)
    run.process.send_signal(signal.SIGINT)
    code, _, errors = run.finish()
    assert code == -signal.SIGINT  # as Python itself ends by an interrupt
    assert errors.rstrip().endswith("KeyboardInterrupt")
    assert "Error" not in errors
    assert "Exception ignored" not in errors
    run.assert_nothing_left()


def test_exit_ends_a_script_at_once(script: Any, fifo: Any) -> None:
    ready = fifo()
    run = script(
        """
        with Executor(2) as executor:
            running = executor.submit(acts.tell_and_stay, READY)
            waiting = [executor.submit(acts.stay) for _ in range(10)]
            acts.hear(READY)
            sys.exit(7)
        """,
        READY=ready,
    )
    assert run.finish() == (7, "", "")
    run.assert_nothing_left()


def test_interrupt_while_the_block_waits_at_its_end(script: Any, fifo: Any) -> None:
    """Most of a script's time is spent there."""
    meeting, ready = fifo(), fifo()
    run = script(
        """
        class Telling(Executor):
            told = False
            def shutdown(self, *args, **kwargs):
                if not self.told:
                    self.told = True
                    acts.hear(MEETING)
                    acts.tell(READY)
                super().shutdown(*args, **kwargs)

        with Telling(2) as executor:
            running = executor.submit(acts.tell_and_stay, MEETING)
            waiting = [executor.submit(acts.stay) for _ in range(10)]
        """,
        MEETING=meeting,
        READY=ready,
    )
    acts.hear(ready)
    run.process.send_signal(signal.SIGINT)
    code, _, errors = run.finish()
    assert code == -signal.SIGINT
    assert errors.rstrip().endswith("KeyboardInterrupt")
    run.assert_nothing_left()


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_block_left_by_an_interrupt(kind: type[BaseException], fifo: Any) -> None:
    from callyard import Executor, WorkerLost

    meeting = fifo()
    with pytest.raises(kind):
        with Executor(1) as executor:
            running = executor.submit(acts.tell_and_stay, meeting)
            waiting = executor.submit(pow, 2, 2)
            dependent = executor.submit(pow, waiting, 2)
            acts.hear(meeting)
            raise kind
    assert isinstance(running.exception(), WorkerLost)
    assert "SIGTERM, as its executor was ended by Ctrl-C" in str(running.exception())
    assert waiting.cancelled()
    assert dependent.cancelled()
    with pytest.raises(RuntimeError, match="after shutdown"):
        executor.submit(pow, 2, 2)


def test_block_left_by_another_exception_waits(fifo: Any, journal: str) -> None:
    from callyard import Executor

    with pytest.raises(ValueError, match="own"):
        with Executor(1) as executor:
            call = executor.submit(acts.note, journal, "done")
            raise ValueError("the user's own")
    assert call.result() == "done"


# -- MPI ----------------------------------------------------------------------------------------------------


MPI = """
def places():
    return [group.address for group in executor._running.backend._runner._dispatcher.connections.values()]

with Executor() as executor:
    call = executor.submit(acts.start_all_and_stay_on_each_rank, MEETINGS, resource_dict={{"ranks": 2}})
    pids = " ".join(acts.hear(meeting) for meeting in MEETINGS)
    acts.tell(READY, f"{{pids}};{{places()[0]}}")
    {end}
"""


@pytest.mark.needs("mpi", "linux")
@pytest.mark.parametrize("way", [*WAYS, "interrupted"])
def test_ranks_end_with_the_driver(script: Any, fifo: Any, ended: Any, way: str) -> None:
    end, signum, code = WAYS.get(way, ("call.result()", signal.SIGINT, -signal.SIGINT))
    ready, meetings = fifo(), [fifo(), fifo()]
    run = script(MPI.format(end=end), READY=ready, MEETINGS=meetings)
    numbers, _, place = acts.hear(ready).partition(";")
    pids = [int(pid) for pid in numbers.split()]
    assert len(pids) == 10
    assert os.path.exists(place)
    if signum is not None:
        run.process.send_signal(signum)
    assert run.wait() == code
    ended(pids)
    run.assert_nothing_left()
    assert not os.path.exists(os.path.dirname(place))


@pytest.mark.needs("mpi")
def test_a_normal_end_of_ranks_leaves_no_files(script: Any) -> None:
    run = script(
        """
        with Executor() as executor:
            call = executor.submit(acts.rank_and_size, resource_dict={"ranks": 2})
            print(call.result())
            place, = [group.address for group in executor._running.backend._runner._dispatcher.connections.values()]
        print(os.path.exists(os.path.dirname(place)))
        """
    )
    assert run.finish() == (0, "[(0, 2), (1, 2)]\nFalse\n", "")
    run.assert_nothing_left()
