"""The calls on another computer at this moment: what is known here, and what the gateway answers in a second."""

from __future__ import annotations

import queue
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import count
from typing import Any

from ...futures.waiting import futures_ended_here
from ...status.call_status import CallStatus, unfinished
from ...status.ended_calls import EndedCalls
from ...status.executor_status import FOR_OTHER_CALLS, ExecutorStatus, RunningCall
from ...utils.threads import next_item
from . import protocol
from .gateway_call import GatewayCall, GatewayFuture
from .protocol import Answer, Question
from .told_calls import ToldCalls

__all__ = ["GatewayQuestions"]

_PATIENCE = 1.0  # s for an answer
_MOST = 50  # calls in one question


class GatewayQuestions:
    """The questions to the gateway, of any thread."""

    def __init__(self, told: ToldCalls, destination: str, on_cancel: Callable[[], object]) -> None:
        self._told, self._destination, self._on_cancel = told, destination, on_cancel
        self._numbers = count(1)
        self._answers: dict[int, queue.SimpleQueue[Answer]] = {}
        self.ended_calls = EndedCalls()

    def answered(self, number: int, answer: Answer) -> None:
        """Take in an answer; one that comes too late is for nobody."""
        waiting = self._answers.get(number)
        if waiting is not None:
            waiting.put(answer)

    def status_of(self, future: GatewayFuture) -> CallStatus | None:
        """Return the status of a call that has not ended; None for one that is just being told."""
        call = future.call
        if call is None:
            return None
        known = self._known(future, call)
        if known is not None:
            return known
        answer = self._ask([call.number], whole=False)
        return self._there(future, answer.calls[0] if answer is not None else None)

    def status(self, futures: Sequence[Any], ask: bool) -> ExecutorStatus:
        """Return the status of the executor with these futures, of calls that had not ended."""
        status, there = ExecutorStatus(), list[GatewayFuture]()
        for future in futures:
            if isinstance(future, GatewayFuture) and future.call is not None and not future.done():
                known = self._known(future, future.call)
                if known is not None:
                    words = FOR_OTHER_CALLS if known.awaits else known.words
                    status.add_next(future.call.number, future.name, words)
                else:
                    there.append(future)
        asked = [future.call.number for future in there if future.running() and future.call is not None][:_MOST]
        answer = self._ask(asked, whole=True) if ask and there else None
        said = dict(zip(asked, answer.calls, strict=True)) if answer is not None else {}
        for future in there:
            self._add(status, future, said)
        if answer is not None:
            status.capacity, status.used = answer.capacity, answer.used
            reasons = Counter({why: number for why, number in answer.waiting.items() if why != FOR_OTHER_CALLS})
            if reasons:  # better ones than the place
                status.waiting.pop(self._there_words, None)
                status.waiting += reasons
        status.add_ended(self.ended_calls)
        return status

    @property
    def _there_words(self) -> str:
        return f"on {self._destination}"

    def _add(self, status: ExecutorStatus, future: GatewayFuture, said: dict[int, Any]) -> None:
        call = future.call
        if call is None:  # it has just ended
            return
        known = self._there(future, said.get(call.number))
        if known.state == "running":
            place = known.host, known.worker, known.seconds
            status.add_running(RunningCall(call.number, future.name, *place, None))
        else:
            status.add_next(call.number, future.name, known.words)

    def _known(self, future: GatewayFuture, call: GatewayCall) -> CallStatus | None:
        """Return the status of a call for which the gateway need not be asked."""
        awaits = unfinished(tuple(call.sources))
        if awaits or self._told.get(call.number) is not call:
            return CallStatus("waiting", "to be told to the gateway", awaits=awaits)
        if future.where or not self._told.connected:
            return CallStatus("waiting", f"for the connection to {self._destination}")
        return None

    def _there(self, future: GatewayFuture, said: Sequence[Any] | None) -> CallStatus:
        """Return what the gateway has said of a call; without an answer, what its last news were."""
        if said is not None:
            status = CallStatus(*said)
            if status.state in ("waiting", "running"):
                return status
            return (
                CallStatus("running", host=self._destination)
                if future.running()
                else CallStatus("waiting", f"for its result to come from {self._destination}")
            )
        worker = f"job {future.job_id}" if future.job_id else ""
        if future.running():
            return CallStatus("running", host=self._destination, worker=worker)
        return CallStatus("waiting", self._there_words)

    def _ask(self, calls: Sequence[int], whole: bool) -> Answer | None:
        """Return the answer to a question; None without one in time."""
        if futures_ended_here() == self._on_cancel:  # the thread that would take the answer in
            return None
        number, answers = next(self._numbers), queue.SimpleQueue[Answer]()
        self._answers[number] = answers
        try:
            return (
                next_item(answers, _PATIENCE) if self._told.say(protocol.ASK, number, Question(calls, whole)) else None
            )
        except queue.Empty:
            return None
        finally:
            self._answers.pop(number, None)
