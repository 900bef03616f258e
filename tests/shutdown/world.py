"""A small AWS over HTTP: moto behind a gateway that can refuse a call, or let something happen just before it."""

import http.client
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import parse_qs, urlsplit
from uuid import uuid4

import boto3
from moto.ec2 import ec2_backends

from services.shutdown.outage import TAG

_MOST_PUTS = 25  # https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_BatchWriteItem.html

if TYPE_CHECKING:
    from types_boto3_dynamodb import DynamoDBClient
    from types_boto3_ec2 import EC2Client
    from types_boto3_sqs import SQSClient

REGION = "us-east-1"
ACCOUNT = "123456789012"


class Gateway(ThreadingHTTPServer):
    """Forwards to moto. ``refusals`` maps an action to an EC2 error code, ``before`` to what happens first, once."""

    daemon_threads = True

    def __init__(self, backend: str) -> None:
        super().__init__(("127.0.0.1", 0), _Forwarder)
        self.backend = backend
        self.refusals: dict[str, str] = {}
        self.before: dict[str, Callable[[], object]] = {}
        self.requests: list[tuple[str, bytes]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    @property
    def calls(self) -> list[str]:
        """Every action that was called, in order."""
        return [action for action, _ in self.requests]

    def sent(self, action: str) -> list[Any]:
        """The parameters of each call of an action whose protocol is JSON."""
        return [json.loads(body) for called, body in self.requests if called == action]


class _Forwarder(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        gateway = cast("Gateway", self.server)
        body = self.rfile.read(int(self.headers["Content-Length"]))
        action = _action(self.headers.get("X-Amz-Target"), body)
        gateway.requests.append((action, body))
        gateway.before.pop(action, lambda: None)()
        if code := gateway.refusals.get(action):
            self._answer(400, [("Content-Type", "text/xml")], _ec2_error(code))
        else:
            self._forward(gateway.backend, body)

    def _forward(self, backend: str, body: bytes) -> None:
        connection = http.client.HTTPConnection(urlsplit(backend).netloc)
        try:
            connection.request("POST", self.path, body, dict(self.headers))
            answer = connection.getresponse()
            kept = [
                (name, text)
                for name, text in answer.getheaders()
                if name.lower() not in {"content-length", "connection"}
            ]
            self._answer(answer.status, kept, answer.read())
        finally:
            connection.close()

    def _answer(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        self.send_response_only(status)
        for name, text in headers:
            self.send_header(name, text)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)


def _action(target: str | None, body: bytes) -> str:
    return target.rpartition(".")[2] if target else parse_qs(body.decode())["Action"][0]


def _ec2_error(code: str) -> bytes:
    return (
        f"<Response><Errors><Error><Code>{code}</Code><Message>refused</Message></Error></Errors></Response>".encode()
    )


@contextmanager
def gateway_to(backend: str) -> Iterator[Gateway]:
    """A gateway that serves until the block ends."""
    gateway = Gateway(backend)
    thread = threading.Thread(target=gateway.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield gateway
    finally:
        gateway.shutdown()
        thread.join()
        gateway.server_close()


@dataclass
class World:
    """A table, a queue and a running instance of its own, and ways to say what happened how many minutes ago."""

    gateway: Gateway
    ec2: "EC2Client"
    dynamodb: "DynamoDBClient"
    sqs: "SQSClient"
    sns: Any
    instance_id: str
    table: str
    queue_url: str
    born_at: float = field(default_factory=time.time)

    def environ(self) -> dict[str, str]:
        """What the Lambda is deployed with."""
        return {
            "AWS_REGION": REGION,
            "AWS_ENDPOINT_URL": self.gateway.url,
            "GPU_INSTANCE_ID": self.instance_id,
            "DYNAMODB_TABLE": self.table,
            "SQS_QUEUE_URL": self.queue_url,
        }

    def ago(self, minutes: float) -> float:
        return round(self.born_at - 60 * minutes, 3)

    def launched(self, minutes: float) -> None:
        """moto keeps one launch time for ever; EC2 renews it at each start."""
        instance = ec2_backends[ACCOUNT][REGION].get_instance(self.instance_id)
        instance.launch_time = datetime.fromtimestamp(self.ago(minutes), UTC).replace(tzinfo=None)

    def stopping(self, minutes: float) -> None:
        """It was told to stop, and still does."""
        instance = ec2_backends[ACCOUNT][REGION].get_instance(self.instance_id)
        instance.instance_state.name, instance.instance_state.code = "stopping", 64
        since = datetime.fromtimestamp(self.ago(minutes), UTC)
        instance._reason = f"User initiated ({since:%Y-%m-%d %H:%M:%S} GMT)"

    def state(self) -> str:
        answer = self.ec2.describe_instances(InstanceIds=[self.instance_id])
        return answer["Reservations"][0]["Instances"][0]["State"]["Name"]

    def forces(self) -> int:
        """How often force was asked for."""
        calls = [parse_qs(body.decode()) for action, body in self.gateway.requests if action == "StopInstances"]
        return sum(call.get("Force") == ["true"] for call in calls)

    def put(self, task_id: str, **attributes: float | str) -> None:
        self.dynamodb.put_item(TableName=self.table, Item=_item(task_id, attributes))

    def put_all(self, records: Mapping[str, Mapping[str, Any]]) -> None:
        """Many at once, as their attributes by id."""
        requests: list[Any] = [{"PutRequest": {"Item": _item(*record)}} for record in records.items()]
        for first in range(0, len(requests), _MOST_PUTS):
            self.dynamodb.batch_write_item(RequestItems={self.table: requests[first : first + _MOST_PUTS]})

    def pending(self, created: float, task_id: str | None = None, **more: float | str) -> str:
        task_id = task_id or uuid4().hex
        self.put(task_id, status="pending", created_at=self.ago(created), **more)
        return task_id

    def processing(self, created: float, claimed: float, *, lease: float = -3, **more: float | str) -> str:
        task_id = uuid4().hex
        times = {"created_at": self.ago(created), "claimed_at": self.ago(claimed), "lease_until": self.ago(lease)}
        self.put(task_id, status="processing", **({"attempt": 1} | times | more))
        return task_id

    def finished(self, created: float, claimed: float, status: str = "completed") -> None:
        self.put(uuid4().hex, status=status, created_at=self.ago(created), claimed_at=self.ago(claimed))

    def worker(self, beat: float = 0.1, *, claim: float | None = None, **more: float) -> None:
        more |= {} if claim is None else {"last_claim_at": self.ago(claim)}
        self.put(f"worker#{self.instance_id}", beat_at=self.ago(beat), upstream_ok_at=self.ago(beat), **more)

    def put_hold(self, count: int, put: float) -> None:
        times = {"hold_until": self.ago(put) + 900, "updated_at": self.ago(put)}
        self.put(f"instance#{self.instance_id}", hold_count=count, hold_reason="no worker", **times)

    def record(self, task_id: str) -> dict[str, Any] | None:
        """A record as plain values, or None."""
        item: Any = self.dynamodb.get_item(TableName=self.table, Key={"task_id": {"S": task_id}}).get("Item")
        return item and {name: float(v["N"]) if "N" in v else v["S"] for name, v in item.items()}

    def hold(self) -> dict[str, Any] | None:
        return self.record(f"instance#{self.instance_id}")

    def note_unreadable(self, since: float) -> None:
        tag: Any = {"Key": TAG, "Value": f"{self.ago(since):.0f}"}
        self.ec2.create_tags(Resources=[self.instance_id], Tags=[tag])

    def unreadable_since(self) -> float | None:
        """What the tag says; None without one."""
        filters: Any = [{"Name": "resource-id", "Values": [self.instance_id]}, {"Name": "key", "Values": [TAG]}]
        tags = self.ec2.describe_tags(Filters=filters)["Tags"]
        return float(tags[0]["Value"]) if tags else None

    def subscribe(self) -> tuple[str, str]:
        """An alert topic, and the queue its alerts arrive in: topic ARN and queue URL."""
        topic_arn: str = self.sns.create_topic(Name=f"alerts-{uuid4().hex}")["TopicArn"]
        inbox = self.sqs.create_queue(QueueName=f"inbox-{uuid4().hex}")["QueueUrl"]
        arn = self.sqs.get_queue_attributes(QueueUrl=inbox, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
        self.sns.subscribe(TopicArn=topic_arn, Protocol="sqs", Endpoint=arn)
        return topic_arn, inbox

    def messages(self, queue_url: str) -> list[dict[str, Any]]:
        received = self.sqs.receive_message(QueueUrl=queue_url, MaxNumberOfMessages=10).get("Messages", [])
        return [json.loads(message["Body"]) for message in received]


@contextmanager
def clients_of(backend: str) -> Iterator[dict[str, Any]]:
    """Clients that go past the gateway."""
    session = boto3.Session(aws_access_key_id="test", aws_secret_access_key="test", region_name=REGION)
    services = ("ec2", "dynamodb", "sqs", "sns")
    clients = {name: session.client(name, endpoint_url=backend) for name in services}
    yield clients
    for client in clients.values():
        client.close()


def new_world(gateway: Gateway, clients: dict[str, Any]) -> World:
    """Everything the Lambda needs: launched two hours ago, and idle since."""
    world = World(
        gateway=gateway,
        **clients,
        instance_id=_launch(clients["ec2"]),
        table=_create_table(clients["dynamodb"]),
        queue_url=clients["sqs"].create_queue(QueueName=f"tasks-{uuid4().hex}")["QueueUrl"],
    )
    world.launched(120)
    return world


def _launch(ec2: "EC2Client") -> str:
    answer = ec2.run_instances(ImageId="ami-12c6146b", MinCount=1, MaxCount=1, InstanceType="g6e.2xlarge")
    return answer["Instances"][0]["InstanceId"]


def _create_table(dynamodb: "DynamoDBClient") -> str:
    name = f"tasks-{uuid4().hex}"
    dynamodb.create_table(
        TableName=name,
        BillingMode="PAY_PER_REQUEST",
        KeySchema=[{"AttributeName": "task_id", "KeyType": "HASH"}],
        AttributeDefinitions=[
            {"AttributeName": "task_id", "AttributeType": "S"},
            {"AttributeName": "status", "AttributeType": "S"},
            {"AttributeName": "created_at", "AttributeType": "N"},
        ],
        GlobalSecondaryIndexes=[
            {
                "IndexName": "status-created_at-index",
                "KeySchema": [
                    {"AttributeName": "status", "KeyType": "HASH"},
                    {"AttributeName": "created_at", "KeyType": "RANGE"},
                ],
                "Projection": {
                    "ProjectionType": "INCLUDE",
                    "NonKeyAttributes": ["claimed_at", "lease_until", "attempt"],
                },
            }
        ],
    )
    return name


def _item(task_id: str, attributes: Mapping[str, Any]) -> dict[str, Any]:
    typed = {name: {"S": v} if isinstance(v, str) else {"N": str(v)} for name, v in attributes.items()}
    return {"task_id": {"S": task_id}, **typed}
