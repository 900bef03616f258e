"""What a call makes of an AWS that throttles, breaks, lies or says nothing."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from lib.asyncaws.conditions import Missing
from lib.asyncaws.errors import ConditionFailed, PermanentAwsError, TransientAwsError
from lib.asyncaws.instance import Instance
from lib.asyncaws.queue import Queue
from lib.asyncaws.session import BACKGROUND, CONTROL, HEARTBEAT, REQUEST, AwsSession, CallPolicy, long_poll
from lib.asyncaws.table import Table
from tests.asyncaws.metadata_service import BEGINNINGS, REFUSES, MetadataService, in_minutes, metadata_service
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


@pytest.fixture
def on_an_instance(aws_environment: None, monkeypatch: pytest.MonkeyPatch) -> Callable[[MetadataService], None]:
    """Has this process get its credentials from a metadata service."""

    def be(service: MetadataService) -> None:
        for name, text in service.environment.items():
            monkeypatch.delenv(name, raising=False)
            if text is not None:
                monkeypatch.setenv(name, text)

    return be


BeOnAnInstance = Callable[[MetadataService], None]


def credentials_of(client: Any) -> Any:
    return client._request_signer._credentials


async def key_of(client: Any) -> str:
    key: str = (await credentials_of(client).get_frozen_credentials()).access_key
    return key


@pytest.mark.parametrize("first", ["", *BEGINNINGS])
async def test_a_process_gets_its_credentials_however_the_metadata_service_begins(
    on_an_instance: BeOnAnInstance, first: str
) -> None:
    async with metadata_service(*first.split()) as service:
        on_an_instance(service)
        async with AwsSession(region=REGION) as session:
            looked = service.tokens
            assert looked == len(first.split()) + 1
            for client in (await session.dynamodb(REQUEST), await session.sqs(BACKGROUND)):
                assert await key_of(client) == "key-1"
            assert service.tokens == looked  # one credential object, for all clients


@pytest.mark.parametrize("odd", ["soon", "", None, 5, [], "2099-01-01T00:00:00", "2001-01-01T00:00:00+00:00"], ids=repr)
async def test_credentials_that_end_at_an_odd_time_are_asked_for_again(
    on_an_instance: BeOnAnInstance, odd: Any
) -> None:
    """Among them a time without a zone, which no credentials that have it recover from."""
    async with metadata_service(expirations=[odd]) as service:
        on_an_instance(service)
        async with AwsSession(region=REGION) as session:
            assert await key_of(await session.dynamodb(REQUEST)) == "key-2"


async def test_credentials_are_renewed_in_mid_life_and_a_metadata_service_that_comes_back_is_enough(
    on_an_instance: BeOnAnInstance, aws_endpoint: str, aws: AwsSession, task_table: str
) -> None:
    async with metadata_service(expirations=[in_minutes(60)]) as service:
        on_an_instance(service)
        async with AwsSession(region=REGION, endpoint_url=aws_endpoint) as session:
            client = await session.dynamodb(ONCE)
            table = Table(client, name=task_table, key="task_id", policy=ONCE)
            credentials = credentials_of(client)
            started_at = datetime.now(UTC)
            service.then = REFUSES

            credentials._time_fetcher = lambda: started_at + timedelta(minutes=47)  # 13 are left: time enough
            assert await table.get("a") is None
            assert service.tokens > 1
            assert await key_of(client) == "key-1"

            credentials._time_fetcher = lambda: started_at + timedelta(minutes=52)  # 8 are left: none of it
            with pytest.raises(TransientAwsError) as failure:
                await table.get("a")
            assert failure.value.code == "CredentialRetrievalError"

            service.then = "well"
            service.expirations.append("2099-01-01T00:00:00")  # in no time zone
            with pytest.raises(TransientAwsError):
                await table.get("a")
            assert await table.get("a") is None
            assert await key_of(client) == "key-3"


async def test_without_credentials_a_process_says_so_and_does_not_start(on_an_instance: BeOnAnInstance) -> None:
    async with metadata_service(*[REFUSES] * 100) as service:
        on_an_instance(service)
        with pytest.raises(TransientAwsError, match="NoCredentials: no credentials within"):
            async with AwsSession(region=REGION, patience_s=0.5):
                pass
