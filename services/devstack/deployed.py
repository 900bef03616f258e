"""The wiring of a function as it was really created: read back from AWS, not believed from a configuration."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from services.devstack.alarm import AlarmDefinition, Expression, PeriodFacts
from services.devstack.metric_math import compile_expression
from services.devstack.wiring import EventRule, Schedule, Wiring

_ALARMS = "lambda.alarms.cloudwatch.amazonaws.com"
_EVENTS = "events.amazonaws.com"
_RATE = re.compile(r"rate\((\d+) minutes?\)")
_FACTS: Final = {
    ("AWS/SQS", "ApproximateNumberOfMessagesVisible", "Average"): "visible_average",
    ("AWS/SQS", "NumberOfMessagesSent", "Sum"): "sent_sum",
    ("AWS/EC2", "CPUUtilization", "Average"): "cpu_average",
}


class NotWiredError(Exception):
    """What was created does not call the function, or watches something else."""


@dataclass(frozen=True, slots=True)
class Watched:
    """The queue and the instance that metrics are known of."""

    queue_name: str
    instance_id: str


def read_wiring(cloudwatch: Any, events: Any, functions: Any, *, alarm: str, function: str, watched: Watched) -> Wiring:
    """What calls `function`, by DescribeAlarms, ListRules, ListTargetsByRule and the function's own policy.

    Args:
        cloudwatch, events, functions: boto3 clients of CloudWatch, EventBridge and Lambda.
        alarm, function: names.

    Raises:
        NotWiredError: the alarm has another action, may not invoke, or looks at what is not known here.
    """
    arn = functions.get_function_configuration(FunctionName=function)["FunctionArn"]
    allowed = set(_invokers(json.loads(functions.get_policy(FunctionName=function)["Policy"])))
    (described,) = cloudwatch.describe_alarms(AlarmNames=[alarm])["MetricAlarms"]
    if described["AlarmActions"] != [arn] or not described["ActionsEnabled"]:
        raise NotWiredError(f"{alarm} does not act on {function}")
    if (_ALARMS, described["AlarmArn"]) not in allowed:
        raise NotWiredError(f"{alarm} may not invoke {function}")
    rules = [rule for rule in events.list_rules()["Rules"] if rule["State"] == "ENABLED"]
    calling = [rule for rule in rules if (_EVENTS, rule["Arn"]) in allowed and arn in _targets(events, rule["Name"])]
    return Wiring(
        alarm=read_alarm(described, watched),
        schedules=tuple(_schedule(rule) for rule in calling if rule.get("ScheduleExpression")),
        rules=tuple(
            EventRule(rule["Name"], json.loads(rule["EventPattern"])) for rule in calling if "EventPattern" in rule
        ),
    )


def read_alarm(described: Mapping[str, Any], watched: Watched) -> AlarmDefinition:
    """An alarm on metric queries, from its description by DescribeAlarms.

    Raises:
        NotWiredError: its metrics or its way of comparing are not known here.
    """
    if (described["ComparisonOperator"], described["TreatMissingData"]) != (
        "LessThanOrEqualToThreshold",
        "notBreaching",
    ):
        raise NotWiredError(
            f"{described['AlarmName']}: another comparison than <=, or missing data is not `notBreaching`"
        )
    metrics = {query["Id"]: query["MetricStat"] for query in described["Metrics"] if "MetricStat" in query}
    (period_s,) = {stat["Period"] for stat in metrics.values()}
    (result,) = [query["Expression"] for query in described["Metrics"] if query.get("ReturnData", True)]
    return AlarmDefinition(
        name=described["AlarmName"],
        expression=_expression(result, {name: _fact(stat, watched) for name, stat in metrics.items()}),
        period_s=float(period_s),
        evaluation_periods=described["EvaluationPeriods"],
        datapoints_to_alarm=described["DatapointsToAlarm"],
        threshold=described["Threshold"],
        queries=tuple(described["Metrics"]),
    )


def _expression(text: str, facts_by_id: Mapping[str, str]) -> Expression:
    value = compile_expression(text)

    def expression(facts: PeriodFacts) -> float | None:
        return value({name: getattr(facts, fact) for name, fact in facts_by_id.items()})

    return expression


def _fact(stat: Mapping[str, Any], watched: Watched) -> str:
    metric = stat["Metric"]
    dimensions = [(dimension["Name"], dimension["Value"]) for dimension in metric["Dimensions"]]
    name = _FACTS.get((metric["Namespace"], metric["MetricName"], stat["Stat"]))
    if name is None or dimensions not in ([("QueueName", watched.queue_name)], [("InstanceId", watched.instance_id)]):
        raise NotWiredError(f"nothing is known of {stat['Stat']} {metric}")
    return name


def _invokers(policy: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """(service, source ARN) of whoever may invoke."""
    for statement in policy["Statement"]:
        if (statement["Effect"], statement["Action"]) == ("Allow", "lambda:InvokeFunction"):
            yield statement["Principal"]["Service"], statement["Condition"]["ArnLike"]["AWS:SourceArn"]


def _targets(events: Any, rule_name: str) -> list[str]:
    return [target["Arn"] for target in events.list_targets_by_rule(Rule=rule_name)["Targets"]]


def _schedule(rule: Mapping[str, Any]) -> Schedule:
    found = _RATE.fullmatch(rule["ScheduleExpression"])
    if found is None:
        raise NotWiredError(f"{rule['Name']}: {rule['ScheduleExpression']} is not in minutes")
    return Schedule(rule["Name"], int(found[1]))
