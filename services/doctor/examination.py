"""Gathers the facts. A look that fails becomes a fact of its own, so that one missing permission hides nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, TypeVar

from lib.asyncaws.attributes import deserialize_item
from lib.gputask.gpu import InstanceHold, instance_key, worker_key
from lib.gputask.record import LIVE, Status
from lib.gputask.schema import STATUS_INDEX, TABLE_KEY
from services.doctor import sight
from services.doctor.deployment import Deployment, QueueAddress
from services.doctor.facts import (
    Absent,
    Alarm,
    Facts,
    Function,
    Grant,
    Identity,
    Instance,
    Invocations,
    Queue,
    Rule,
    Seen,
    Service,
    Table,
    Tasks,
    Unseen,
    Worker,
)
from services.doctor.reader import NotThereError, Reader, ReadError

T = TypeVar("T")

AskService = Callable[[str], Service]
"""Asks the orchestrator at an address for its health; raises OSError."""

# The function is called each minute, and its metrics lag by a few.
_METRICS_WITHIN_S = 900


class Examination:
    """Looks once at everything a deployment consists of."""

    def __init__(self, *, reader: Reader, deployment: Deployment, ask_service: AskService) -> None:
        self._reader = reader
        self._deployment = deployment
        self._ask_service = ask_service

    def identify(self) -> Identity:
        """Who looks.

        Raises:
            ReadError: nothing can be looked at.
        """
        answer = self._reader.read("sts:GetCallerIdentity")
        try:
            return Identity(account=answer["Account"], arn=answer["Arn"])
        except KeyError as error:
            raise ReadError("what answers is not AWS", fix="check AWS_ENDPOINT_URL and proxies") from error

    def look(self, identity: Identity) -> Facts:
        """All facts; takes a few seconds."""
        deployment = self._deployment
        function = _seen(self._function)
        return Facts(
            identity=identity,
            table=_seen(self._table),
            ttl=_seen(self._ttl),
            recovery=_seen(self._recovery),
            queue=_seen(lambda: self._queue(deployment.queue)),
            dead_letters=_seen(lambda: self._queue(deployment.dead_letters)),
            alarm=_seen(self._alarm),
            function=function,
            concurrency=_seen(self._concurrency),
            grants=_seen(self._grants),
            rules=_seen(lambda: self._rules(function.arn)) if isinstance(function, Function) else function,
            invocations=_seen(self._invocations),
            instance=_seen(self._instance),
            hold=_seen(self._hold),
            worker=_seen(self._worker),
            tasks=_seen(self._tasks),
            service=_seen(self._service) if deployment.api_url else None,
            now=self._reader.now(),
            skew_s=self._reader.skew_s,
        )

    def _table(self) -> Table:
        answer = self._reader.read("dynamodb:DescribeTable", TableName=self._deployment.table)
        return sight.table(answer["Table"])

    def _ttl(self) -> Seen[str]:
        answer = self._reader.read("dynamodb:DescribeTimeToLive", TableName=self._deployment.table)
        ttl = answer["TimeToLiveDescription"]
        return ttl["AttributeName"] if ttl["TimeToLiveStatus"] in ("ENABLED", "ENABLING") else Absent()

    def _recovery(self) -> bool:
        answer = self._reader.read("dynamodb:DescribeContinuousBackups", TableName=self._deployment.table)
        backups = answer["ContinuousBackupsDescription"]
        recovery = backups.get("PointInTimeRecoveryDescription", {})
        return bool(recovery.get("PointInTimeRecoveryStatus") == "ENABLED")

    def _queue(self, address: QueueAddress) -> Queue:
        answer = self._reader.read("sqs:GetQueueAttributes", QueueUrl=address.url, AttributeNames=["All"])
        return sight.queue(answer["Attributes"])

    def _alarm(self) -> Seen[Alarm]:
        answer = self._reader.read("cloudwatch:DescribeAlarms", AlarmNames=[self._deployment.alarm])
        return sight.alarm(answer["MetricAlarms"][0]) if answer["MetricAlarms"] else Absent()

    def _function(self) -> Function:
        answer = self._reader.read("lambda:GetFunctionConfiguration", FunctionName=self._deployment.function)
        return sight.function(answer)

    def _concurrency(self) -> int | None:
        answer = self._reader.read("lambda:GetFunctionConcurrency", FunctionName=self._deployment.function)
        return answer.get("ReservedConcurrentExecutions")

    def _grants(self) -> tuple[Grant, ...]:
        try:
            answer = self._reader.read("lambda:GetPolicy", FunctionName=self._deployment.function)
        except NotThereError:
            return ()
        return sight.grants(json.loads(answer["Policy"]))

    def _rules(self, function_arn: str) -> tuple[Rule, ...]:
        names = self._reader.read("events:ListRuleNamesByTarget", TargetArn=function_arn)["RuleNames"]
        return tuple(sight.rule(self._reader.read("events:DescribeRule", Name=name)) for name in names)

    def _invocations(self) -> Invocations:
        now = self._reader.now()
        answer = self._reader.read(
            "cloudwatch:GetMetricData",
            StartTime=datetime.fromtimestamp(now - _METRICS_WITHIN_S, UTC),
            EndTime=datetime.fromtimestamp(now + 60, UTC),
            MetricDataQueries=[_counted(name, self._deployment.function) for name in ("Invocations", "Errors")],
        )
        sums = {result["Id"]: int(sum(result["Values"])) for result in answer["MetricDataResults"]}
        return Invocations(sums.get("invocations", 0), sums.get("errors", 0), _METRICS_WITHIN_S)

    def _instance(self) -> Seen[Instance]:
        answer = self._reader.read("ec2:DescribeInstances", InstanceIds=[self._deployment.instance_id])
        found = [instance for reservation in answer["Reservations"] for instance in reservation["Instances"]]
        return sight.instance(found[0]) if found else Absent()

    def _hold(self) -> Seen[InstanceHold]:
        record = self._record(instance_key(self._deployment.instance_id))
        return sight.hold(record) if record else Absent()

    def _worker(self) -> Seen[Worker]:
        record = self._record(worker_key(self._deployment.instance_id))
        return sight.worker(record) if record else Absent()

    def _record(self, key: str) -> Mapping[str, Any] | None:
        answer = self._reader.read(
            "dynamodb:GetItem", TableName=self._deployment.table, Key={TABLE_KEY: {"S": key}}, ConsistentRead=True
        )
        return deserialize_item(answer["Item"]) if "Item" in answer else None

    def _tasks(self) -> Tasks:
        oldest = [self._created_at(status, newest=False) for status in LIVE]
        newest = [self._created_at(status, newest=True) for status in Status]
        return Tasks(
            oldest_unfinished_at=min((moment for moment in oldest if moment is not None), default=None),
            newest_at=max((moment for moment in newest if moment is not None), default=None),
        )

    def _created_at(self, status: Status, *, newest: bool) -> float | None:
        answer = self._reader.read(
            "dynamodb:Query",
            TableName=self._deployment.table,
            IndexName=STATUS_INDEX,
            KeyConditionExpression="#status = :status",
            ProjectionExpression="created_at",
            ExpressionAttributeNames={"#status": "status"},
            ExpressionAttributeValues={":status": {"S": status.value}},
            ScanIndexForward=not newest,
            Limit=1,
        )
        return next((float(item["created_at"]["N"]) for item in answer["Items"]), None)

    def _service(self) -> Service:
        api_url = self._deployment.api_url or ""
        try:
            return self._ask_service(api_url)
        except OSError as error:
            fix = "is the orchestrator running, is the name right, and may this machine reach it?"
            raise ReadError(f"{api_url}: {error}", fix=fix) from error


def _seen(look: Callable[[], Seen[T]]) -> Seen[T]:
    try:
        return look()
    except NotThereError:
        return Absent()
    except ReadError as error:
        return Unseen(str(error), error.fix)
    except (LookupError, TypeError, ValueError) as error:
        # Others write records, and AWS may answer what we never saw; one such thing must not hide the rest.
        return Unseen(f"not understood: {error!r}", "look at it by hand; the doctor's code expects something else")


def _counted(name: str, function: str) -> dict[str, Any]:
    metric = {
        "Namespace": "AWS/Lambda",
        "MetricName": name,
        "Dimensions": [{"Name": "FunctionName", "Value": function}],
    }
    return {"Id": name.lower(), "MetricStat": {"Metric": metric, "Period": 60, "Stat": "Sum"}}
