"""Read-only calls to AWS: each by the name of the permission it needs, and no others."""

from __future__ import annotations

import time
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from functools import cached_property
from typing import Any, Final

import boto3
from botocore import xform_name
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    NoCredentialsError,
    PartialCredentialsError,
    ProfileNotFound,
    SSOError,
)

ACTIONS: Final = (
    "sts:GetCallerIdentity",
    "dynamodb:DescribeTable",
    "dynamodb:DescribeTimeToLive",
    "dynamodb:DescribeContinuousBackups",
    "dynamodb:GetItem",
    "dynamodb:Query",
    "sqs:GetQueueAttributes",
    "cloudwatch:DescribeAlarms",
    "cloudwatch:GetMetricData",
    "lambda:GetFunctionConfiguration",
    "lambda:GetFunctionConcurrency",
    "lambda:GetPolicy",
    "events:ListRuleNamesByTarget",
    "events:DescribeRule",
    "ec2:DescribeInstances",
)
"""Every permission the doctor needs; AWS grants the first to everybody."""

_CALLS = Config(connect_timeout=5, read_timeout=10, retries={"mode": "standard", "total_max_attempts": 3})

_DENIED_CODES = frozenset({"AccessDenied", "AccessDeniedException", "AuthorizationError", "UnauthorizedOperation"})
_CREDENTIAL_CODES = frozenset(
    {
        "ExpiredToken",
        "ExpiredTokenException",
        "IncompleteSignature",
        "InvalidClientTokenId",
        "SignatureDoesNotMatch",
        "UnrecognizedClientException",
    }
)
_CREDENTIAL_ERRORS = (
    CredentialRetrievalError,
    NoCredentialsError,
    PartialCredentialsError,
    ProfileNotFound,
    SSOError,
)
_SIGN_IN = "set AWS_PROFILE, or sign in: aws sso login"

_ABSENT_CODES = frozenset(
    {
        "InvalidInstanceID.Malformed",
        "InvalidInstanceID.NotFound",
        "NonExistentQueue",
        "QueueDoesNotExist",
        "ResourceNotFoundException",
        "TableNotFoundException",
    }
)


class NotThereError(Exception):
    """AWS knows no such thing."""


class ReadError(Exception):
    """A read had no success.

    Attributes:
        fix: what to do so that the next one has.
    """

    def __init__(self, problem: str, *, fix: str) -> None:
        super().__init__(problem)
        self.fix = fix


class Reader:
    """Reads from one region and notes on the way how far this machine's clock is off.

    Attributes:
        skew_s: this clock minus AWS's, in seconds; None until an answer was dated.
    """

    def __init__(self, *, region: str, clock: Callable[[], float] = time.time) -> None:
        self._region = region
        self._clock = clock
        self._clients: dict[str, Any] = {}
        self._shortest_trip_s = float("inf")
        self.skew_s: float | None = None

    def now(self) -> float:
        """AWS's time: a wrong clock here must not make others look late."""
        return self._clock() - (self.skew_s or 0.0)

    def read(self, action: str, **parameters: Any) -> dict[str, Any]:
        """Call the operation that `action`, one of `ACTIONS`, permits.

        Raises:
            NotThereError: what is asked for does not exist.
            ReadError: denied, unreachable, throttled and so on, after the SDK's own tries.
        """
        if action not in ACTIONS:
            raise ValueError(f"{action} is none of ACTIONS")
        service, _, operation = action.partition(":")
        asked_at = self._clock()
        try:
            answer: dict[str, Any] = getattr(self._client(service), xform_name(operation))(**parameters)
        except ClientError as error:
            self._note_time(asked_at, error.response)
            raise _translate(action, error) from error
        except _CREDENTIAL_ERRORS as error:
            raise ReadError(str(error), fix=_SIGN_IN) from error
        except (BotoCoreError, ValueError) as error:  # an endpoint that is no URL is a ValueError
            raise ReadError(f"{action}: {error}", fix="check network, region and AWS_ENDPOINT_URL") from error
        self._note_time(asked_at, answer)
        return answer

    def close(self) -> None:
        """Close all connections."""
        for client in self._clients.values():
            client.close()

    @cached_property
    def _session(self) -> boto3.Session:
        """Made at the first read, which says what is wrong with a profile; one, so that people sign in once."""
        return boto3.Session(region_name=self._region)

    def _client(self, service: Any) -> Any:
        if service not in self._clients:
            self._clients[service] = self._session.client(service, config=_CALLS)
        return self._clients[service]

    def _note_time(self, asked_at: float, answer: Any) -> None:
        """The Date header has whole seconds, and was written somewhere between question and answer."""
        answered_at = self._clock()
        stamp = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date")
        trip_s = answered_at - asked_at
        if stamp is None or trip_s >= self._shortest_trip_s:
            return
        self._shortest_trip_s = trip_s
        self.skew_s = (asked_at + answered_at) / 2 - (parsedate_to_datetime(stamp).timestamp() + 0.5)


def _translate(action: str, error: ClientError) -> Exception:
    details = error.response.get("Error", {})
    code = details.get("Code", "Unknown").rpartition("SimpleQueueService.")[2]
    if code in _ABSENT_CODES:
        return NotThereError(details.get("Message", code))
    problem = f"{action}: {code}: {details.get('Message', '')}".rstrip(": ")
    if code in _DENIED_CODES:
        return ReadError(problem, fix=f"allow {action} to whoever runs the doctor")
    if code in _CREDENTIAL_CODES:
        return ReadError(problem, fix=_SIGN_IN)
    return ReadError(problem, fix="run the doctor again; if it stays, AWS's message says why")
