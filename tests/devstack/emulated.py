"""An emulator process and ways to talk to it, for tests that are not asynchronous."""

import json
import os
import select
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from botocore.config import Config

from services.devstack import leash
from services.devstack.resources import aws_session
from services.devstack.surroundings import surroundings

if TYPE_CHECKING:
    from types_boto3_dynamodb import DynamoDBClient
    from types_boto3_ec2 import EC2Client
    from types_boto3_s3 import S3Client
    from types_boto3_sqs import SQSClient

PENDING_S = 1.0
POWER_CUT_S = 1.5

_START_LIMIT_S = 60
# One attempt, so that each ordered failure is seen; more connections than threads in any test.
_CALLS = Config(proxies={}, retries={"total_max_attempts": 1}, read_timeout=20, max_pool_connections=20)


class Emulated:
    """Emulated AWS. Names are new each time, because the process is shared by the tests of one worker."""

    def __init__(self, endpoint_url: str) -> None:
        self.endpoint_url = endpoint_url

    @cached_property
    def dynamodb(self) -> "DynamoDBClient":
        client: DynamoDBClient = aws_session().client("dynamodb", endpoint_url=self.endpoint_url, config=_CALLS)
        return client

    @cached_property
    def sqs(self) -> "SQSClient":
        client: SQSClient = aws_session().client("sqs", endpoint_url=self.endpoint_url, config=_CALLS)
        return client

    @cached_property
    def ec2(self) -> "EC2Client":
        client: EC2Client = aws_session().client("ec2", endpoint_url=self.endpoint_url, config=_CALLS)
        return client

    @cached_property
    def s3(self) -> "S3Client":
        client: S3Client = aws_session().client("s3", endpoint_url=self.endpoint_url, config=_CALLS)
        return client

    def ask(self, method: str, path: str, body: object = None) -> Any:
        """Ask a control path; the JSON answer, whatever its status."""
        request = urllib.request.Request(f"{self.endpoint_url}{path}", method=method)
        request.data = None if body is None else json.dumps(body).encode()
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as refusal:
            with refusal:
                return {"status": refusal.code, **json.load(refusal)}

    def order(self, **fault: object) -> None:
        """Order a failure."""
        answer = self.ask("POST", "/devstack/faults", fault)
        assert isinstance(answer, list), answer

    def attempted(self, service: str, action: str) -> int:
        """How often an action was asked for so far."""
        count: int = self.ask("GET", "/devstack/calls")["attempted"].get(service, {}).get(action, 0)
        return count

    def new_table(self) -> str:
        name = f"table-{uuid.uuid4()}"
        self.dynamodb.create_table(
            TableName=name,
            BillingMode="PAY_PER_REQUEST",
            AttributeDefinitions=[{"AttributeName": "task_id", "AttributeType": "S"}],
            KeySchema=[{"AttributeName": "task_id", "KeyType": "HASH"}],
        )
        return name

    def new_queue(self, **attributes: str) -> str:
        return self.sqs.create_queue(QueueName=f"queue-{uuid.uuid4()}", Attributes=attributes)["QueueUrl"]  # type: ignore[arg-type]

    def new_stopped_instance(self) -> str:
        reservation = self.ec2.run_instances(ImageId="ami-1234abcd", MinCount=1, MaxCount=1)
        instance_id = reservation["Instances"][0]["InstanceId"]
        self.ask("POST", f"/devstack/instances/{instance_id}/rest")
        return instance_id

    def state(self, instance_id: str) -> str:
        """The state DescribeInstances shows."""
        described = self.ec2.describe_instances(InstanceIds=[instance_id])
        return described["Reservations"][0]["Instances"][0]["State"]["Name"]

    def wait_for(self, instance_id: str, state: str) -> dict[str, Any]:
        """The instance's view once it is in `state`."""
        view: dict[str, Any] = self.ask("GET", f"/devstack/instances/{instance_id}")
        while view["state"] != state:
            after = view["version"]
            view = self.ask("GET", f"/devstack/instances/{instance_id}?after={after}&wait_s=10")
            assert view["version"] > after, f"still {view['state']} after 10 s"
        return view


@contextmanager
def emulator_process(log_path: Path) -> Iterator[tuple[Emulated, "subprocess.Popen[bytes]"]]:
    """An emulator of its own on a port it chose."""
    command = [sys.executable, leash.__file__, str(os.getpid()), sys.executable, "-m", "services.devstack.emulator"]
    options = [f"--pending-s={PENDING_S}", f"--power-cut-s={POWER_CUT_S}"]
    with log_path.open("wb") as log:
        process = subprocess.Popen(
            [*command, *options], env=surroundings("http://unused"), stdout=subprocess.PIPE, stderr=log
        )
    with process:
        try:
            yield Emulated(_announced_url(process)), process
        finally:
            process.terminate()


def _announced_url(process: "subprocess.Popen[bytes]") -> str:
    assert process.stdout is not None
    assert select.select([process.stdout], [], [], _START_LIMIT_S)[0], "the emulator said nothing"
    return process.stdout.readline().decode().strip()


def poll_until(condition: Callable[[], bool], *, limit_s: float, every_s: float = 0.02) -> None:
    """Wait for a condition that nothing announces."""
    give_up_at_s = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < give_up_at_s, f"not within {limit_s} s"
        time.sleep(every_s)
