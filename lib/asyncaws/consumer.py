"""A bounded pool that consumes a queue.

Every slot receives one message and receives the next when its handler is done with the work, so nothing waits in a
buffer whose visibility runs out, and the queue's depth shows what really waits.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import structlog

from lib.asyncaws.errors import AwsError, PermanentAwsError, TransientAwsError
from lib.asyncaws.queue import Message, Queue
from lib.daemon.waiting import wait_for

_MAX_BACKOFF_S = 30.0
# For the next process, or for an operator: the queue counts receives.
_UNSERVICEABLE_DELAY_S = 60

log = structlog.stdlib.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Delivery:
    """A message in the hands of a handler.

    A handler that neither acknowledges nor hands back leaves the message to its visibility timeout.

    Attributes:
        vacated: set when its slot may receive the next message.
    """

    message: Message
    queue: Queue
    vacated: asyncio.Event = field(default_factory=asyncio.Event)

    def vacate(self) -> None:
        """The work is over, only its result is still to be written: meanwhile the slot may receive its next message."""
        self.vacated.set()

    async def acknowledge(self) -> None:
        """Delete the message; always the last step."""
        await self.queue.delete(self.message.receipt)

    async def extend(self, seconds: int) -> None:
        """Keep it invisible for `seconds` from now. Raises ReceiptLost."""
        await self.queue.set_visibility(self.message.receipt, seconds)

    async def hand_back(self, *, delay_s: int = 0) -> None:
        """Let it be delivered again, to anybody, after `delay_s`. Raises ReceiptLost."""
        await self.queue.set_visibility(self.message.receipt, delay_s)


class Unserviceable(Exception):
    """A handler's word that it can serve no message at all, say because it may not write: its cause says why."""


Handler = Callable[[Delivery], Awaitable[None]]
Gate = Callable[[], Awaitable[bool]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Consumer:
    """`slots` loops of: pass the gate, receive one message, handle it.

    A slot holds at most one message in work, and one more whose result is being written.

    Attributes:
        source: the queue over a client whose read timeout outlasts the long poll.
        answers: the same queue over a client with short timeouts, for everything but receiving.
        gate: asked before each receive; False means not now (it does its own waiting).
        visibility_s: for how long a received message is invisible at first.
    """

    source: Queue
    answers: Queue
    handler: Handler
    gate: Gate
    slots: int
    wait_s: int
    visibility_s: int

    async def run(self, stop: asyncio.Event) -> None:
        """Consume until `stop`, then let every slot finish what it holds.

        The open receive is never cancelled: SQS would go on without us and hide what it finds.

        Raises:
            PermanentAwsError: the queue is gone or we may not read it. The other slots have finished what they held.
            Unserviceable: a handler's, likewise. To go on would only use up the receives of every message.
        """
        refusals: list[Exception] = []
        async with asyncio.TaskGroup() as pool:
            for number in range(self.slots):
                pool.create_task(self._consume(pool, stop, refusals), name=f"slot-{number}")
        if refusals:
            raise refusals[0]

    async def _consume(self, pool: asyncio.TaskGroup, stop: asyncio.Event, refusals: list[Exception]) -> None:
        failures = 0
        closing: asyncio.Task[None] | None = None
        while not (stop.is_set() or refusals):
            if not await self.gate() or stop.is_set():
                continue
            try:
                messages = await self.source.receive(limit=1, wait_s=self.wait_s, visibility_s=self.visibility_s)
                failures = 0
            except TransientAwsError as error:
                failures += 1
                delay_s = min(2.0 ** min(failures, 10), _MAX_BACKOFF_S) * random.uniform(0.5, 1.0)  # noqa: S311  jitter
                log.warning("receive.failed", error=str(error), retry_in_s=round(delay_s, 1))
                await wait_for(stop, delay_s)
                continue
            except PermanentAwsError as error:
                # Not raised from here: the task group would cancel the other slots in the middle of their work.
                refusals.append(error)
                return
            for message in messages:
                delivery = Delivery(message, self.answers)
                ending = stop.is_set() or bool(refusals)
                handling = pool.create_task(
                    self._deliver(delivery, refusals, ending=ending), name=f"message-{message.id}"
                )
                await delivery.vacated.wait()
                if closing is not None:
                    await closing  # where results cannot be written no more work is begun
                closing = handling

    async def _deliver(self, delivery: Delivery, refusals: list[Exception], *, ending: bool) -> None:
        try:
            if ending:
                await delivery.hand_back()
            else:
                await self.handler(delivery)
        except Unserviceable as error:
            reason = str(error.__cause__ or error)
            log.error("message.unserviceable", message_id=delivery.message.id, error=reason)  # noqa: TRY400  no bug of ours
            refusals.append(error)
            await _hand_back_quietly(delivery)
        except Exception:
            # The loop's edge: one message must not end the pool. It comes again after its visibility timeout.
            log.exception("message.handling_failed", message_id=delivery.message.id)
        finally:
            delivery.vacate()


async def _hand_back_quietly(delivery: Delivery) -> None:
    try:
        await delivery.hand_back(delay_s=_UNSERVICEABLE_DELAY_S)
    except AwsError as error:  # then it comes again after its visibility timeout
        log.warning("message.not_handed_back", message_id=delivery.message.id, error=str(error))
