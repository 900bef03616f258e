"""AWS's answers as facts. Pure. One that has another shape raises LookupError, TypeError or ValueError."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from lib.gputask.gpu import InstanceHold
from services.doctor.facts import Alarm, Function, Grant, Index, Instance, Metric, Queue, Rule, Table, Worker

Answer = Mapping[str, Any]


def table(answer: Answer) -> Table:
    return Table(
        arn=answer["TableArn"],
        key=_key(answer),
        indexes={index["IndexName"]: _index(index) for index in answer.get("GlobalSecondaryIndexes", [])},
        is_protected=answer.get("DeletionProtectionEnabled", False),
    )


def _index(answer: Answer) -> Index:
    projection = answer.get("Projection", {})
    return Index(
        key=_key(answer),
        projection=projection.get("ProjectionType", ""),
        attributes=frozenset(projection.get("NonKeyAttributes", [])),
    )


def _key(answer: Answer) -> tuple[str, ...]:
    """Hash key first, as AWS gives it."""
    return tuple(element["AttributeName"] for element in answer["KeySchema"])


def queue(attributes: Mapping[str, str]) -> Queue:
    redrive = json.loads(attributes.get("RedrivePolicy", "{}"))
    allowed = json.loads(attributes.get("RedriveAllowPolicy", "{}"))
    is_encrypted = attributes.get("SqsManagedSseEnabled") == "true" or bool(attributes.get("KmsMasterKeyId"))
    return Queue(
        arn=attributes["QueueArn"],
        visibility_s=float(attributes["VisibilityTimeout"]),
        receive_wait_s=float(attributes["ReceiveMessageWaitTimeSeconds"]),
        retention_s=float(attributes["MessageRetentionPeriod"]),
        is_encrypted=is_encrypted,
        visible=int(attributes["ApproximateNumberOfMessages"]),
        dead_letter_arn=redrive.get("deadLetterTargetArn"),
        max_receive_count=int(redrive.get("maxReceiveCount", 0)),
        redrive_permission=allowed.get("redrivePermission", "allowAll"),
        redrive_sources=tuple(allowed.get("sourceQueueArns", [])),
    )


def alarm(answer: Answer) -> Alarm:
    queries = answer.get("Metrics") or []
    (result,) = [query for query in queries if query.get("ReturnData", True)] or [{}]
    expression = result.get("Expression")
    measured = queries if expression else [result]
    return Alarm(
        arn=answer["AlarmArn"],
        metrics=tuple(_metric(query["Id"], query["MetricStat"]) for query in measured if "MetricStat" in query)
        or (_only_metric(answer),),
        expression=expression,
        comparison=answer["ComparisonOperator"],
        threshold=answer.get("Threshold", 0.0),
        evaluation_periods=answer["EvaluationPeriods"],
        datapoints_to_alarm=answer.get("DatapointsToAlarm") or answer["EvaluationPeriods"],
        missing_data=answer.get("TreatMissingData") or "missing",
        has_actions_enabled=answer.get("ActionsEnabled", True),
        actions=tuple(answer.get("AlarmActions", [])),
        state=answer.get("StateValue", ""),
    )


def _metric(name: str, measured: Answer) -> Metric:
    return Metric(
        id=name,
        namespace=measured["Metric"].get("Namespace", ""),
        name=measured["Metric"].get("MetricName", ""),
        statistic=measured["Stat"],
        period_s=measured["Period"],
        dimensions=_dimensions(measured["Metric"]),
    )


def _only_metric(answer: Answer) -> Metric:
    return Metric(
        id="",
        namespace=answer.get("Namespace", ""),
        name=answer.get("MetricName", ""),
        statistic=answer.get("Statistic") or answer.get("ExtendedStatistic", ""),
        period_s=answer.get("Period", 0),
        dimensions=_dimensions(answer),
    )


def _dimensions(answer: Answer) -> dict[str, str]:
    return {dimension["Name"]: dimension["Value"] for dimension in answer.get("Dimensions", [])}


def function(answer: Answer) -> Function:
    return Function(
        arn=answer["FunctionArn"],
        handler=answer.get("Handler", ""),
        state=answer.get("State", ""),
        update=answer.get("LastUpdateStatus", ""),
        variables=answer.get("Environment", {}).get("Variables", {}),
        modified_at=datetime.fromisoformat(answer["LastModified"]).timestamp(),
    )


def grants(policy: Answer) -> tuple[Grant, ...]:
    """Who may invoke the function; a condition other than on the source counts for nothing here."""
    return tuple(
        Grant(principal, _condition(statement, "sourcearn"), _condition(statement, "sourceaccount"))
        for statement in _listed(policy.get("Statement", []))
        if statement.get("Effect") == "Allow" and _allows_invocation(statement)
        for principal in _principals(statement.get("Principal", {}))
    )


def _allows_invocation(statement: Answer) -> bool:
    return any(action in ("lambda:InvokeFunction", "lambda:*", "*") for action in _listed(statement.get("Action", [])))


def _principals(principal: Any) -> list[str]:
    return _listed(principal.get("Service", [])) if isinstance(principal, Mapping) else [principal]


def _condition(statement: Answer, name: str) -> str | None:
    """The value of ``AWS:SourceArn`` or ``AWS:SourceAccount``; IAM does not care for the case of a key."""
    for tests in statement.get("Condition", {}).values():
        for key, value in tests.items():
            if key.lower() == f"aws:{name}":
                return str(_listed(value)[0])
    return None


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def rule(answer: Answer) -> Rule:
    return Rule(
        name=answer["Name"],
        arn=answer["Arn"],
        is_enabled=answer.get("State", "").startswith("ENABLED"),
        schedule=answer.get("ScheduleExpression"),
        pattern=answer.get("EventPattern"),
    )


def instance(answer: Answer) -> Instance:
    metadata = answer.get("MetadataOptions", {})
    return Instance(
        state=answer["State"]["Name"],
        launched_at=answer["LaunchTime"].timestamp(),
        tags={tag["Key"]: tag["Value"] for tag in answer.get("Tags", [])},
        profile_arn=answer.get("IamInstanceProfile", {}).get("Arn"),
        needs_token=metadata.get("HttpTokens") == "required",
        hop_limit=metadata.get("HttpPutResponseHopLimit", 0),
    )


def worker(record: Answer) -> Worker:
    return Worker(
        beat_at=float(record.get("beat_at", 0)),
        last_claim_at=float(record.get("last_claim_at", 0)),
        upstream=str(record.get("upstream", "")),
        upstream_ok_at=float(record.get("upstream_ok_at", 0)),
        upstream_remark=str(record.get("upstream_remark", "")),
    )


def hold(record: Answer) -> InstanceHold:
    return InstanceHold(until=float(record["hold_until"]), reason=str(record.get("hold_reason", "")))
