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
# A body that takes longer than this to arrive must not keep a place from those that are there.
UPLOAD_S = 0.1

_MOST_WAITING = 1024
_SLOW_UPLOADS = 4  # for each place
# Longer than this, while the loop is late by more than that, means that too many are in work: their number takes the
# time. Without the lag it is AWS that takes it, and fewer at once would only make it worse.
_SLOW_S = 0.25
_LATE_S = 0.02
_FIRST_PLACES = 16
_LEAST_PLACES = 4
_GROWTH = 0.25
_SHRINKAGE = 0.93
_RETRY_AFTER_S = 1
_MAX_RETRY_AFTER_S = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class AdmissionLimits:
    """What may be under way.

    Attributes:
        places: submissions at once, where the processor is equal to so many.
        is_shared: one client leaves a share to the next that comes; pointless where there is only one.
        patience_s: how long one waits for a place,
        hold_s: how much longer for its refusal.
    """

    places: int = 128
    is_shared: bool = False
    patience_s: float = PATIENCE_S
    hold_s: float = HOLD_S


class Place:
    """One submission's."""

    def __init__(self, client_id: str, admission: Admission) -> None:
        self.client_id = client_id
        self.is_aside = False
        self._admission = admission
        self._has_body_since: float | None = None

    @asynccontextmanager
    async def reading(self, *, upload_s: float = UPLOAD_S) -> AsyncIterator[None]:
        """Read the body meanwhile. One that comes slowly goes on beside the places, or not at all.

        Raises:
            Unavailable: too many come slowly.
        """
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(None) as limit:
                timer = loop.call_later(upload_s, self._step_aside, limit)
                try:
                    yield
                finally:
                    timer.cancel()
        except TimeoutError as error:
            raise Unavailable(_RETRY_AFTER_S, "Too many slow uploads at once") from error
        self._has_body_since = loop.time()
        self._admission.step_back(self)

    def _step_aside(self, limit: asyncio.Timeout) -> None:
        if not self._admission.step_aside(self):
            limit.reschedule(asyncio.get_running_loop().time())

    @property
    def worked_s(self) -> float:
        """Since its body was complete."""
        since = self._has_body_since
        return 0.0 if since is None else asyncio.get_running_loop().time() - since


class Admission:
    """Turns away, before their bodies are read, what would only queue for longer than the promised second.

    Args:
        lag_s: how late the event loop is. When it is late, fewer are let in.
    """

    def __init__(self, limits: AdmissionLimits, *, lag_s: Callable[[], float] = lambda: 0.0) -> None:
        self._limits = limits
        self._lag_s = lag_s
        self._pace = Pace(limits.places)
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
        try:
            yield place
        finally:
            self.step_back(place)
            is_full = self._taken.total() >= self._pace.places
            self._pace.note(place.worked_s, lag_s=self._lag_s(), is_full=is_full)
            self._leave(client_id)

    def step_aside(self, place: Place) -> bool:
        """Leave the place to another while the body comes slowly, unless too many do that already."""
        most, held = _SLOW_UPLOADS * self._limits.places, self._aside
        if held.total() >= most or held[place.client_id] >= self._share(place.client_id, most, held):
            return False
        place.is_aside = True
        held[place.client_id] += 1
        self._leave(place.client_id)
        return True

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
        places = self._pace.places
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
        retry_after_s = min(_RETRY_AFTER_S + waiting // self._pace.places, _MAX_RETRY_AFTER_S)
        return Unavailable(retry_after_s, "Too many submissions at once")


class Pace:
    """How many submissions at once this processor is equal to at the moment.

    The quarter of a processor that AWS gives by default, or one that others use as well, is equal to fewer than the
    setting allows: all would be late, and all be in vain. So their number grows while they are quick, and shrinks while
    they are slow and the event loop is late.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._least = min(most, _LEAST_PLACES)
        self._places = float(min(most, _FIRST_PLACES))

    @property
    def places(self) -> int:
        return int(self._places)

    def note(self, worked_s: float, *, lag_s: float, is_full: bool) -> None:
        """One has ended after so long; were all places taken?"""
        if worked_s > _SLOW_S and lag_s > _LATE_S:
            self._places = max(self._least, self._places * _SHRINKAGE)
        elif worked_s <= _SLOW_S and is_full:
            self._places = min(self._most, self._places + _GROWTH)


def share_of(places: int, *, others: int) -> int:
    """How many of the places one client may have beside others: one more client always finds as many."""
    return max(1, places // (others + 2))


def _take_one(counter: Counter[str], key: str) -> None:
    counter[key] -= 1
    if counter[key] <= 0:
        del counter[key]


def _is_granted(future: asyncio.Future[None]) -> bool:
    return future.done() and not future.cancelled()
