from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from lib.asyncaws.gathering import Gatherer


class Desk:
    """Answers when told to, and remembers how it was asked."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []
        self._answering = asyncio.Event()

    def open(self) -> None:
        self._answering.set()

    async def answer_all(self, questions: Sequence[str]) -> Sequence[str | Exception]:
        self.asked.append(list(questions))
        await self._answering.wait()
        return [ValueError(question) if question.startswith("bad") else question.upper() for question in questions]


async def until_all_wait() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def asks(gatherer: Gatherer[str, str], *questions: str) -> list[asyncio.Task[str]]:
    return [asyncio.create_task(gatherer.ask(question)) for question in questions]


async def test_while_few_calls_are_under_way_nobody_waits() -> None:
    desk = Desk()
    gatherer = Gatherer(desk.answer_all, most=10, calls=2)
    asking = asks(gatherer, "a", "b")
    await until_all_wait()
    assert desk.asked == [["a"], ["b"]]
    desk.open()
    assert await asyncio.gather(*asking) == ["A", "B"]


async def test_what_comes_meanwhile_goes_together_and_each_gets_its_own_answer() -> None:
    desk = Desk()
    gatherer = Gatherer(desk.answer_all, most=3, calls=1)
    asking = asks(gatherer, "a", "b", "c", "d", "e")
    await until_all_wait()
    assert desk.asked == [["a"]]
    desk.open()
    assert await asyncio.gather(*asking) == ["A", "B", "C", "D", "E"]
    assert desk.asked == [["a"], ["b", "c", "d"], ["e"]]


async def test_one_bad_question_spoils_no_other() -> None:
    desk = Desk()
    gatherer = Gatherer(desk.answer_all, most=3, calls=1)
    asking = asks(gatherer, "a", "b", "bad", "c")
    desk.open()
    results = await asyncio.gather(*asking, return_exceptions=True)
    assert [str(result) for result in results] == ["A", "B", "bad", "C"]
    assert isinstance(results[2], ValueError)


async def test_a_call_that_fails_fails_all_its_questions_and_the_next_one_goes_on() -> None:
    calls = 0

    async def fail_once(questions: Sequence[str]) -> Sequence[str | Exception]:
        nonlocal calls
        calls += 1
        await asyncio.sleep(0)
        if calls == 2:
            raise OSError("down")
        return list(questions)

    gatherer = Gatherer(fail_once, most=2, calls=1)
    results = await asyncio.gather(*asks(gatherer, "a", "b", "c", "d"), return_exceptions=True)
    assert [results[0], results[3]] == ["a", "d"]
    assert [str(result) for result in results[1:3]] == ["down", "down"]


async def test_who_has_gone_is_not_asked_for() -> None:
    desk = Desk()
    gatherer = Gatherer(desk.answer_all, most=10, calls=1)
    asking = asks(gatherer, "a", "b", "c")
    await until_all_wait()
    asking[1].cancel()
    await until_all_wait()
    desk.open()
    assert [await asking[0], await asking[2]] == ["A", "C"]
    assert desk.asked == [["a"], ["c"]]


async def test_who_goes_while_its_call_is_under_way_does_not_disturb_the_others() -> None:
    desk = Desk()
    gatherer = Gatherer(desk.answer_all, most=10, calls=1)
    asking = asks(gatherer, "a", "b", "c")
    await until_all_wait()
    asking[0].cancel()
    desk.open()
    assert await asyncio.gather(*asking[1:]) == ["B", "C"]
    with pytest.raises(asyncio.CancelledError):
        await asking[0]


async def test_a_call_that_nobody_waits_for_any_more_is_cancelled_and_makes_room() -> None:
    desk = Desk()
    gatherer = Gatherer(desk.answer_all, most=2, calls=1)
    asking = asks(gatherer, "a", "b", "c", "d")
    await until_all_wait()
    asking[0].cancel()
    await until_all_wait()
    assert desk.asked == [["a"], ["b", "c"]]
    asking[1].cancel()
    await until_all_wait()
    assert desk.asked == [["a"], ["b", "c"]]
    asking[2].cancel()
    await until_all_wait()
    assert desk.asked == [["a"], ["b", "c"], ["d"]]
    desk.open()
    assert await asking[3] == "D"


async def test_a_batch_is_no_larger_than_its_call_may_be_but_takes_one_in_any_case() -> None:
    desk = Desk()
    gatherer = Gatherer(desk.answer_all, most=10, size_bytes=len, most_bytes=5, calls=1)
    asking = asks(gatherer, "a", "bb", "ccc", "d", "too large alone", "e")
    desk.open()
    await asyncio.gather(*asking)
    assert desk.asked == [["a"], ["bb", "ccc"], ["d"], ["too large alone"], ["e"]]
