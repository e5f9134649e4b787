"""The contract of schedulers, as a class of tests to inherit: needs pytest, and no cluster."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ..errors import SchedulerError
from ..resources import Resources
from ..schedulers.base import Dependency, JobId, JobRequest, Scheduler
from ..schedulers.command import Query, Reply
from ..schedulers.job_environment import JobEnvironment, current_job

__all__ = ["SchedulerContract"]

MANY = 20_000  # jobs
LONGEST = 100_000  # bytes in one word of a command; Linux takes 128 KiB


class SchedulerContract:
    """Tests for each scheduler, whatever its commands.

    Attributes:
        scheduler: the scheduler under test.
    """

    scheduler: Scheduler

    def _request(self, elements: int | None = None, after: tuple[Dependency, ...] = ()) -> JobRequest:
        resources = Resources(cores_per_rank=2, memory=1)
        return JobRequest("a call", "0123abcd", "/run/script", "/run/{element}.log", resources, elements, after=after)

    def _queries(self) -> Iterator[Query[object]]:
        scheduler, site, jobs = self.scheduler, self.scheduler.site(), [JobId("7"), JobId("8", 3)]
        yield scheduler.submit(self._request())
        yield scheduler.submit(self._request(elements=3, after=(Dependency("any", jobs[1]), Dependency("ok", jobs[0]))))
        yield scheduler.status(jobs)
        yield scheduler.find("0123abcd")
        yield from scheduler.cancel(jobs)
        yield site.array_limit
        for asking in (site.history, site.time_left):
            if asking is not None:
                yield asking(jobs)
        if site.nodes is not None:
            yield site.nodes(None)

    def test_its_name_is_a_word(self) -> None:
        assert self.scheduler.name.isprintable()
        assert self.scheduler.name.split() == [self.scheduler.name]

    def test_commands_are_words(self) -> None:
        for query in self._queries():
            assert query.argv
            assert all(isinstance(word, str) for word in query.argv)
            assert "\0" not in "".join(query.argv)

    def test_a_submission_says_which_script_and_which_token(self) -> None:
        query = self.scheduler.submit(self._request())
        told = "\n".join([*query.argv, query.stdin])
        assert "/run/script" in told
        assert "0123abcd" in told  # a lost job must be found by its token

    def test_an_answer_to_a_submission_without_a_name_is_an_error(self) -> None:
        with pytest.raises(SchedulerError):
            self.scheduler.submit(self._request()).read("welcome to the cluster\n")

    def test_nothing_is_known_from_an_empty_answer(self) -> None:
        assert not self.scheduler.status([JobId("7")]).read("")
        assert not self.scheduler.find("0123abcd").read("")

    def test_nothing_to_cancel_needs_no_command(self) -> None:
        assert not self.scheduler.cancel([])

    def test_words_do_not_get_too_long(self) -> None:
        jobs = [JobId(str(10**8 + number)) for number in range(MANY)]
        for query in [self.scheduler.status(jobs), *self.scheduler.cancel(jobs)]:
            assert max(map(len, query.argv)) < LONGEST

    def test_a_command_that_is_not_there_is_a_mistake_and_silence_is_none(self) -> None:
        refusal = self.scheduler.site().refusal
        missing = refusal(Reply(127, "", "there is no such command"))
        assert missing.kind == "mistake"
        assert missing.absent
        assert refusal(Reply(None)).kind == "silent"
        assert not refusal(Reply(None)).absent

    def test_the_environment_keeps_what_is_the_users(self) -> None:
        own = {"PATH": "/bin", "HOME": "/home/me", "OMP_NUM_THREADS": "2"}
        assert self.scheduler.site().environment(own) == own

    def test_its_jobs_know_their_job(self) -> None:
        variables = self.scheduler.site().job_variables
        assert variables.scheduler == self.scheduler.name
        environ = {"PATH": "/bin", **variables.environment()}
        assert current_job(environ) == JobEnvironment()
        assert current_job({**environ, variables.job: "7"}).job_id == "7"
        if variables.array:
            of_element = {variables.job: "8", variables.array: "7", variables.element: "3"}
            assert current_job({**environ, **of_element}).job_id == str(JobId("7", 3))

    def test_who_is_outside_is_not_inside(self) -> None:
        assert not self.scheduler.site().inside({"PATH": "/bin"})

    def test_who_is_in_no_allocation_is_told_so(self) -> None:
        steps = self.scheduler.site().steps
        if steps is not None:
            with pytest.raises(ValueError, match="allocation"):
                steps.share({"PATH": "/bin"})
