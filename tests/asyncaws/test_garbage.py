"""What something between us and AWS may answer is "does not answer", never an exception of another kind."""

from __future__ import annotations

import asyncio
import inspect
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from aiohttp import web

from lib.asyncaws.cloudwatch import CloudWatch
from lib.asyncaws.conditions import Change, Missing
from lib.asyncaws.errors import AwsError, TransientAwsError
from lib.asyncaws.instance import Instance, own_instance_id
from lib.asyncaws.queue import Queue
from lib.asyncaws.session import AwsSession, CallPolicy
from lib.asyncaws.table import Table
from tests.conftest import REGION

ONCE = CallPolicy(total_s=30.0, read_timeout_s=25.0)


@dataclass(frozen=True, slots=True)
class Clients:
    table: Table
    queue: Queue
    instance: Instance
    metrics: CloudWatch


async def all_of(items: AsyncIterator[Any]) -> list[Any]:
    return [item async for item in items]


async def batch(ask: Callable[[str], Awaitable[Any]]) -> Any:
    """So many at once that some share a call."""
    return await asyncio.gather(*(ask(str(number)) for number in range(8)))


CALLS: dict[str, Callable[[Clients], Awaitable[Any]]] = {
    "Table.check": lambda our: our.table.check(),
    "Table.get": lambda our: our.table.get("a"),
    "Table.get, many": lambda our: batch(our.table.get),
    "Table.put": lambda our: our.table.put({"task_id": "a"}),
    "Table.update": lambda our: our.table.update("a", Change(condition=None, assign={"n": 1})),
    "Table.delete": lambda our: our.table.delete("a", Missing("n")),
    "Table.query": lambda our: all_of(our.table.query("index", attribute="status", value="pending")),
    "Queue.check": lambda our: our.queue.check(),
    "Queue.depth": lambda our: our.queue.depth(),
    "Queue.send": lambda our: our.queue.send("a", {}),
    "Queue.send, many": lambda our: batch(lambda text: our.queue.send(text, {})),
    "Queue.receive": lambda our: our.queue.receive(limit=1, wait_s=0),
    "Queue.delete": lambda our: our.queue.delete("handle"),
    "Queue.delete, many": lambda our: batch(our.queue.delete),
    "Queue.set_visibility": lambda our: our.queue.set_visibility("handle", 0),
    "Instance.state": lambda our: our.instance.state(),
    "Instance.start": lambda our: our.instance.start(),
    "CloudWatch.publish": lambda our: our.metrics.publish([]),
}
# They want nothing of the answer but that it is one.
WITHOUT_NEED = {
    *("Table.check", "Table.put", "Table.delete", "Queue.check", "Queue.delete", "Queue.set_visibility"),
    *("Instance.start", "CloudWatch.publish"),
}

NO_OBJECTS = ["[]", "null", "7", '"text"', "[[]]", "<html>", ""]
ODD_MEMBERS = [
    {"Item": 5, "Items": 5, "Attributes": 5, "Messages": 5, "MessageId": None, "Responses": 5, "Failed": 5},
    {"Item": {}, "Items": [{}], "Attributes": {}, "Messages": [{}], "Responses": {"tasks": [{}]}, "Failed": [{}]},
    {
        "Item": {"task_id": {"N": "1"}, "n": {"N": "x"}},
        "Items": [{"task_id": {"S": "a"}, "n": {}}],
        "Attributes": {"task_id": {"S": "a"}, "n": {"N": "x"}, "ApproximateNumberOfMessages": "many"},
        "Messages": [{"MessageId": "m", "ReceiptHandle": "r", "Body": "", "MessageAttributes": 5}],
        "Responses": {"tasks": [{"task_id": {"N": "x"}}]},
        "Successful": [5],
    },
]
BODIES = [*NO_OBJECTS, *map(json.dumps, ODD_MEMBERS)]


@asynccontextmanager
async def clients_of(body: str) -> AsyncIterator[Clients]:
    """Of a server that answers this to everything, as AWS would: with a 200 and a number."""

    async def answer(request: web.Request) -> web.Response:
        kind = "application/x-amz-json-1.0" if "X-Amz-Target" in request.headers else "text/xml"
        return web.Response(text=body, content_type=kind, headers={"x-amzn-RequestId": "r-1"})

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        url = "http://{}:{}".format(*runner.addresses[0][:2])
        async with AwsSession(region=REGION, endpoint_url=url) as session:
            yield Clients(
                Table(await session.dynamodb(ONCE), name="tasks", key="task_id", policy=ONCE),
                Queue(await session.sqs(ONCE), url=f"{url}/1/tasks", policy=ONCE),
                Instance(await session.ec2(ONCE), "i-00000000000000000", ONCE),
                CloudWatch(await session.cloudwatch(ONCE), namespace="n", policy=ONCE),
            )
    finally:
        await runner.cleanup()


def test_each_method_that_asks_aws_is_tried() -> None:
    methods = {
        f"{kind.__name__}.{name}"
        for kind in (Table, Queue, Instance, CloudWatch)
        for name, method in inspect.getmembers(kind, inspect.isroutine)
        if not name.startswith("_") and (inspect.iscoroutinefunction(method) or inspect.isasyncgenfunction(method))
    }
    assert methods == {name.partition(",")[0] for name in CALLS}


async def outcomes(body: str, names: Iterable[str]) -> dict[str, type[AwsError] | None]:
    """What each call raises; None: nothing."""
    raised: dict[str, type[AwsError] | None] = {}
    async with clients_of(body) as ours:
        for name in names:
            try:
                await CALLS[name](ours)
                raised[name] = None
            except AwsError as error:
                raised[name] = type(error)
    return raised


@pytest.mark.parametrize("body", BODIES)
async def test_whatever_is_answered_no_other_kind_of_error_comes_of_it(aws_environment: None, body: str) -> None:
    assert set((await outcomes(body, CALLS)).values()) <= {None, TransientAwsError}


@pytest.mark.parametrize("body", [json.dumps(members) for members in ODD_MEMBERS])
async def test_nothing_is_read_from_garbage(aws_environment: None, body: str) -> None:
    names = CALLS.keys() - WITHOUT_NEED
    assert await outcomes(body, names) == dict.fromkeys(names, TransientAwsError)


async def test_an_instance_in_a_state_that_we_do_not_know_does_not_answer(aws_environment: None) -> None:
    item = "<item><instanceId>i-1</instanceId><instanceState><code>7</code><name>resting</name></instanceState></item>"
    body = f"<R><reservationSet><item><instancesSet>{item}</instancesSet></item></reservationSet></R>"
    async with clients_of(body.replace("<R>", "<R><requestId>r-1</requestId>")) as ours:
        with pytest.raises(TransientAwsError, match="Garbled"):
            await ours.instance.state()


@pytest.mark.parametrize("text", ["<html>", "\N{SNOWMAN}"])
async def test_what_is_no_instance_id_is_not_taken_for_one(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    async def answer(_request: web.Request) -> web.Response:
        return web.Response(text=text)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        url = "http://{}:{}".format(*runner.addresses[0][:2])
        monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", url)
        with pytest.raises(TransientAwsError):
            await own_instance_id()
    finally:
        await runner.cleanup()
