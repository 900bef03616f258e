from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from services.orchestrator.admission import Admission, AdmissionLimits, Pace, Place, share_of
from services.orchestrator.errors import Unavailable
from services.orchestrator.lag import LoopLag

FOREVER_S = 600.0


def admission_of(places: int, *, is_shared: bool = False, **limits: float) -> Admission:
    waits = {"patience_s": 0.0, "hold_s": 0.0} | limits
    return Admission(AdmissionLimits(places=places, is_shared=is_shared, **waits))


@asynccontextmanager
async def holding(admission: Admission, client_id: str, number: int) -> AsyncIterator[list[Place]]:
    async with AsyncExitStack() as places:
        yield [await places.enter_async_context(admission.place(client_id)) for _ in range(number)]


async def is_refused(admission: Admission, client_id: str) -> bool:
    try:
        async with admission.place(client_id):
            return False
    except Unavailable:
        return True


async def test_beyond_the_places_all_are_refused_and_a_place_that_is_left_is_free() -> None:
    admission = admission_of(2)
    async with holding(admission, "a", 2):
        assert await is_refused(admission, "a")
    assert not await is_refused(admission, "a")


async def test_one_client_leaves_another_its_share_however_many_it_sends() -> None:
    admission = admission_of(8, is_shared=True)
    async with holding(admission, "a", 4):
        assert await is_refused(admission, "a")
        async with holding(admission, "b", 2):
            assert await is_refused(admission, "b")
            assert not await is_refused(admission, "c")


async def test_where_there_is_one_client_it_has_all_places() -> None:
    admission = admission_of(8)
    async with holding(admission, "a", 8):
        assert await is_refused(admission, "a")


async def test_who_waits_gets_the_place_that_becomes_free() -> None:
    admission = admission_of(1, patience_s=FOREVER_S)
    async with holding(admission, "a", 1):
        waiting = [asyncio.create_task(is_refused(admission, "a")) for _ in range(3)]
        await asyncio.sleep(0)
        assert not any(task.done() for task in waiting)
    assert await asyncio.gather(*waiting) == [False, False, False]
    assert not await is_refused(admission, "a")


async def test_the_client_that_holds_least_is_let_in_first() -> None:
    admission = admission_of(12, is_shared=True, patience_s=FOREVER_S)
    order = []

    async def enter(client_id: str) -> None:
        async with admission.place(client_id):
            order.append(client_id)

    async with AsyncExitStack() as held:
        for client_id in ("a",) * 6 + ("b",) * 4 + ("c",) * 2:
            await held.enter_async_context(admission.place(client_id))
        waiting = [asyncio.create_task(enter(client_id)) for client_id in ("c", "d")]
        await asyncio.sleep(0)
    await asyncio.gather(*waiting)
    assert order == ["d", "c"]


async def test_who_goes_away_while_it_waits_takes_no_place_along() -> None:
    admission = admission_of(1, patience_s=FOREVER_S)
    async with holding(admission, "a", 1):
        waiting = [asyncio.create_task(is_refused(admission, "a")) for _ in range(2)]
        await asyncio.sleep(0)
        waiting[0].cancel()
    # The place is granted to the second, which is cancelled before it can take it.
    waiting[1].cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    assert not await is_refused(admission, "a")


async def test_a_refusal_says_to_come_back_later_the_more_wait() -> None:
    admission = admission_of(1, patience_s=0.001, hold_s=0.001)

    async def retry_after_s() -> int:
        with pytest.raises(Unavailable) as refused:
            async with admission.place("a"):
                pass
        return refused.value.retry_after_s

    async with holding(admission, "a", 1):
        answers = await asyncio.gather(*(retry_after_s() for _ in range(50)))
    assert (answers[0], answers[3], answers[-1]) == (1, 4, 30)


async def test_a_body_that_comes_slowly_gives_its_place_to_others() -> None:
    admission = admission_of(1, patience_s=FOREVER_S)
    async with admission.place("a") as slow:
        async with slow.reading(upload_s=0.001):
            assert not await is_refused(admission, "a")
        # Now it is one of those in work again.
        waiting = asyncio.create_task(is_refused(admission, "a"))
        await asyncio.sleep(0)
        assert not waiting.done()
    assert not await waiting
    assert not await is_refused(admission, "a")


async def test_a_body_that_is_there_keeps_its_place() -> None:
    admission = admission_of(1)
    async with admission.place("a") as place:
        async with place.reading(upload_s=FOREVER_S):
            pass
        assert not place.is_aside
        assert await is_refused(admission, "a")


async def test_so_many_slow_bodies_and_no_more_are_taken_beside_the_places() -> None:
    admission = admission_of(1)
    async with AsyncExitStack() as held:
        for _ in range(4):
            assert admission.step_aside(await held.enter_async_context(admission.place("a")))
        fifth = await held.enter_async_context(admission.place("a"))
        with pytest.raises(Unavailable, match="slow uploads"):
            async with fifth.reading(upload_s=0.001):
                await asyncio.Event().wait()
    assert not await is_refused(admission, "a")


async def test_slow_bodies_of_one_client_leave_another_its_share() -> None:
    admission = admission_of(2, is_shared=True)
    async with AsyncExitStack() as held:
        for expected in (True, True, True, True, False):
            assert admission.step_aside(await held.enter_async_context(admission.place("a"))) is expected
            await asyncio.sleep(0)
            if not expected:
                break
        assert admission.step_aside(await held.enter_async_context(admission.place("b")))


def pace_of(most: int, *, ended: int, worked_s: float, lag_s: float, is_full: bool = True) -> Pace:
    pace = Pace(most)
    for _ in range(1000):
        pace.note(0.01, lag_s=0.0, is_full=True)
    for _ in range(ended):
        pace.note(worked_s, lag_s=lag_s, is_full=is_full)
    return pace


def test_places_grow_while_submissions_are_quick() -> None:
    assert Pace(128).places == 16
    assert pace_of(128, ended=0, worked_s=0, lag_s=0).places == 128


@pytest.mark.parametrize(("most", "least"), [(128, 4), (2, 2)])
def test_a_late_loop_with_slow_submissions_lets_fewer_in(most: int, least: int) -> None:
    assert pace_of(most, ended=1000, worked_s=0.5, lag_s=0.1).places == least


def test_a_slow_aws_does_not_mean_too_many_at_once() -> None:
    assert pace_of(128, ended=1000, worked_s=0.6, lag_s=0.0).places == 128


def test_places_that_nobody_asked_for_do_not_grow() -> None:
    pace = Pace(128)
    for _ in range(1000):
        pace.note(0.01, lag_s=0.0, is_full=False)
    assert pace.places == 16


@pytest.mark.parametrize(("others", "share"), [(0, 64), (1, 42), (2, 32), (1000, 1)])
def test_a_share_leaves_one_more_client_as_much(others: int, share: int) -> None:
    assert share_of(128, others=others) == share


def test_a_worse_lag_is_remembered_for_a_while() -> None:
    lag = LoopLag()
    lag.note(1.0)
    lag.note(0.0)
    assert 0.5 < lag.seconds < 1.0
    for _ in range(50):
        lag.note(0.0)
    assert lag.seconds < 0.001


async def test_the_lag_of_a_loop_that_was_blocked_is_seen() -> None:
    lag, stop = LoopLag(), asyncio.Event()
    measuring = asyncio.create_task(lag.run(stop))
    while lag.seconds < 0.005:
        asyncio.get_running_loop().call_soon(_block)
        await asyncio.sleep(0)
    stop.set()
    await measuring


def _block() -> None:
    """Keep the loop from everything else, as a costly request does."""
    sum(range(2_000_000))
