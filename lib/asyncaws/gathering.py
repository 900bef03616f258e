"""Natural batching: what cannot be asked at once is asked together."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Generic, TypeVar

Q = TypeVar("Q")
A = TypeVar("A")

_Batch = list[tuple[Q, asyncio.Future[A]]]

# Below that many calls under way each question goes out at once and alone; measured, see `python -m bench get`.
_CALLS = 4


class Gatherer(Generic[Q, A]):
    """Asks each question at once while few calls are under way; what comes meanwhile goes with the next call.

    No timer: an idle service waits for nothing, a busy one makes fewer calls the busier it is.

    Args:
        ask_all: answers several questions, in their order; an exception in place of an answer is that question's.
        most: how many questions one call takes.
        size_bytes: of one question, as far as the call's limit counts it,
        most_bytes: and that limit.
        calls: how many may be under way before questions are gathered.
    """

    def __init__(
        self,
        ask_all: Callable[[Sequence[Q]], Awaitable[Sequence[A | Exception]]],
        *,
        most: int,
        size_bytes: Callable[[Q], int] = lambda _: 0,
        most_bytes: int = 0,
        calls: int = _CALLS,
    ) -> None:
        self._ask_all = ask_all
        self._most = most
        self._size_bytes = size_bytes
        self._most_bytes = most_bytes
        self._calls = calls
        self._waiting: deque[tuple[Q, asyncio.Future[A]]] = deque()
        self._under_way: set[asyncio.Task[None]] = set()

    async def ask(self, question: Q) -> A:
        """The answer. Cancelled, it is not asked for any more; a call that nobody waits for any more is cancelled.

        Raises:
            Exception: what the call raised, or what was in place of this question's answer.
        """
        answer: asyncio.Future[A] = asyncio.get_running_loop().create_future()
        self._waiting.append((question, answer))
        self._send()
        return await answer

    def _send(self) -> None:
        while len(self._under_way) < self._calls and (batch := self._next_batch()):
            task = asyncio.create_task(self._call(batch))
            self._under_way.add(task)
            task.add_done_callback(self._ended)
            for _, answer in batch:
                answer.add_done_callback(partial(_cancel_if_deserted, task, batch))

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._under_way.discard(task)
        self._send()

    def _next_batch(self) -> _Batch[Q, A]:
        batch: _Batch[Q, A] = []
        left_bytes = self._most_bytes
        while self._waiting and len(batch) < self._most:
            question, answer = self._waiting[0]
            if not answer.done():
                left_bytes -= self._size_bytes(question)
                if batch and left_bytes < 0:
                    break
                batch.append((question, answer))
            self._waiting.popleft()
        return batch

    async def _call(self, batch: _Batch[Q, A]) -> None:
        answers: Sequence[A | Exception]
        try:
            answers = await self._ask_all([question for question, _ in batch])
        except Exception as error:  # whatever it is, it belongs to those who wait for the answer
            answers = [error] * len(batch)
        for (_, waiting), answer in zip(batch, answers, strict=True):
            if waiting.done():
                continue
            if isinstance(answer, Exception):
                waiting.set_exception(answer)
            else:
                waiting.set_result(answer)


def _cancel_if_deserted(call: asyncio.Task[None], batch: _Batch[Q, A], _: asyncio.Future[A]) -> None:
    """Or it would go on trying, and do what its askers have given up and perhaps taken back."""
    if all(answer.cancelled() for _, answer in batch):
        call.cancel()
