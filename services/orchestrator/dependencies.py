"""What the service needs, and whether it answers."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Protocol

import structlog

from lib.asyncaws.errors import AwsError

# Less than a look at readiness may take in all, so that each part is named.
WAIT_S = 1.5

log = structlog.stdlib.get_logger(__name__)


class Checkable(Protocol):
    """Something of AWS that can be looked at."""

    async def check(self) -> None:
        """Raises AwsError if it does not answer."""


class Dependency:
    """One client's way to one thing.

    A look may take as long as its client is patient, and that is longer than anybody waits for an answer here: a client
    of the background rightly repeats a throttled call for seconds. Such a look goes on, and until it ends the last one
    counts.

    Args:
        wait_s: how long an asker waits for a look.
    """

    def __init__(self, client: Checkable, *, wait_s: float = WAIT_S) -> None:
        self._client = client
        self._wait_s = wait_s
        self._answered = False
        self._look: asyncio.Task[None] | None = None

    async def answers(self) -> bool:
        """As the look that ends in time says, otherwise as the last one did; False before the first."""
        if self._look is None or self._look.done():
            self._look = asyncio.create_task(self._check())
        done, _ = await asyncio.wait({self._look}, timeout=self._wait_s)
        for look in done:
            look.result()  # raises what is a bug
        return self._answered

    async def _check(self) -> None:
        try:
            await self._client.check()
        except AwsError as error:
            log.warning("readiness.dependency_failed", error=str(error))
            self._answered = False
        else:
            self._answered = True


class Dependencies:
    """All of them, by the name that `/ready` gives them; each stands for several clients, which must all answer."""

    def __init__(self, clients: Mapping[str, Sequence[Checkable]], *, wait_s: float = WAIT_S) -> None:
        self._all = {name: [Dependency(one, wait_s=wait_s) for one in several] for name, several in clients.items()}

    async def check(self) -> Mapping[str, bool]:
        """Look at all at once."""
        return {name: all(answers) for name, answers in zip(self._all, await self._ask(), strict=True)}

    async def _ask(self) -> Sequence[Sequence[bool]]:
        asked = (asyncio.gather(*(one.answers() for one in several)) for several in self._all.values())
        return await asyncio.gather(*asked)
