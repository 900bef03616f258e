from __future__ import annotations

import asyncio
from typing import Any

import pytest

from lib.asyncaws.conditions import AtMost, Change, Equals, Missing
from lib.asyncaws.errors import ConditionFailed, PermanentAwsError, TransientAwsError
from lib.asyncaws.session import BACKGROUND, AwsSession, CallPolicy
from lib.asyncaws.table import Table
from tests.asyncaws.unreliable import THROTTLED, Abridged, Fate, unreliable_aws
from tests.conftest import REGION

pytestmark = pytest.mark.emulators("moto", "ministack")

INDEX = "status-created_at-index"


@pytest.fixture
async def table(aws: AwsSession, task_table: str) -> Table:
    return Table(await aws.dynamodb(BACKGROUND), name=task_table, key="task_id", policy=BACKGROUND)


async def pending_since(table: Table, **kwargs: Any) -> list[float]:
    return [item["created_at"] async for item in table.query(INDEX, attribute="status", value="pending", **kwargs)]


async def test_what_is_put_is_got(table: Table) -> None:
    item = {"task_id": "a", "at": 1_700_000_000.125, "text": "ä 😀", "deep": {"list": [1, True, "x"]}, "empty": ""}
    await table.put(item)
    assert await table.get("a") == item


async def test_what_is_not_there_is_none(table: Table) -> None:
    assert await table.get("a") is None


async def test_a_read_is_consistent(aws_endpoint: str, aws_environment: None, task_table: str) -> None:
    """The emulator is always consistent, so the request itself is looked at: AWS's default is the other way."""
    async with unreliable_aws(aws_endpoint) as wire, AwsSession(region=REGION, endpoint_url=wire.url) as session:
        table = Table(await session.dynamodb(BACKGROUND), name=task_table, key="task_id", policy=BACKGROUND)
        await table.get("a")
        assert wire.bodies[-1]["ConsistentRead"] is True


async def test_many_reads_at_once_share_calls(aws_endpoint: str, aws_environment: None, task_table: str) -> None:
    async with unreliable_aws(aws_endpoint) as wire, AwsSession(region=REGION, endpoint_url=wire.url) as session:
        table = Table(await session.dynamodb(BACKGROUND), name=task_table, key="task_id", policy=BACKGROUND)
        for number in range(20):
            await table.put({"task_id": str(number), "n": number})
        wire.calls.clear()
        keys = [*map(str, range(20)), "7", "absent", "7"]
        items = await asyncio.gather(*map(table.get, keys))
        assert [item and item["n"] for item in items] == [*range(20), 7, None, 7]
        assert wire.calls == ["GetItem"] * 4 + ["BatchGetItem"]
        assert wire.bodies[-1]["RequestItems"][task_table]["ConsistentRead"] is True


async def test_what_a_shared_read_left_out_is_read_by_the_next_try(
    aws_endpoint: str, aws_environment: None, task_table: str
) -> None:
    """An answer holds 16 MB; a hundred records may have more."""
    async with unreliable_aws(aws_endpoint) as wire, AwsSession(region=REGION, endpoint_url=wire.url) as session:
        thrice = CallPolicy(total_s=60.0, read_timeout_s=30.0, attempts=3)
        table = Table(await session.dynamodb(thrice), name=task_table, key="task_id", policy=thrice)
        for number in range(20):
            await table.put({"task_id": str(number), "n": number})
        wire.fates.extend([*[Fate.FORWARDED] * 4, Abridged(5), Abridged(10)])
        items = await asyncio.gather(*map(table.get, map(str, range(20))))
        assert [item and item["n"] for item in items] == list(range(20))
        assert not wire.fates


async def test_a_shared_read_that_fails_fails_all_who_share_it(
    aws_endpoint: str, aws_environment: None, task_table: str
) -> None:
    async with unreliable_aws(aws_endpoint) as wire, AwsSession(region=REGION, endpoint_url=wire.url) as session:
        once = CallPolicy(total_s=60.0, read_timeout_s=30.0)
        table = Table(await session.dynamodb(once), name=task_table, key="task_id", policy=once)
        wire.fates.extend([*[Fate.FORWARDED] * 4, THROTTLED])
        answers = await asyncio.gather(*map(table.get, map(str, range(9))), return_exceptions=True)
        assert answers[:4] == [None] * 4
        assert [type(answer) for answer in answers[4:]] == [TransientAwsError] * 5
        assert await table.get("0") is None


async def test_a_put_without_a_condition_replaces(table: Table) -> None:
    await table.put({"task_id": "a", "n": 1, "old": True})
    await table.put({"task_id": "a", "n": 2})
    assert await table.get("a") == {"task_id": "a", "n": 2}


async def test_a_put_that_loses_carries_the_item_that_won(table: Table) -> None:
    await table.put({"task_id": "a", "n": 1, "at": 0.5})
    with pytest.raises(ConditionFailed) as failure:
        await table.put({"task_id": "a", "n": 2}, Missing("task_id"))
    assert failure.value.item == {"task_id": "a", "n": 1, "at": 0.5}
    assert await table.get("a") == {"task_id": "a", "n": 1, "at": 0.5}


async def test_a_put_that_loses_against_nothing_carries_nothing(table: Table) -> None:
    with pytest.raises(ConditionFailed) as failure:
        await table.put({"task_id": "a"}, Equals("n", 1))
    assert failure.value.item is None


async def test_an_update_returns_the_item_as_it_is_then(table: Table) -> None:
    await table.put({"task_id": "a", "n": 1, "gone": "soon"})
    change = Change(condition=Equals("n", 1), assign={"new": [1], "gone": None}, add={"n": 2, "counted": 1})
    assert await table.update("a", change) == {"task_id": "a", "n": 3, "counted": 1, "new": [1]}


async def test_an_update_whose_condition_needs_no_value(table: Table) -> None:
    change = Change(condition=Missing("held"), assign={"gone": None})
    assert await table.update("a", change) == {"task_id": "a"}


async def test_an_update_that_loses_carries_the_item_that_is_there(table: Table) -> None:
    await table.put({"task_id": "a", "n": 1})
    with pytest.raises(ConditionFailed) as failure:
        await table.update("a", Change(condition=AtMost("n", 0), assign={"n": 5}))
    assert failure.value.item == {"task_id": "a", "n": 1}


async def test_an_update_of_nothing_carries_nothing(table: Table) -> None:
    with pytest.raises(ConditionFailed) as failure:
        await table.update("a", Change(condition=Equals("n", 1), assign={"n": 5}))
    assert failure.value.item is None
    assert await table.get("a") is None


async def test_a_delete_whose_condition_holds_deletes(table: Table) -> None:
    await table.put({"task_id": "a", "n": 1})
    await table.delete("a", Equals("n", 1))
    assert await table.get("a") is None


async def test_a_delete_that_loses_leaves_the_item(table: Table) -> None:
    await table.put({"task_id": "a", "n": 1})
    with pytest.raises(ConditionFailed) as failure:
        await table.delete("a", Equals("n", 2))
    assert failure.value.item == {"task_id": "a", "n": 1}
    assert await table.get("a") == {"task_id": "a", "n": 1}


async def test_a_query_yields_one_partition_oldest_first(table: Table) -> None:
    for at in (3, 1.5, 2):
        await table.put({"task_id": f"t{at}", "status": "pending", "created_at": at})
    await table.put({"task_id": "done", "status": "completed", "created_at": 1})
    await table.put({"task_id": "worker#i-1", "beat_at": 1})
    assert await pending_since(table) == [1.5, 2, 3]


async def test_a_query_of_nothing_is_empty(table: Table) -> None:
    assert await pending_since(table) == []


async def test_a_query_stops_at_its_limit(table: Table) -> None:
    for at in range(5):
        await table.put({"task_id": f"t{at}", "status": "pending", "created_at": at})
    assert await pending_since(table, limit=2) == [0, 1]


async def test_a_query_reads_all_pages(table: Table) -> None:
    """A page ends at 1 MB: https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_Query.html."""
    for at in range(8):
        item = {"task_id": f"t{at}", "status": "pending", "created_at": at, "job_type": "x" * 300_000}
        await table.put(item)
    assert await pending_since(table) == list(range(8))


async def test_a_query_begins_where_it_is_told_even_if_nothing_is_there_any_more(table: Table) -> None:
    for at in (1, 2.5, 3, 4):
        await table.put({"task_id": f"t{at}", "status": "pending", "created_at": at})
    assert await pending_since(table, after={"status": "pending", "created_at": 2.5, "task_id": "t2.5"}) == [3, 4]
    await table.delete("t2.5", Missing("nothing"))
    assert await pending_since(table, after={"status": "pending", "created_at": 2.5, "task_id": "t2.5"}) == [3, 4]


async def test_a_query_goes_over_pages_up_to_its_limit(table: Table) -> None:
    for at in range(8):
        item = {"task_id": f"t{at}", "status": "pending", "created_at": at, "job_type": "x" * 300_000}
        await table.put(item)
    assert await pending_since(table, limit=5) == [0, 1, 2, 3, 4]


async def test_an_index_yields_what_it_projects(table: Table) -> None:
    await table.put({"task_id": "a", "status": "pending", "created_at": 1, "attempt": 2, "request_body": "{}"})
    items = [item async for item in table.query(INDEX, attribute="status", value="pending")]
    assert items == [{"task_id": "a", "status": "pending", "created_at": 1, "attempt": 2}]


async def test_a_table_that_can_be_read_passes_its_check(table: Table) -> None:
    await table.check()


async def test_a_table_that_is_not_there_fails_its_check(aws: AwsSession) -> None:
    table = Table(await aws.dynamodb(BACKGROUND), name="nowhere", key="task_id", policy=BACKGROUND)
    with pytest.raises(PermanentAwsError) as failure:
        await table.check()
    assert failure.value.code == "ResourceNotFoundException"
