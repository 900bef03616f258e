"""One EC2 instance, and how an instance learns who it is."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import aiohttp

from lib.asyncaws.errors import PermanentAwsError, TransientAwsError
from lib.asyncaws.session import CallPolicy, call

if TYPE_CHECKING:
    from types_aiobotocore_ec2 import EC2Client

_METADATA_URL = "http://169.254.169.254"
_METADATA_TIMEOUT_S = 5.0
_METADATA_TRIES = 5
_INSTANCE_ID = re.compile(r"i-[0-9a-f]{8,17}")


class InstanceState(StrEnum):
    """https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/ec2-instance-lifecycle.html"""

    PENDING = "pending"
    RUNNING = "running"
    STOPPING = "stopping"
    STOPPED = "stopped"
    SHUTTING_DOWN = "shutting-down"
    TERMINATED = "terminated"


@dataclass(frozen=True, slots=True)
class Instance:
    """Describe and start one instance. Both raise the errors of `lib.asyncaws.errors`."""

    client: EC2Client
    id: str
    policy: CallPolicy

    async def state(self) -> InstanceState:
        """Its state, as far as EC2's eventually consistent Describe knows.

        Raises:
            PermanentAwsError: there is no such instance.
        """
        return await call(
            "DescribeInstances",
            lambda: self.client.describe_instances(InstanceIds=[self.id]),
            self.policy,
            read=self._state,
        )

    async def start(self) -> None:
        """Order the start; idempotent while pending or running.

        Raises:
            TransientAwsError: no capacity, throttled, or still stopping (`IncorrectInstanceState`).
        """
        await call("StartInstances", lambda: self.client.start_instances(InstanceIds=[self.id]), self.policy)

    def _state(self, answer: Mapping[str, Any]) -> InstanceState:
        for reservation in answer["Reservations"]:
            for described in reservation.get("Instances", []):
                return InstanceState(described["State"]["Name"])
        raise PermanentAwsError("DescribeInstances", "InvalidInstanceID.NotFound", self.id)


async def own_instance_id() -> str:
    """The id of the instance this process runs on, from IMDSv2.

    At boot the service may answer late, hence five patient tries. The endpoint follows
    ``AWS_EC2_METADATA_SERVICE_ENDPOINT`` as in the SDKs.

    Raises:
        TransientAwsError: nothing answers; most likely this is no EC2 instance.
    """
    url = os.environ.get("AWS_EC2_METADATA_SERVICE_ENDPOINT", _METADATA_URL).rstrip("/")
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=_METADATA_TIMEOUT_S, sock_read=_METADATA_TIMEOUT_S)
    failure: Exception | None = None
    async with aiohttp.ClientSession(timeout=timeout, raise_for_status=True) as session:
        for attempt in range(_METADATA_TRIES):
            if attempt:
                await asyncio.sleep(0.1 * 2**attempt)
            try:
                token_request = {"X-aws-ec2-metadata-token-ttl-seconds": "60"}
                async with session.put(f"{url}/latest/api/token", headers=token_request) as answer:
                    token = await answer.text()
                headers = {"X-aws-ec2-metadata-token": token}
                async with session.get(f"{url}/latest/meta-data/instance-id", headers=headers) as answer:
                    return _checked_id(await answer.text())
            except (aiohttp.ClientError, TimeoutError, ValueError) as error:
                failure = error
    raise TransientAwsError("InstanceMetadata", type(failure).__name__, str(failure)) from failure


def _checked_id(text: str) -> str:
    if not _INSTANCE_ID.fullmatch(text):
        raise ValueError(f"no instance id: {text[:40]!r}")
    return text
