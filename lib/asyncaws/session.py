"""Clients for AWS: opened once per process, with limits that fit their use."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from inspect import isawaitable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar, overload

import structlog
from aiobotocore.config import AioConfig
from aiobotocore.credentials import AioRefreshableCredentials
from aiobotocore.session import AioSession, get_session
from botocore.exceptions import CredentialRetrievalError

from lib.asyncaws.errors import TransientAwsError, translate

if TYPE_CHECKING:
    from types_aiobotocore_cloudwatch import CloudWatchClient
    from types_aiobotocore_dynamodb import DynamoDBClient
    from types_aiobotocore_ec2 import EC2Client
    from types_aiobotocore_sqs import SQSClient

T = TypeVar("T", bound=Mapping[str, object])
A = TypeVar("A")

# Building the default User-Agent is 15 % of the CPU of a PutItem; a fixed one is sent as it is.
_USER_AGENT = "gpu-on-demand"
_CONNECT_TIMEOUT_S = 2.0
_POOL_SIZE = 64
# AWS closes idle connections after 20 s; stay well below, or a request meets a closing socket.
_KEEPALIVE_S = 12.0
_FIRST_BACKOFF_S = 0.02
_MAX_BACKOFF_S = 0.1
# Below TimeoutStartSec= of the units, so that it is the process which says what is missing.
_CREDENTIALS_PATIENCE_S = 40.0
_MAX_CREDENTIALS_PAUSE_S = 2.0

log = structlog.stdlib.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class CallPolicy:
    """How long a call may take and who repeats it.

    Either the SDK retries (`sdk_attempts` > 1: background work, up to seconds between tries) or `call` does
    (`attempts` > 1: the request path, milliseconds between tries), never both.

    Attributes:
        total_s: bound of the whole call with all its retries; aiobotocore itself has none.
        read_timeout_s: bound of one attempt's silence.
        sdk_attempts: attempts the SDK makes in its `standard` mode.
        attempts: attempts `call` makes.
    """

    total_s: float
    read_timeout_s: float
    sdk_attempts: int = 1
    attempts: int = 1


# POST and GET promise an answer within a second. Many short tries, so that of calls that fail one time in five none in
# ten thousand fails for good.
REQUEST = CallPolicy(total_s=0.9, read_timeout_s=0.4, attempts=7)
# Waker, janitor, the worker's records: nobody waits, so the SDK's patient retries are right.
BACKGROUND = CallPolicy(total_s=30.0, read_timeout_s=8.0, sdk_attempts=5)
# A renewal that comes late is worth nothing: several quick tries, well below a third of the visibility timeout.
HEARTBEAT = CallPolicy(total_s=15.0, read_timeout_s=4.0, sdk_attempts=3)
# EC2 is slow and throttled per account; the waker repeats by itself.
CONTROL = CallPolicy(total_s=20.0, read_timeout_s=10.0, sdk_attempts=2)
# Metrics that are not published now go with the next; the last ones must not hold up the end of a process.
METERING = CallPolicy(total_s=5.0, read_timeout_s=4.0)


def long_poll(wait_s: int) -> CallPolicy:
    """A receive that may rightly stay silent for `wait_s` seconds: 10 s more before the connection counts as dead."""
    return CallPolicy(total_s=wait_s + 15.0, read_timeout_s=wait_s + 10.0, sdk_attempts=1)


def _whole(answer: T) -> T:
    return answer


@overload
async def call(operation: str, request: Callable[[], Awaitable[T]], policy: CallPolicy) -> T: ...


@overload
async def call(
    operation: str, request: Callable[[], Awaitable[T]], policy: CallPolicy, *, read: Callable[[T], A]
) -> A: ...


async def call(
    operation: str, request: Callable[[], Awaitable[Any]], policy: CallPolicy, *, read: Callable[[Any], Any] = _whole
) -> Any:
    """One AWS operation within its policy.

    Args:
        read: takes from the answer what is wanted. Where it fails, the answer was none of AWS's.

    Raises:
        TransientAwsError: throttled, unreachable, too slow, short of capacity or garbled, after all retries.
        PermanentAwsError: refused for good.
        ConditionFailed, ReceiptLost: as named.
    """
    attempt = 0
    try:
        async with asyncio.timeout(policy.total_s):
            while True:
                attempt += 1
                try:
                    return read(_genuine(operation, await request()))
                except Exception as error:  # the border to the SDK: `translate` has a name for each
                    failure = translate(operation, error)
                    if attempt >= policy.attempts or not isinstance(failure, TransientAwsError):
                        raise failure from error
                await asyncio.sleep(_backoff_s(attempt))
    except TimeoutError as error:
        raise TransientAwsError(operation, "Timeout", f"no answer within {policy.total_s:g} s") from error


def _backoff_s(attempt: int) -> float:
    """Full jitter, from 0 on: https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/.

    Half of the waits are shorter than with jitter round a fixed pause, and tries of many requests spread as widely.
    """
    return random.uniform(0.0, min(_FIRST_BACKOFF_S * 2.0 ** (attempt - 1), _MAX_BACKOFF_S))  # noqa: S311  jitter


def _genuine(operation: str, answer: T) -> T:
    """botocore reads any text that comes with a 200 as an answer without members: a write done, an item absent.

    AWS numbers each of its answers; what has no number came from something in between.
    """
    metadata: Any = answer["ResponseMetadata"]
    if "RequestId" not in metadata:
        raise TransientAwsError(operation, "NotFromAws", "an answer without a request id")
    return answer


async def _has_credentials(session: AioSession) -> bool:
    """Whether there are some that could sign a call now; the session keeps them for its clients."""
    credentials: Any = await session.get_credentials()
    if credentials is None:
        return False
    if isinstance(credentials, AioRefreshableCredentials):
        _judge_renewals(credentials)
    await credentials.get_frozen_credentials()
    return True


def _judge_renewals(credentials: Any) -> None:
    """Have a renewal fail that brings nothing.

    botocore goes on with credentials that are good for some minutes yet if their renewal fails. But an empty answer, as
    its fetcher gives for a metadata service that is slow or refuses, it takes for new credentials, and the call fails;
    and with an end of life in no time zone they could never be used or renewed again.
    """
    fetch = credentials._refresh_using  # noqa: SLF001  the SDK has no other seam for it

    async def fetch_good() -> Any:
        found = fetch()
        if isawaitable(found):
            found = await found
        if not found or credentials._expiry_datetime(found["expiry_time"]).tzinfo is None:  # noqa: SLF001
            raise CredentialRetrievalError(provider=credentials.method, error_msg="no answer that could be used")
        return found

    credentials._refresh_using = fetch_good  # noqa: SLF001


class AwsSession:
    """Opens clients and closes them all at exit. Creating the first one blocks the loop 80-190 ms: do it at start.

    All clients share one credential object, which is proven at the entry. botocore looks for credentials once per
    client and keeps what it found: a client made while the metadata service is slow would never get any.

    Args:
        patience_s: how long credentials are waited for. At boot the metadata service may answer late.

    Raises:
        TransientAwsError: at the entry; there are no credentials.
    """

    def __init__(
        self, *, region: str, endpoint_url: str | None = None, patience_s: float = _CREDENTIALS_PATIENCE_S
    ) -> None:
        self._session = get_session()
        self._patience_s = patience_s
        self._region = region
        self._endpoint_url = endpoint_url
        self._clients = AsyncExitStack()

    async def __aenter__(self) -> Self:
        await self._find_credentials()
        return self

    async def _find_credentials(self) -> None:
        failure: Exception | None = None
        attempt = 0
        try:
            async with asyncio.timeout(self._patience_s):
                while True:
                    attempt += 1
                    try:
                        if await _has_credentials(self._session):
                            return
                    except Exception as error:  # an odd answer is an error of any class, say a time without a zone
                        failure = error
                    log.warning("credentials.not_found", attempt=attempt, error=repr(failure) if failure else None)
                    await asyncio.sleep(min(0.1 * 2.0**attempt, _MAX_CREDENTIALS_PAUSE_S))
                    self._session = get_session()  # the last one keeps what it found, also if that is of no use
        except TimeoutError:
            text = f"no credentials within {self._patience_s:g} s"
            raise TransientAwsError("Credentials", "NoCredentials", text) from failure

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._clients.aclose()

    async def dynamodb(self, policy: CallPolicy) -> DynamoDBClient:
        client: DynamoDBClient = await self._open("dynamodb", policy)
        return client

    async def sqs(self, policy: CallPolicy) -> SQSClient:
        client: SQSClient = await self._open("sqs", policy)
        return client

    async def ec2(self, policy: CallPolicy) -> EC2Client:
        client: EC2Client = await self._open("ec2", policy)
        return client

    async def cloudwatch(self, policy: CallPolicy) -> CloudWatchClient:
        client: CloudWatchClient = await self._open("cloudwatch", policy)
        return client

    async def _open(self, service: Any, policy: CallPolicy) -> Any:
        config = AioConfig(
            connect_timeout=min(_CONNECT_TIMEOUT_S, policy.read_timeout_s),
            read_timeout=policy.read_timeout_s,
            max_pool_connections=_POOL_SIZE,
            retries={"mode": "standard", "total_max_attempts": policy.sdk_attempts},
            parameter_validation=False,
            user_agent=_USER_AGENT,
            connector_args={"keepalive_timeout": _KEEPALIVE_S},
        )
        client = self._session.create_client(
            service, region_name=self._region, endpoint_url=self._endpoint_url, config=config
        )
        return await self._clients.enter_async_context(client)
