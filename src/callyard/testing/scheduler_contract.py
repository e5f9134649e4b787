"""The contract of schedulers, as a class of tests to inherit: needs pytest, and no cluster."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

import pytest

from ..errors import ResourceError, SchedulerError
from ..resources import Resources
from ..schedulers.base import Dependency, JobId, JobRequest, Scheduler
from ..schedulers.command import Query, Reply
from ..schedulers.job_environment import JobEnvironment, current_job

__all__ = ["SchedulerContract"]

MANY = 20_000  # jobs
LONGEST = 100_000  # bytes in one word of a command; Linux takes 128 KiB
# Resources that only the scheduler can give, each with a value that a scheduler may take.
WISHES: dict[str, object] = {
    "cores_per_rank": 3, "gpus_per_rank": 1, "nodes": 2, "queue": "north", "account": "physics",
    "partition": "north", "qos": "high", "constraint": "fast", "licenses": "solver", "priority": 5, "exclusive": True,
}  # fmt: skip


class SchedulerContract:
    """Tests for each scheduler, whatever its commands.

    Attributes:
        scheduler: the scheduler under test.
        options: the settings of the cluster without which the scheduler would refuse a job of two cores.
    """

    scheduler: Scheduler
    options: Mapping[str, str] = MappingProxyType({})

    def _request(self, elements: int | None = None, after: tuple[Dependency, ...] = ()) -> JobRequest:
        resources = Resources(cores_per_rank=2, memory=1)
        return JobRequest(
            "a call", "0123abcd", "/run/script", "/run/{element}.log", resources, elements, after=after,
            options=self.options,
        )  # fmt: skip

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
        told = _told(query)
        assert "/run/script" in told
        assert "0123abcd" in told  # a lost job must be found by its token

    def test_a_submission_says_what_it_waits_for(self) -> None:
        before = JobId("4711")
        if self.scheduler.site().separate:
            request = dataclasses.replace(self._request(), after_each=((before,),))
        else:
            request = self._request(after=(Dependency("ok", before),))
        assert before.job in _told(self.scheduler.submit(request)), "the job would not wait for the job before it"

    def test_a_submission_says_its_time_limit(self) -> None:
        limited = dataclasses.replace(self._request(), time=3600.0)
        assert _told(self.scheduler.submit(limited)) != _told(self.scheduler.submit(self._request()))

    def test_each_resource_is_submitted_or_refused(self) -> None:
        dropped = [key for key, value in WISHES.items() if self._is_dropped(key, value)]
        assert not dropped, "submit these, or refuse them in Site.check"

    def _is_dropped(self, key: str, value: object) -> bool:
        plain = self._request()
        wishes: dict[str, Any] = {key: value}
        resources = dataclasses.replace(plain.resources, **wishes)
        try:
            self.scheduler.site().check(resources)
            query = self.scheduler.submit(dataclasses.replace(plain, resources=resources))
        except ResourceError:
            return False
        return _told(query) == _told(self.scheduler.submit(plain))

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
            single = {variables.job: "7", variables.array: "7", variables.element: variables.no_element}
            assert not variables.no_element or current_job({**environ, **single}).job_id == "7"
            of_element = {variables.job: "8", variables.array: "7", variables.element: "3"}
            assert current_job({**environ, **of_element}).job_id == str(JobId("7", 3))

    def test_the_elements_of_an_array_have_numbers_that_the_scheduler_takes(self) -> None:
        numbering = self.scheduler.site().numbering
        assert numbering.first >= 0
        for count in (1, 3):
            numbers = tuple(range(numbering.first, numbering.first + count))
            request = dataclasses.replace(self._request(), elements=numbers)
            told = " ".join([*self.scheduler.submit(request).argv, self.scheduler.submit(request).stdin])
            assert self.scheduler.site().separate or str(numbers[0]) in told

    def test_who_is_outside_is_not_inside(self) -> None:
        assert not self.scheduler.site().inside({"PATH": "/bin"})

    def test_who_is_in_no_allocation_is_told_so(self) -> None:
        steps = self.scheduler.site().steps
        if steps is not None:
            with pytest.raises(ValueError, match="allocation"):
                steps.share({"PATH": "/bin"})


def _told(query: Query[object]) -> str:
    """Return all that a command tells the scheduler, as one text."""
    return "\n".join([*query.argv, query.stdin])
