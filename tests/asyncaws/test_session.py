"""What a call makes of an AWS that throttles, breaks, lies or says nothing."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

from lib.asyncaws.conditions import Missing
from lib.asyncaws.errors import ConditionFailed, PermanentAwsError, TransientAwsError
from lib.asyncaws.instance import Instance
from lib.asyncaws.queue import Queue
from lib.asyncaws.session import BACKGROUND, CONTROL, HEARTBEAT, REQUEST, AwsSession, CallPolicy, long_poll
from lib.asyncaws.table import Table
from tests.asyncaws.unreliable import DENIED, THROTTLED, UNAVAILABLE, Fate, Refusal, UnreliableAws, unreliable_aws
from tests.conftest import REGION

# Generous in total, so that only what a test is about can end a call.
ONCE = CallPolicy(total_s=60.0, read_timeout_s=30.0)
THRICE = CallPolicy(total_s=60.0, read_timeout_s=30.0, attempts=3)

PASSING = [
    THROTTLED,
    UNAVAILABLE,
    Refusal(400, "ProvisionedThroughputExceededException"),
    Refusal(500, "InternalServerError"),
    Fate.SAID_TO_BE_A_WEB_PAGE,
    Fate.HALF_ANSWERED,
    Fate.RESET,
]


def name_of(fate: object) -> str:
    return fate.code if isinstance(fate, Refusal) else str(fate)


@pytest.fixture
async def unreliable(aws_endpoint: str) -> AsyncIterator[UnreliableAws]:
    async with unreliable_aws(aws_endpoint) as server:
        yield server


@pytest.fixture
async def session(aws: AwsSession, unreliable: UnreliableAws) -> AsyncIterator[AwsSession]:
    async with AwsSession(region=REGION, endpoint_url=unreliable.url) as session:
        yield session


@pytest.fixture
async def open_table(session: AwsSession, task_table: str) -> Callable[[CallPolicy], Awaitable[Table]]:
    async def open_one(policy: CallPolicy) -> Table:
        return Table(await session.dynamodb(policy), name=task_table, key="task_id", policy=policy)

    return open_one


OpenTable = Callable[[CallPolicy], Awaitable[Table]]


@pytest.mark.parametrize("fate", PASSING, ids=name_of)
async def test_a_passing_trouble_is_retried(unreliable: UnreliableAws, open_table: OpenTable, fate: Fate) -> None:
    table = await open_table(THRICE)
    await table.put({"task_id": "a", "n": 1})
    unreliable.fates += [fate, fate]
    assert await table.get("a") == {"task_id": "a", "n": 1}
    assert unreliable.calls == ["PutItem", "GetItem", "GetItem", "GetItem"]


@pytest.mark.parametrize("fate", PASSING, ids=name_of)
async def test_a_trouble_that_stays_is_transient(unreliable: UnreliableAws, open_table: OpenTable, fate: Fate) -> None:
    table = await open_table(THRICE)
    unreliable.otherwise = fate
    with pytest.raises(TransientAwsError):
        await table.get("a")
    assert unreliable.calls == ["GetItem"] * 3


async def test_a_refusal_is_permanent_and_not_repeated(unreliable: UnreliableAws, open_table: OpenTable) -> None:
    table = await open_table(THRICE)
    unreliable.fates.append(DENIED)
    with pytest.raises(PermanentAwsError) as failure:
        await table.get("a")
    assert (failure.value.operation, failure.value.code) == ("GetItem", "AccessDeniedException")
    assert unreliable.calls == ["GetItem"]


async def test_a_lost_condition_is_not_repeated(unreliable: UnreliableAws, open_table: OpenTable) -> None:
    table = await open_table(THRICE)
    await table.put({"task_id": "a"})
    with pytest.raises(ConditionFailed):
        await table.put({"task_id": "a"}, Missing("task_id"))
    assert unreliable.calls == ["PutItem", "PutItem"]


async def test_without_further_attempts_nobody_repeats(unreliable: UnreliableAws, open_table: OpenTable) -> None:
    """The SDK's own retries are off, or the request path would wait for its seconds."""
    table = await open_table(ONCE)
    unreliable.fates.append(UNAVAILABLE)
    with pytest.raises(TransientAwsError):
        await table.get("a")
    assert unreliable.calls == ["GetItem"]


async def test_background_work_is_repeated_by_the_sdk(unreliable: UnreliableAws, open_table: OpenTable) -> None:
    table = await open_table(CallPolicy(total_s=60.0, read_timeout_s=30.0, sdk_attempts=2))
    unreliable.fates.append(THROTTLED)
    assert await table.get("a") is None
    assert unreliable.calls == ["GetItem", "GetItem"]


async def test_a_hanging_call_ends_with_its_policy(unreliable: UnreliableAws, open_table: OpenTable) -> None:
    """The server never answers, and one attempt might wait for a minute: that the call ends at all is the proof."""
    table = await open_table(CallPolicy(total_s=0.2, read_timeout_s=60.0, attempts=3))
    unreliable.otherwise = Fate.LEFT_HANGING
    with pytest.raises(TransientAwsError, match=r"no answer within 0\.2 s") as failure:
        await table.get("a")
    assert failure.value.code == "Timeout"
    assert len(unreliable.calls) <= 1


async def test_endless_retries_end_with_their_policy(unreliable: UnreliableAws, open_table: OpenTable) -> None:
    table = await open_table(CallPolicy(total_s=0.5, read_timeout_s=60.0, attempts=1_000_000))
    unreliable.otherwise = THROTTLED
    with pytest.raises(TransientAwsError) as failure:
        await table.get("a")
    assert failure.value.code == "Timeout"


async def test_a_silent_attempt_is_given_up_and_repeated(unreliable: UnreliableAws, open_table: OpenTable) -> None:
    """More attempts than it should need: the emulator, too, may be silent for a moment on a busy machine."""
    table = await open_table(CallPolicy(total_s=60.0, read_timeout_s=0.3, attempts=10))
    unreliable.fates.append(Fate.LEFT_HANGING)
    assert await table.get("a") is None
    assert unreliable.hanging.is_set()
    assert len(unreliable.calls) >= 2


async def test_a_cancelled_call_is_cancelled(unreliable: UnreliableAws, open_table: OpenTable) -> None:
    table = await open_table(THRICE)
    unreliable.otherwise = Fate.LEFT_HANGING
    call = asyncio.create_task(table.get("a"))
    await unreliable.hanging.wait()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert unreliable.calls == ["GetItem"]


@pytest.mark.parametrize(
    "fate", [Fate.SAID_TO_BE_A_WEB_PAGE, Fate.HALF_ANSWERED, Fate.DONE_BUT_NOT_ANSWERED, Fate.RESET], ids=name_of
)
async def test_no_success_is_invented(
    unreliable: UnreliableAws, session: AwsSession, open_table: OpenTable, task_queue: str, fate: Fate
) -> None:
    table = await open_table(ONCE)
    queue = Queue(await session.sqs(ONCE), url=task_queue, policy=ONCE)
    instance = Instance(await session.ec2(ONCE), "i-00000000000000000", ONCE)
    unreliable.otherwise = fate
    calls: list[Awaitable[object]] = [
        table.get("a"),
        table.put({"task_id": "a"}),
        table.delete("a", Missing("nothing")),
        queue.check(),
        queue.send("hello", {}),
        queue.receive(limit=1, wait_s=0),
        queue.delete("handle"),
        queue.set_visibility("handle", 0),
        instance.state(),
        instance.start(),
    ]
    for call in calls:
        with pytest.raises(TransientAwsError):
            await call
    assert len(unreliable.calls) == len(calls)


async def test_an_endpoint_where_nobody_listens_is_transient(aws_environment: None) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, but not listening: refuses, and nobody else can take it meanwhile
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        async with AwsSession(region=REGION, endpoint_url=url) as session:
            table = Table(await session.dynamodb(ONCE), name="any", key="task_id", policy=ONCE)
            with pytest.raises(TransientAwsError) as failure:
                await table.check()
    assert failure.value.code == "EndpointConnectionError"


async def test_the_endpoint_of_the_environment_is_honoured(
    aws: AwsSession, unreliable: UnreliableAws, task_table: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", unreliable.url)
    async with AwsSession(region=REGION) as session:
        await Table(await session.dynamodb(ONCE), name=task_table, key="task_id", policy=ONCE).check()
    assert unreliable.calls == ["GetItem"]


@pytest.mark.parametrize("policy", [REQUEST, BACKGROUND, HEARTBEAT, CONTROL, long_poll(20)])
def test_retries_are_made_in_one_place_only(policy: CallPolicy) -> None:
    assert min(policy.attempts, policy.sdk_attempts) == 1


def test_a_long_poll_may_be_silent_for_its_wait() -> None:
    """SQS answers an empty poll after the wait; only well after it may the connection count as dead."""
    policy = long_poll(20)
    assert policy.read_timeout_s == 30.0
    assert policy.total_s > policy.read_timeout_s
    assert (policy.attempts, policy.sdk_attempts) == (1, 1)


def test_a_call_of_the_request_path_ends_within_the_promised_second() -> None:
    assert REQUEST.total_s < 1.0
    assert REQUEST.attempts > 1


class MetadataService:
    """Says who the instance is, as IMDSv2 does; the first answers may be odd."""

    def __init__(self, *first: str) -> None:
        self._first = list(first)
        self.tokens = 0

    async def token(self, _request: web.Request) -> web.Response:
        self.tokens += 1
        match self._first.pop(0) if self._first else "well":
            case "slow":
                await asyncio.sleep(30)
            case "refuses":
                return web.Response(status=403)
            case "garbage":
                return web.Response(text="\N{SNOWMAN}" * 20)
        return web.Response(text="a-token")

    async def role(self, request: web.Request) -> web.Response:
        if request.headers.get("X-aws-ec2-metadata-token") != "a-token":
            return web.Response(status=401)
        return web.Response(text="a-role")

    async def credentials(self, _request: web.Request) -> web.Response:
        members = {
            "AccessKeyId": "key",
            "SecretAccessKey": "secret",
            "Token": "t",
            "Expiration": "2099-01-01T00:00:00Z",
        }
        return web.json_response({"Code": "Success", **members})


@asynccontextmanager
async def metadata_service(monkeypatch: pytest.MonkeyPatch, *first: str) -> AsyncIterator[MetadataService]:
    service = MetadataService(*first)
    app = web.Application()
    path = "/latest/meta-data/iam/security-credentials/"
    app.add_routes(
        [
            web.put("/latest/api/token", service.token),
            web.get(path, service.role),
            web.get(f"{path}a-role", service.credentials),
        ]
    )
    runner = web.AppRunner(app, shutdown_timeout=0)
    await runner.setup()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        await web.SockSite(runner, listener).start()
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.delenv(name)
        address = f"http://127.0.0.1:{listener.getsockname()[1]}"
        monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", address)
        monkeypatch.setenv("AWS_METADATA_SERVICE_TIMEOUT", "1")
        monkeypatch.setenv("AWS_METADATA_SERVICE_NUM_ATTEMPTS", "1")
        yield service
        await runner.cleanup()


@pytest.mark.parametrize(
    "first",
    ["", "slow", "slow slow slow slow", "refuses refuses", "garbage slow"],
)
async def test_a_process_gets_its_credentials_however_the_metadata_service_begins(
    aws_environment: None, monkeypatch: pytest.MonkeyPatch, first: str
) -> None:
    async with metadata_service(monkeypatch, *first.split()) as service, AwsSession(region=REGION) as session:
        looked = service.tokens
        assert looked == len(first.split()) + 1
        clients: list[Any] = [await session.dynamodb(REQUEST), await session.sqs(BACKGROUND)]
        for client in clients:
            assert (await client._request_signer._credentials.get_frozen_credentials()).access_key == "key"
        assert service.tokens == looked  # one credential object, for all clients


async def test_without_credentials_a_process_says_so_and_does_not_start(
    aws_environment: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with metadata_service(monkeypatch, *["refuses"] * 100):
        with pytest.raises(TransientAwsError, match="NoCredentials: no credentials within"):
            async with AwsSession(region=REGION, patience_s=0.5):
                pass
