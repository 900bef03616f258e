"""The alarm of rules A and B: that it sees every task, waits as long as the rules say, and calls the Lambda."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Final

from services.doctor.deployment import Deployment
from services.doctor.facts import Alarm, Metric
from services.doctor.finding import Finding, broken, fine, warning

# What a metric is in the expression: its namespace, name and statistic.
ROLES: Final[Mapping[tuple[str, str, str], str]] = {
    ("AWS/SQS", "ApproximateNumberOfMessagesVisible", "Average"): "visible",
    ("AWS/SQS", "NumberOfMessagesSent", "Sum"): "sent",
    ("AWS/EC2", "CPUUtilization", "Average"): "cpu",
}
EXPRESSION: Final = "IF(cpu >= 0, visible + sent, 1)"
_SAME = frozenset({"IF(cpu>=0,visible+sent,1)", "IF(cpu>=0,sent+visible,1)"})
_UNGATED = frozenset({"visible+sent", "sent+visible"})

_APPLY = "`terraform apply` puts the alarm right"


def judge_alarm(alarm: Alarm, deployment: Deployment, *, idle_s: float) -> Iterator[Finding]:
    """Everything about the alarm but who may be called by it.

    Args:
        idle_s: of the Lambda, whose rules the alarm is to notice.
    """
    yield fine("alarm", f"{deployment.alarm} is {alarm.state}")
    yield _judge_expression(alarm)
    yield _judge_metrics(alarm, deployment)
    yield _judge_window(alarm, idle_s)
    yield _judge_threshold(alarm)
    if alarm.missing_data == "notBreaching":
        yield fine("alarm missing data", "notBreaching")
    else:
        text = f"{alarm.missing_data}: a stopped instance has no data, and the alarm gets stuck"
        yield broken("alarm missing data", text, fix=_APPLY)


def judge_action(alarm: Alarm, function_arn: str, deployment: Deployment) -> Iterator[Finding]:
    """That it calls the Lambda, directly."""
    if not alarm.has_actions_enabled:
        fix = deployment.aws("cloudwatch", "enable-alarm-actions", "--alarm-names", deployment.alarm)
        yield broken("alarm action", "actions are switched off", fix=fix)
    elif function_arn not in alarm.actions:
        called = ", ".join(alarm.actions) or "nobody"
        yield broken("alarm action", f"calls {called}, not {function_arn}", fix=_APPLY)
    else:
        yield fine("alarm action", f"calls {deployment.function}")


def _judge_expression(alarm: Alarm) -> Finding:
    expression = _normalized(alarm)
    if expression in _SAME:
        return fine("alarm expression", EXPRESSION)
    if expression in _UNGATED:
        text = "visible + sent, without the instance's CPU: it does not re-arm when the instance stops"
        return warning("alarm expression", text, fix=_APPLY)
    if expression == "visible":
        text = "visible messages alone: a GPU that takes each task at once looks idle, and is stopped in mid-work"
        return broken("alarm expression", text, fix=_APPLY)
    return broken("alarm expression", f"{alarm.expression or expression}, not {EXPRESSION}", fix=_APPLY)


def _normalized(alarm: Alarm) -> str:
    """The expression without spaces, its metrics named by what they measure."""
    roles = {metric.id: _role(metric) for metric in alarm.metrics}
    if alarm.expression is None:
        return _role(alarm.metrics[0])
    text = "".join(alarm.expression.split())
    return re.sub(r"[a-z]\w*", lambda found: roles.get(found[0], found[0]), text)


def _role(metric: Metric) -> str:
    measured = (metric.namespace, metric.name, metric.statistic)
    return ROLES.get(measured, " ".join(measured))


def _judge_metrics(alarm: Alarm, deployment: Deployment) -> Finding:
    expected = {"AWS/SQS": {"QueueName": deployment.queue.name}, "AWS/EC2": {"InstanceId": deployment.instance_id}}
    for metric in alarm.metrics:
        if metric.dimensions != expected.get(metric.namespace):
            of = ", ".join(f"{name} {value}" for name, value in metric.dimensions.items()) or "nothing"
            text = f"{metric.name} is measured of {of}, not of this queue or instance"
            return broken("alarm metrics", text, fix=_APPLY)
    return fine("alarm metrics", f"of {deployment.queue.name} and {deployment.instance_id}")


def _judge_window(alarm: Alarm, idle_s: float) -> Finding:
    period_s = max(metric.period_s for metric in alarm.metrics)
    periods = f"{alarm.datapoints_to_alarm} of {alarm.evaluation_periods} periods of {period_s} s"
    if alarm.evaluation_periods != alarm.datapoints_to_alarm or any(m.period_s != period_s for m in alarm.metrics):
        return broken("alarm window", f"{periods}: idle must mean all of the time", fix=_APPLY)
    if alarm.evaluation_periods * period_s != idle_s:
        return broken("alarm window", f"{periods}, but the Lambda's IDLE_S is {idle_s:g}", fix=_APPLY)
    return fine("alarm window", periods)


def _judge_threshold(alarm: Alarm) -> Finding:
    if (alarm.comparison, alarm.threshold) == ("LessThanOrEqualToThreshold", 0):
        return fine("alarm threshold", "at most 0")
    text = f"{alarm.comparison} {alarm.threshold:g}, not LessThanOrEqualToThreshold 0"
    return broken("alarm threshold", text, fix=_APPLY)
