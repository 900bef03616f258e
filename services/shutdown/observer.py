"""Looks the facts up: EC2 for the instance, the table for demand and health, the queue for a hint."""

from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Final

from botocore.exceptions import BotoCoreError, ClientError

from services.shutdown import log
from services.shutdown.attributes import Item, read_count, read_number
from services.shutdown.errors import InstanceNotFoundError
from services.shutdown.facts import Facts, Hold, Task, Worker

if TYPE_CHECKING:
    from types_boto3_dynamodb import DynamoDBClient
    from types_boto3_ec2 import EC2Client
    from types_boto3_ec2.type_defs import InstanceTypeDef
    from types_boto3_sqs import SQSClient

_INDEX: Final = "status-created_at-index"
_VISIBLE: Final = "ApproximateNumberOfMessages"


class Observer:
    """Read-only eyes on one instance and its tasks.

    Args:
        window_s: How far back finished tasks are searched for the latest submission and claim. Twice ``idle_s`` finds
            every submission that matters; a claim of an older task is in the worker record as well.
    """

    def __init__(
        self,
        *,
        ec2: "EC2Client",
        dynamodb: "DynamoDBClient",
        sqs: "SQSClient",
        instance_id: str,
        table: str,
        queue_url: str,
        window_s: float,
    ) -> None:
        self._ec2 = ec2
        self._dynamodb = dynamodb
        self._sqs = sqs
        self._instance_id = instance_id
        self._table = table
        self._queue_url = queue_url
        self._window_s = window_s

    def look(self, now: float) -> Facts:
        """Gather the facts; ``now`` is taken before the look, so that ages are never overestimated.

        Raises:
            InstanceNotFoundError: EC2 does not know the instance.
            botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError: a call failed.
        """
        instance = self._describe()
        state = instance["State"]["Name"]
        if state != "running":
            return Facts(now=now, state=state)
        # Tasks in the order of their life, so that one which moves on meanwhile is met twice rather than missed; the
        # worker record, read consistently and last, knows of a claim that the index does not show yet.
        tasks = {task.task_id: task for status in ("pending", "processing") for task in self._live(status)}
        since = now - self._window_s
        finished = [item for status in ("completed", "failed") for item in self._query(status, since=since)]
        return Facts(
            now=now,
            state=state,
            launched_at=_epoch(instance.get("LaunchTime")),
            tasks=tuple(tasks.values()),
            last_created_at=_latest(finished, "created_at"),
            last_claimed_at=_latest(finished, "claimed_at"),
            visible=self._visible(),
            hold=_hold(self._record("instance")),
            worker=_worker(self._record("worker")),
        )

    def _describe(self) -> "InstanceTypeDef":
        try:
            answer = self._ec2.describe_instances(InstanceIds=[self._instance_id])
        except ClientError as exc:
            if exc.response["Error"]["Code"] == "InvalidInstanceID.NotFound":
                raise InstanceNotFoundError(self._instance_id) from exc
            raise
        for reservation in answer["Reservations"]:
            for instance in reservation["Instances"]:
                return instance
        raise InstanceNotFoundError(self._instance_id)

    def _live(self, status: str) -> Iterator[Task]:
        for item in self._query(status, since=0):
            yield Task(
                task_id=item["task_id"]["S"],
                status=status,
                created_at=read_number(item, "created_at") or 0.0,
                claimed_at=read_number(item, "claimed_at"),
                lease_until=read_number(item, "lease_until"),
                attempt=read_count(item, "attempt"),
            )

    def _query(self, status: str, *, since: float) -> Iterator[Item]:
        """A global index cannot be read consistently: what it shows is seconds old at worst, and every write that
        follows from it is conditional on the table itself."""
        pages = self._dynamodb.get_paginator("query").paginate(
            TableName=self._table,
            IndexName=_INDEX,
            KeyConditionExpression="#status = :status AND created_at >= :since",
            ProjectionExpression="task_id, created_at, claimed_at, lease_until, attempt",
            ExpressionAttributeNames={"#status": "status"},
            ExpressionAttributeValues={":status": {"S": status}, ":since": {"N": f"{since:.3f}"}},
        )
        for page in pages:
            yield from page["Items"]

    def _visible(self) -> int | None:
        """A mere hint: a queue that does not answer must not keep the instance on.

        The call also counts as activity, which keeps the metrics of the alarm from falling behind.
        """
        try:
            answer = self._sqs.get_queue_attributes(QueueUrl=self._queue_url, AttributeNames=[_VISIBLE])
        except (ClientError, BotoCoreError) as exc:
            log.warning("queue.unseen", error=str(exc))
            return None
        return int(answer["Attributes"][_VISIBLE])

    def _record(self, kind: str) -> Item | None:
        key = {"task_id": {"S": f"{kind}#{self._instance_id}"}}
        return self._dynamodb.get_item(TableName=self._table, Key=key, ConsistentRead=True).get("Item")


def _worker(record: Item | None) -> Worker | None:
    if record is None:
        return None
    return Worker(
        beat_at=read_number(record, "beat_at"),
        upstream_ok_at=read_number(record, "upstream_ok_at"),
        last_claim_at=read_number(record, "last_claim_at"),
    )


def _hold(record: Item | None) -> Hold | None:
    if record is None:
        return None
    return Hold(
        until=read_number(record, "hold_until") or 0.0,
        count=read_count(record, "hold_count"),
        put_at=read_number(record, "updated_at"),
    )


def _latest(items: list[Item], name: str) -> float | None:
    return max((moment for item in items if (moment := read_number(item, name)) is not None), default=None)


def _epoch(moment: datetime | None) -> float | None:
    return moment.timestamp() if moment else None
