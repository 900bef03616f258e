"""The benchmarks' table is asked what an emulator is asked; where that is too generous, DynamoDB's manual counts."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from dataclasses import dataclass
from itertools import chain
from typing import Any

import pytest

from lib.asyncaws.attributes import deserialize_item, serialize_item
from lib.asyncaws.session import BACKGROUND, AwsSession
from lib.gputask.schema import STATUS_INDEX, definition
from tests.bench.conftest import Endpoint
from tests.conftest import REGION

_MOST_PAGES = 10
_numbers = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Asked:
    """A table behind a client of the SDK."""

    client: Any
    table: str

    async def put(self, task_id: str, created_at: float, **attributes: Any) -> None:
        item = {"task_id": task_id, "status": "pending", "created_at": created_at, **attributes}
        await self.client.put_item(TableName=self.table, Item=serialize_item(item))

    async def set(self, task_id: str, name: str, value: str | None) -> None:
        """None removes the attribute."""
        change: dict[str, Any] = {"UpdateExpression": "REMOVE #name"}
        if value is not None:
            change = {"UpdateExpression": "SET #name = :new", "ExpressionAttributeValues": {":new": {"S": value}}}
        key = {"task_id": {"S": task_id}}
        await self.client.update_item(TableName=self.table, Key=key, ExpressionAttributeNames={"#name": name}, **change)

    async def query(self, *, condition: str = "", **call: Any) -> dict[str, Any]:
        values = {":s": "pending", **call.pop("values", {})}
        answer: dict[str, Any] = await self.client.query(
            TableName=self.table,
            IndexName=STATUS_INDEX,
            KeyConditionExpression=f"#s = :s{condition}",
            ExpressionAttributeNames={"#s": "status"},
            ExpressionAttributeValues=serialize_item(values),
            **call,
        )
        return answer

    async def pages(self, **call: Any) -> list[list[str]]:
        """Ids by page, until nothing follows; a last page without any is left out."""
        pages: list[list[str]] = []
        place: dict[str, Any] = {}
        for _ in range(_MOST_PAGES):
            answer = await self.query(**call, **place)
            pages += [ids_in(answer)] if answer["Items"] else []
            if "LastEvaluatedKey" not in answer:
                return pages
            place = {"ExclusiveStartKey": answer["LastEvaluatedKey"]}
        raise AssertionError(f"no end: {pages}")


@pytest.fixture
async def bench(endpoint: Endpoint, session: AwsSession) -> Asked:
    return Asked(await session.dynamodb(BACKGROUND), "tasks")


@pytest.fixture(params=["bench", "emulator"])
async def asked(request: pytest.FixtureRequest, bench: Asked, aws_endpoint: str) -> AsyncIterator[Asked]:
    if request.param == "bench":
        yield bench
        return
    async with AwsSession(region=REGION, endpoint_url=aws_endpoint) as session:
        client = await session.dynamodb(BACKGROUND)
        name = f"paged-{next(_numbers)}"
        await client.create_table(TableName=name, **definition())
        yield Asked(client, name)


def ids_in(answer: dict[str, Any]) -> list[str]:
    return [item["task_id"]["S"] for item in answer["Items"]]


async def put_seven(asked: Asked) -> None:
    """`a` is the oldest, `g` the newest."""
    for task_id, created_at in zip("dbgface", (4, 2, 7, 6, 1, 3, 5), strict=True):
        await asked.put(task_id, created_at + 0.5)


async def test_pages_go_by_time_of_creation_from_either_end(asked: Asked) -> None:
    await put_seven(asked)
    assert await asked.pages(Limit=3) == [["a", "b", "c"], ["d", "e", "f"], ["g"]]
    assert await asked.pages(Limit=3, ScanIndexForward=False) == [["g", "f", "e"], ["d", "c", "b"], ["a"]]


@pytest.mark.parametrize(
    ("condition", "ids"),
    [("<= :at", "abcd"), ("< :at", "abc"), (">= :at", "defg"), ("> :at", "efg"), ("= :at", "d")],
)
async def test_a_range_holds_for_every_page(asked: Asked, condition: str, ids: str) -> None:
    await put_seven(asked)
    ranged: dict[str, Any] = {"condition": f" AND created_at {condition}", "values": {":at": 4.5}, "Limit": 2}
    assert [*chain(*await asked.pages(**ranged))] == list(ids)
    assert [*chain(*await asked.pages(**ranged, ScanIndexForward=False))] == list(reversed(ids))


async def test_a_page_begins_behind_an_item_that_has_gone_meanwhile(asked: Asked) -> None:
    await put_seven(asked)
    place = (await asked.query(Limit=3))["LastEvaluatedKey"]
    assert deserialize_item(place) == {"task_id": "c", "status": "pending", "created_at": 3.5}
    await asked.client.delete_item(TableName=asked.table, Key={"task_id": {"S": "c"}})
    assert ids_in(await asked.query(Limit=2, ExclusiveStartKey=place)) == ["d", "e"]
    assert ids_in(await asked.query(Limit=9, ExclusiveStartKey=place, ScanIndexForward=False)) == ["b", "a"]


async def test_an_item_without_a_time_of_creation_is_not_in_the_index(asked: Asked) -> None:
    await put_seven(asked)
    await asked.set("b", "created_at", None)
    assert await asked.pages() == [["a", "c", "d", "e", "f", "g"]]


async def test_the_index_shows_what_it_holds_and_of_it_what_was_asked_for(asked: Asked) -> None:
    await asked.put("a", 1.5, request_body="{}", attempt=2)
    known = {"task_id": "a", "status": "pending", "created_at": 1.5, "attempt": 2}
    assert [deserialize_item(item) for item in (await asked.query())["Items"]] == [known]
    some = await asked.query(ProjectionExpression="task_id, #s, claimed_at")
    assert [deserialize_item(item) for item in some["Items"]] == [{"task_id": "a", "status": "pending"}]


async def test_a_page_with_as_many_items_as_asked_for_tells_where_to_go_on_though_nothing_follows(
    bench: Asked,
) -> None:
    """https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Query.Pagination.html"""
    await put_seven(bench)
    whole = await bench.query(Limit=7)
    assert ids_in(await bench.query(ExclusiveStartKey=whole["LastEvaluatedKey"])) == []
    assert "LastEvaluatedKey" not in await bench.query(Limit=8)


async def test_a_page_ends_at_a_megabyte(bench: Asked) -> None:
    for number in range(7):
        await bench.put(str(number), number, comfy_job_id="x" * 300_000)
    assert await bench.pages() == [["0", "1", "2", "3"], ["4", "5", "6"]]


async def test_reads_are_counted_in_units(bench: Asked, endpoint: Endpoint) -> None:
    await bench.put("a", 1.5, request_body="x" * 5000)
    key = {"task_id": {"S": "a"}}
    await bench.client.get_item(TableName=bench.table, Key=key, ConsistentRead=True)
    await bench.client.get_item(TableName=bench.table, Key={"task_id": {"S": "absent"}}, ConsistentRead=True)
    assert endpoint.aws.usage["GetItem"].read_units == 2 + 1
    await bench.client.get_item(TableName=bench.table, Key=key)
    assert endpoint.aws.usage["GetItem"].read_units == 3 + 1
    keys = [key, {"task_id": {"S": "absent"}}]
    await bench.client.batch_get_item(RequestItems={bench.table: {"Keys": keys, "ConsistentRead": True}})
    assert endpoint.aws.usage["BatchGetItem"].read_units == 2 + 1


async def test_a_query_pays_for_the_index_entries_of_a_page_together(bench: Asked, endpoint: Endpoint) -> None:
    for number in range(10):
        await bench.put(str(number), number, worker="x" * 1000, request_body="x" * 100_000)
    await bench.query(ProjectionExpression="task_id")
    assert endpoint.aws.usage["Query"].read_units == 1.5  # 11 KB, eventually consistent
    assert endpoint.aws.usage["Query"].items == 10


@pytest.mark.parametrize(
    ("name", "value", "units"),
    [("request_id", "r", 3 + 0), ("worker", "w", 3 + 1), ("status", "other", 3 + 2), ("created_at", None, 3 + 1)],
)
async def test_a_write_is_paid_for_in_the_table_and_in_the_index(
    bench: Asked, endpoint: Endpoint, name: str, value: str | None, units: int
) -> None:
    await bench.put("a", 1.5, request_body="x" * 2500)
    assert endpoint.aws.usage["PutItem"].write_units == 3 + 1
    await bench.set("a", name, value)
    assert endpoint.aws.usage["UpdateItem"].write_units == units


async def test_a_write_whose_condition_fails_is_paid_for(bench: Asked, endpoint: Endpoint) -> None:
    await bench.put("a", 1.5, request_body="x" * 2500)
    with pytest.raises(bench.client.exceptions.ConditionalCheckFailedException):
        await bench.client.delete_item(
            TableName=bench.table,
            Key={"task_id": {"S": "a"}},
            ConditionExpression="attribute_not_exists(#id)",
            ExpressionAttributeNames={"#id": "task_id"},
        )
    assert endpoint.aws.usage["DeleteItem"].write_units == 3
