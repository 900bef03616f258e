"""The events AWS would hand to the shutdown Lambda, in their real shapes; pure."""

import json
import uuid
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from services.devstack.alarm import EXPRESSION, AlarmDefinition, Transition
from services.devstack.power import State

ACCOUNT_ID = "123456789012"


def alarm_event(
    definition: AlarmDefinition,
    transition: Transition,
    *,
    queue_name: str,
    instance_id: str,
    region: str,
    at: datetime,
) -> dict[str, Any]:
    """A direct alarm action.

    https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/alarms-and-actions-Lambda.html
    """
    timestamp = at.strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "+0000"
    reason = _reason(definition, transition)
    state = {"value": transition.current.value, "reason": reason, "timestamp": timestamp}
    return {
        "source": "aws.cloudwatch",
        "alarmArn": f"arn:aws:cloudwatch:{region}:{ACCOUNT_ID}:alarm:{definition.name}",
        "accountId": ACCOUNT_ID,
        "time": timestamp,
        "region": region,
        "alarmData": {
            "alarmName": definition.name,
            "state": {**state, "reasonData": _reason_data(definition, transition, timestamp)},
            "previousState": {"value": transition.previous.value, "reason": "", "timestamp": timestamp},
            "configuration": {"metrics": _metrics(definition, queue_name, instance_id)},
        },
    }


def schedule_event(*, rule_name: str, region: str, at: datetime) -> dict[str, Any]:
    """A rule with a `rate()` expression.

    https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-run-lambda-schedule.html
    """
    resource = f"arn:aws:events:{region}:{ACCOUNT_ID}:rule/{rule_name}"
    return _eventbridge("Scheduled Event", "aws.events", resource, {}, region, at)


def instance_state_event(instance_id: str, state: State, *, region: str, at: datetime) -> dict[str, Any]:
    """An instance entered `state`.

    https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/monitoring-instance-state-changes.html
    """
    resource = f"arn:aws:ec2:{region}:{ACCOUNT_ID}:instance/{instance_id}"
    detail = {"instance-id": instance_id, "state": state.value}
    return _eventbridge("EC2 Instance State-change Notification", "aws.ec2", resource, detail, region, at)


def _eventbridge(
    kind: str, source: str, resource: str, detail: dict[str, Any], region: str, at: datetime
) -> dict[str, Any]:
    return {
        "version": "0",
        "id": str(uuid.uuid4()),
        "detail-type": kind,
        "source": source,
        "account": ACCOUNT_ID,
        "time": at.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "region": region,
        "resources": [resource],
        "detail": detail,
    }


def _reason(definition: AlarmDefinition, transition: Transition) -> str:
    points = len(transition.datapoints)
    return f"Threshold Crossed: {points} datapoints were judged against the threshold ({definition.threshold})."


def _reason_data(definition: AlarmDefinition, transition: Transition, timestamp: str) -> str:
    data = {
        "version": "1.0",
        "queryDate": timestamp,
        "period": definition.period_s,
        "recentDatapoints": list(transition.datapoints),
        "threshold": definition.threshold,
    }
    return json.dumps(data)


def _metrics(definition: AlarmDefinition, queue_name: str, instance_id: str) -> list[dict[str, Any]]:
    if definition.queries:
        return [_query(query) for query in definition.queries]
    queue, instance = {"QueueName": queue_name}, {"InstanceId": instance_id}
    period_s = definition.period_s
    return [
        {"id": "work", "expression": EXPRESSION, "label": "Tasks waiting or sent", "returnData": True},
        _metric("visible", "AWS/SQS", "ApproximateNumberOfMessagesVisible", queue, "Average", period_s),
        _metric("sent", "AWS/SQS", "NumberOfMessagesSent", queue, "Sum", period_s),
        _metric("cpu", "AWS/EC2", "CPUUtilization", instance, "Average", period_s),
    ]


def _query(query: Mapping[str, Any]) -> dict[str, Any]:
    """A metric query as DescribeAlarms has it, in the event's spelling."""
    if "Expression" in query:
        text, label = query["Expression"], query.get("Label", "")
        return {"id": query["Id"], "expression": text, "label": label, "returnData": query.get("ReturnData", True)}
    stat, metric = query["MetricStat"], query["MetricStat"]["Metric"]
    dimensions = {dimension["Name"]: dimension["Value"] for dimension in metric["Dimensions"]}
    return _metric(query["Id"], metric["Namespace"], metric["MetricName"], dimensions, stat["Stat"], stat["Period"])


def _metric(
    metric_id: str, namespace: str, name: str, dimensions: Mapping[str, str], statistic: str, period_s: float
) -> dict[str, Any]:
    return {
        "id": metric_id,
        "metricStat": {
            "metric": {"namespace": namespace, "name": name, "dimensions": dimensions},
            "period": period_s,
            "stat": statistic,
        },
        "returnData": False,
    }
