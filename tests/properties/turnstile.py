"""Every call that a worker makes, to AWS or upstream, waits here until the test lets it through: or loses it.

So it is the test that orders the steps of several workers, and a worker can be left for dead between any two of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any, TypeVar

from botocore.exceptions import EndpointConnectionError

from lib.gputask.gpu import UpstreamHealth
from services.adapter.errors import SubmissionUnknown, UpstreamGarbled, UpstreamUnreachable
from services.adapter.upstream import UnifiedApi, UpstreamJob

T = TypeVar("T")


class Fate(Enum):
    """What becomes of a call."""

    DONE = auto()
    LOST = auto()  # done, but the answer never comes
    REFUSED = auto()  # not done


@dataclass(eq=False)
class Ticket:
    """A call that waits.

    Attributes:
        task_id: whose record it writes, if it writes one.
        decided: what shall become of it.
        over: set when it has been answered.
    """

    operation: str
    task_id: str | None = None
    decided: asyncio.Future[Fate] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    over: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(eq=False)
class Turnstile:
    """One worker's way to the world.

    Attributes:
        waiting: calls nobody has let through yet, in order.
        under_way: calls that were, and have no answer yet.
    """

    waiting: list[Ticket] = field(default_factory=list)
    under_way: list[Ticket] = field(default_factory=list)

    async def let(self, ticket: Ticket, call: Callable[[], Awaitable[T]], *, lost: Exception, refused: Exception) -> T:
        """Make the call when the test says so, and raise what its fate deserves."""
        self.waiting.append(ticket)
        try:
            fate = await ticket.decided
        finally:
            self.waiting.remove(ticket)
        if fate is Fate.REFUSED:
            ticket.over.set()
            raise refused
        self.under_way.append(ticket)
        try:
            answer = await call()
        finally:
            self.under_way.remove(ticket)
            ticket.over.set()
        if fate is Fate.LOST:
            raise lost
        return answer


class WayToAws:
    """A client of the SDK, behind a turnstile."""

    def __init__(self, client: Any, turnstile: Turnstile) -> None:
        self._client = client
        self._turnstile = turnstile

    def __getattr__(self, operation: str) -> Callable[..., Awaitable[Any]]:
        method = getattr(self._client, operation)

        async def call(**arguments: Any) -> Any:
            key = arguments.get("Key", {}).get("task_id", {}).get("S")
            broken = EndpointConnectionError(endpoint_url="http://aws")
            return await self._turnstile.let(
                Ticket(operation, key), lambda: method(**arguments), lost=broken, refused=broken
            )

        return call


class WayUpstream(UnifiedApi):
    """The client of the Unified API, behind a turnstile."""

    def __init__(self, api: UnifiedApi, turnstile: Turnstile) -> None:
        self._api = api
        self._turnstile = turnstile

    async def health(self, timeout_s: float) -> UpstreamHealth:
        silent = UpstreamGarbled("health")
        try:
            return await self._turnstile.let(
                Ticket("health"), lambda: self._api.health(timeout_s), lost=silent, refused=silent
            )
        except UpstreamGarbled:
            return UpstreamHealth.UNHEALTHY

    async def submit(self, api_path: str, body: str, *, request_id: str, timeout_s: float) -> UpstreamJob:
        return await self._turnstile.let(
            Ticket("submit"),
            lambda: self._api.submit(api_path, body, request_id=request_id, timeout_s=timeout_s),
            lost=SubmissionUnknown("lost"),
            refused=UpstreamUnreachable("refused"),
        )

    async def look(self, job_id: str, *, timeout_s: float) -> UpstreamJob:
        return await self._turnstile.let(
            Ticket("look"),
            lambda: self._api.look(job_id, timeout_s=timeout_s),
            lost=UpstreamGarbled("lost"),
            refused=UpstreamUnreachable("refused"),
        )
