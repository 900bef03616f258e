"""Looks the facts up: EC2 for the instance, the table for demand and health, the queue for a hint."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from botocore.exceptions import BotoCoreError, ClientError

from services.shutdown import log
from services.shutdown.attributes import Item, read_count, read_number, write_moment
from services.shutdown.errors import InstanceNotFoundError, TableUnreadableError
from services.shutdown.facts import CLOCK_SKEW_S, MOST_HOLDS, Facts, Hold, Task, Worker

if TYPE_CHECKING:
    from types_boto3_dynamodb import DynamoDBClient
    from types_boto3_dynamodb.type_defs import QueryOutputTypeDef
    from types_boto3_ec2 import EC2Client
    from types_boto3_ec2.type_defs import InstanceTypeDef
    from types_boto3_sqs import SQSClient

_INDEX: Final = "status-created_at-index"
_VISIBLE: Final = "ApproximateNumberOfMessages"
_PAGE_ITEMS: Final = 100
"""Of each end of each status: far more than are held at once, and 30 KB."""


@dataclass(frozen=True, slots=True)
class _Ends:
    items: tuple[Item, ...]
    is_partial: bool


class Observer:
    """Read-only eyes on one instance and its tasks. A look costs the same whatever waits and whatever has ended."""

    def __init__(
        self,
        *,
        ec2: "EC2Client",
        dynamodb: "DynamoDBClient",
        sqs: "SQSClient",
        instance_id: str,
        table: str,
        queue_url: str,
    ) -> None:
        self._ec2 = ec2
        self._dynamodb = dynamodb
        self._sqs = sqs
        self._instance_id = instance_id
        self._table = table
        self._queue_url = queue_url

    def describe(self) -> "InstanceTypeDef":
        """The instance as EC2 knows it.

        Raises:
            InstanceNotFoundError: EC2 does not know the instance.
            botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError: the call failed.
        """
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

    def look(self, instance: "InstanceTypeDef", now: float, *, stopping_since: float | None = None) -> Facts:
        """Gather the facts; ``now`` is taken before the look, so that ages are never overestimated.

        Raises:
            TableUnreadableError: the table did not answer.
        """
        state = instance["State"]["Name"]
        if state != "running":
            return Facts(now=now, state=state, stopping_since=stopping_since)
        try:
            return self._look_at_table(instance, now)
        except (ClientError, BotoCoreError) as exc:
            raise TableUnreadableError(str(exc)) from exc

    def _look_at_table(self, instance: "InstanceTypeDef", now: float) -> Facts:
        # Tasks in the order of their life, so that one which moves on meanwhile is met twice rather than missed; the
        # worker record, read consistently and last, knows of a claim that the index does not show yet, and of one of
        # a task that is neither among the oldest nor among the newest.
        live = {status: self._ends(status, now) for status in ("pending", "processing")}
        tasks = {task.task_id: task for status, ends in live.items() for task in _tasks(status, ends.items)}
        finished = [item for status in ("completed", "failed") for item in self._newest(status, now)["Items"]]
        return Facts(
            now=now,
            state="running",
            launched_at=launched_at(instance),
            tasks=tuple(tasks.values()),
            is_partial=any(ends.is_partial for ends in live.values()),
            last_created_at=_latest(finished, "created_at", now),
            last_claimed_at=_latest(finished, "claimed_at", now),
            visible=self._visible(),
            hold=_hold(self._record("instance"), now),
            worker=_worker(self._record("worker")),
        )

    def _ends(self, status: str, now: float) -> "_Ends":
        """The oldest, by which waiting is judged, and the newest, by which activity is."""
        oldest = self._query(status, {})
        if "LastEvaluatedKey" not in oldest:
            return _Ends(tuple(oldest["Items"]), is_partial=False)
        return _Ends((*oldest["Items"], *self._newest(status, now)["Items"]), is_partial=True)

    def _newest(self, status: str, now: float) -> "QueryOutputTypeDef":
        """Without those of the future, in milliseconds or by a wrong clock: they would hide what really is newest."""
        latest = {":latest": write_moment(now + CLOCK_SKEW_S)}
        return self._query(status, latest, condition=" AND created_at <= :latest")

    def _query(self, status: str, values: Mapping[str, Any], *, condition: str = "") -> "QueryOutputTypeDef":
        """A global index cannot be read consistently: what it shows is seconds old at worst, and every write that
        follows from it is conditional on the table itself."""
        return self._dynamodb.query(
            TableName=self._table,
            IndexName=_INDEX,
            KeyConditionExpression=f"#status = :status{condition}",
            ProjectionExpression="task_id, created_at, claimed_at, lease_until, attempt",
            ExpressionAttributeNames={"#status": "status"},
            ExpressionAttributeValues={":status": {"S": status}, **values},
            ScanIndexForward=not condition,
            Limit=_PAGE_ITEMS,
        )

    def _visible(self) -> int | None:
        """A mere hint: a queue that does not answer must not keep the instance on.

        The call also counts as activity, which keeps the metrics of the alarm from falling behind.
        """
        try:
            answer = self._sqs.get_queue_attributes(QueueUrl=self._queue_url, AttributeNames=[_VISIBLE])
            return int(answer["Attributes"][_VISIBLE])
        except (ClientError, BotoCoreError, KeyError, TypeError, ValueError) as exc:
            log.warning("queue.unseen", error=repr(exc))
            return None

    def _record(self, kind: str) -> Item | None:
        key = {"task_id": {"S": f"{kind}#{self._instance_id}"}}
        return self._dynamodb.get_item(TableName=self._table, Key=key, ConsistentRead=True).get("Item")


def launched_at(instance: "InstanceTypeDef") -> float | None:
    """Epoch seconds of its last launch."""
    moment = instance.get("LaunchTime")
    return moment.timestamp() if moment else None


def _tasks(status: str, items: Iterable[Item]) -> Iterator[Task]:
    for item in items:
        yield Task(
            task_id=item["task_id"]["S"],
            status=status,
            created_at=read_number(item, "created_at") or 0.0,
            claimed_at=read_number(item, "claimed_at"),
            lease_until=read_number(item, "lease_until"),
            attempt=read_count(item, "attempt"),
        )


def _worker(record: Item | None) -> Worker | None:
    if record is None:
        return None
    return Worker(
        beat_at=read_number(record, "beat_at"),
        upstream_ok_at=read_number(record, "upstream_ok_at"),
        last_claim_at=read_number(record, "last_claim_at"),
        last_service_at=read_number(record, "last_service_at"),
    )


def _hold(record: Item | None, now: float) -> Hold | None:
    if record is None:
        return None
    count, put_at = read_count(record, "hold_count"), read_number(record, "updated_at")
    return Hold(
        until=read_number(record, "hold_until") or 0.0,
        count=count if 0 <= count <= MOST_HOLDS else 0,
        put_at=put_at if put_at is not None and put_at <= now + CLOCK_SKEW_S else None,
    )


def _latest(items: Sequence[Item], name: str, now: float) -> float | None:
    moments = (read_number(item, name) for item in items)
    return max((at for at in moments if at is not None and at <= now + CLOCK_SKEW_S), default=None)
