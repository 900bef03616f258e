"""How many submissions may be under way at once, and whose."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from services.orchestrator.errors import Unavailable

# Waiting, two calls to AWS with their retries, and taking back are to fit into the promised second.
PATIENCE_S = 0.2
# A refusal is held back so long: who is refused at once comes back at once, and costs the time of those who are served.
HOLD_S = 0.6
# A body that takes longer than this to arrive is its client's matter.
UPLOAD_S = 1.0

_MOST_WAITING = 1024
_SLOW_UPLOADS = 4  # for each place
_TARGET_LAG_S = 0.1
_LEAST_PLACES = 16
_RETRY_AFTER_S = 1
_MAX_RETRY_AFTER_S = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class AdmissionLimits:
    """What may be under way.

    Attributes:
        places: submissions at once. One costs over a millisecond of processor; on the quarter of one that AWS gives by
            default, 128 take 0.7 s.
        is_shared: one client leaves a share to the next that comes; pointless where there is only one.
        patience_s: how long one waits for a place,
        hold_s: how much longer for its refusal.
        upload_s: after that, one whose body is still on its way gives its place to another, and goes on beside it.
    """

    places: int = 128
    is_shared: bool = False
    patience_s: float = PATIENCE_S
    hold_s: float = HOLD_S
    upload_s: float = UPLOAD_S


class Place:
    """One submission's."""

    def __init__(self, client_id: str, admission: Admission) -> None:
        self.client_id = client_id
        self.is_aside = False
        self._admission = admission
        self._timer: asyncio.TimerHandle | None = None

    def watch(self, upload_s: float) -> None:
        """Its body is on its way."""
        self._timer = asyncio.get_running_loop().call_later(upload_s, self._admission.step_aside, self)

    def has_body(self) -> None:
        """The body is complete."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._admission.step_back(self)


class Admission:
    """Turns away, before their bodies are read, what would only queue for longer than the promised second.

    Args:
        lag_s: how late the event loop is. When it is late, fewer are let in.
    """

    def __init__(self, limits: AdmissionLimits, *, lag_s: Callable[[], float] = lambda: 0.0) -> None:
        self._limits = limits
        self._lag_s = lag_s
        self._taken: Counter[str] = Counter()
        self._aside: Counter[str] = Counter()
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}

    @asynccontextmanager
    async def place(self, client_id: str) -> AsyncIterator[Place]:
        """Hold one of the places.

        Raises:
            Unavailable: none became free in time.
        """
        if self._has_room(client_id) and not self._waiting.get(client_id):
            self._taken[client_id] += 1
        else:
            await self._wait(client_id)
        place = Place(client_id, self)
        place.watch(self._limits.upload_s)
        try:
            yield place
        finally:
            place.has_body()
            self._leave(client_id)

    def step_aside(self, place: Place) -> None:
        """Leave the place to another while the body comes slowly; if too many do that already, stay."""
        slow_uploads = _SLOW_UPLOADS * self._limits.places
        if self._aside.total() < slow_uploads and self._aside[place.client_id] < self._share(
            place.client_id, slow_uploads, self._aside
        ):
            place.is_aside = True
            self._aside[place.client_id] += 1
            self._leave(place.client_id)

    def step_back(self, place: Place) -> None:
        """Go on as one of those in work, who may be a few more than the places then."""
        if place.is_aside:
            place.is_aside = False
            _take_one(self._aside, place.client_id)
            self._taken[place.client_id] += 1

    def _leave(self, client_id: str) -> None:
        _take_one(self._taken, client_id)
        self._let_in()

    def _let_in(self) -> None:
        while ready := [client_id for client_id in self._waiting if self._has_room(client_id)]:
            client_id = min(ready, key=self._taken.__getitem__)
            future = self._waiting[client_id].popleft()
            self._forget_empty(client_id)
            if not future.done():
                self._taken[client_id] += 1
                future.set_result(None)

    def _has_room(self, client_id: str) -> bool:
        places = places_at(self._limits.places, self._lag_s())
        return self._taken.total() < places and self._taken[client_id] < self._share(client_id, places, self._taken)

    def _share(self, client_id: str, places: int, held: Counter[str]) -> int:
        others = len(held.keys() - {client_id})
        return share_of(places, others=others) if self._limits.is_shared else places

    async def _wait(self, client_id: str) -> None:
        waiting = sum(map(len, self._waiting.values()))
        if waiting >= _MOST_WAITING:
            raise self._refusal(waiting)
        future = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(client_id, deque()).append(future)
        try:
            async with asyncio.timeout(self._limits.patience_s):
                await future
        except TimeoutError:
            pass  # though it may have come at the last moment
        except asyncio.CancelledError:
            if _is_granted(future):
                self._leave(client_id)
            raise
        finally:
            self._withdraw(client_id, future)
        if not _is_granted(future):
            await asyncio.sleep(self._limits.hold_s)
            raise self._refusal(waiting)

    def _withdraw(self, client_id: str, future: asyncio.Future[None]) -> None:
        if (queue := self._waiting.get(client_id)) is not None and future in queue:
            queue.remove(future)
            self._forget_empty(client_id)

    def _forget_empty(self, client_id: str) -> None:
        if not self._waiting[client_id]:
            del self._waiting[client_id]

    def _refusal(self, waiting: int) -> Unavailable:
        retry_after_s = min(_RETRY_AFTER_S + waiting // self._limits.places, _MAX_RETRY_AFTER_S)
        return Unavailable(retry_after_s, "Too many submissions at once")


def places_at(places: int, lag_s: float) -> int:
    """How many places there are while the event loop is so late: in proportion fewer, but never hardly any."""
    if lag_s <= _TARGET_LAG_S:
        return places
    return max(min(places, _LEAST_PLACES), round(places * _TARGET_LAG_S / lag_s))


def share_of(places: int, *, others: int) -> int:
    """How many of the places one client may have beside others: one more client always finds as many."""
    return max(1, places // (others + 2))


def _take_one(counter: Counter[str], key: str) -> None:
    counter[key] -= 1
    if counter[key] <= 0:
        del counter[key]


def _is_granted(future: asyncio.Future[None]) -> bool:
    return future.done() and not future.cancelled()
