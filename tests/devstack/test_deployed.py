"""Reading back: what is not wired as it must be does not call."""

import json
from typing import Any

import pytest

from services.devstack.alarm import PeriodFacts
from services.devstack.deployed import NotWiredError, Watched, read_wiring
from services.devstack.wiring import EventRule, Schedule, Wiring

FUNCTION = "arn:aws:lambda:us-east-1:123456789012:function:shutdown"
ALARM = "arn:aws:cloudwatch:us-east-1:123456789012:alarm:idle"
EVERY_MINUTE = "arn:aws:events:us-east-1:123456789012:rule/every-minute"
STOPPED = "arn:aws:events:us-east-1:123456789012:rule/stopped"
WATCHED = Watched(queue_name="tasks", instance_id="i-1")


class Aws:
    """What the three services say, each in AWS's shape."""

    def __init__(self) -> None:
        self.may_invoke = {
            ALARM: "lambda.alarms.cloudwatch.amazonaws.com",
            EVERY_MINUTE: "events.amazonaws.com",
            STOPPED: "events.amazonaws.com",
        }
        self.alarm: dict[str, Any] = {
            "AlarmName": "idle",
            "AlarmArn": ALARM,
            "ActionsEnabled": True,
            "AlarmActions": [FUNCTION],
            "ComparisonOperator": "LessThanOrEqualToThreshold",
            "TreatMissingData": "notBreaching",
            "EvaluationPeriods": 6,
            "DatapointsToAlarm": 6,
            "Threshold": 0.0,
            "Metrics": [
                {"Id": "all", "Expression": "visible + sent", "ReturnData": True},
                query("visible", "ApproximateNumberOfMessagesVisible", "Average"),
                query("sent", "NumberOfMessagesSent", "Sum"),
            ],
        }
        self.rules: list[dict[str, Any]] = [
            {"Name": "every-minute", "Arn": EVERY_MINUTE, "State": "ENABLED", "ScheduleExpression": "rate(1 minute)"},
            {
                "Name": "stopped",
                "Arn": STOPPED,
                "State": "ENABLED",
                "EventPattern": '{"detail": {"state": ["stopped"]}}',
            },
        ]
        self.targets = {"every-minute": [FUNCTION], "stopped": [FUNCTION]}

    def describe_alarms(self, *, AlarmNames: list[str]) -> Any:  # noqa: N803 (boto3's)
        assert AlarmNames == ["idle"]
        return {"MetricAlarms": [self.alarm]}

    def list_rules(self) -> Any:
        return {"Rules": self.rules}

    def list_targets_by_rule(self, *, Rule: str) -> Any:  # noqa: N803
        return {"Targets": [{"Arn": arn} for arn in self.targets[Rule]]}

    def get_function_configuration(self, *, FunctionName: str) -> Any:  # noqa: N803
        return {"FunctionArn": FUNCTION, "FunctionName": FunctionName}

    def get_policy(self, *, FunctionName: str) -> Any:  # noqa: N803
        statements = [
            {
                "Effect": "Allow",
                "Action": "lambda:InvokeFunction",
                "Principal": {"Service": service},
                "Condition": {"ArnLike": {"AWS:SourceArn": arn}},
            }
            for arn, service in self.may_invoke.items()
        ]
        return {"Policy": json.dumps({"Statement": statements})}

    def wiring(self) -> Wiring:
        return read_wiring(self, self, self, alarm="idle", function="shutdown", watched=WATCHED)


def query(name: str, metric: str, stat: str, *, queue: str = "tasks") -> dict[str, Any]:
    dimensions = [{"Name": "QueueName", "Value": queue}]
    return {
        "Id": name,
        "MetricStat": {
            "Metric": {"Namespace": "AWS/SQS", "MetricName": metric, "Dimensions": dimensions},
            "Period": 300,
            "Stat": stat,
        },
        "ReturnData": False,
    }


def test_everything_that_is_wired_is_found() -> None:
    wiring = Aws().wiring()
    assert wiring.schedules == (Schedule("every-minute", 1),)
    assert wiring.rules == (EventRule("stopped", {"detail": {"state": ["stopped"]}}),)
    assert wiring.alarm.expression(PeriodFacts(visible_average=1.0, sent_sum=2)) == 3.0
    assert (wiring.alarm.period_s, wiring.alarm.evaluation_periods) == (300.0, 6)


def test_a_rule_that_may_not_invoke_or_is_disabled_or_has_another_target_does_not_call() -> None:
    aws = Aws()
    del aws.may_invoke[STOPPED]
    assert aws.wiring().rules == ()
    aws.rules[0]["State"] = "DISABLED"
    assert aws.wiring().schedules == ()
    aws.rules[0]["State"] = "ENABLED"
    aws.targets["every-minute"] = ["arn:aws:lambda:us-east-1:123456789012:function:another"]
    assert aws.wiring().schedules == ()


@pytest.mark.parametrize(
    "change",
    [
        {"AlarmActions": []},
        {"ActionsEnabled": False},
        {"TreatMissingData": "missing"},
        {"ComparisonOperator": "LessThanThreshold"},
        {"Metrics": [{"Id": "all", "Expression": "held"}, query("held", "NumberOfMessagesReceived", "Sum")]},
        {"AlarmArn": "arn:aws:cloudwatch:us-east-1:123456789012:alarm:another"},
    ],
)
def test_an_alarm_that_cannot_call_or_is_not_understood_is_refused(change: dict[str, Any]) -> None:
    aws = Aws()
    aws.alarm.update(change)
    with pytest.raises(NotWiredError):
        aws.wiring()


def test_an_alarm_on_another_queue_is_refused() -> None:
    aws = Aws()
    aws.alarm["Metrics"][1] = query("visible", "ApproximateNumberOfMessagesVisible", "Average", queue="another")
    with pytest.raises(NotWiredError, match="another"):
        aws.wiring()


@pytest.mark.parametrize(
    ("event", "matches"),
    [
        ({"source": "aws.ec2", "detail": {"state": "stopped", "instance-id": "i-1"}}, True),
        ({"source": "aws.ec2", "detail": {"state": "stopped", "instance-id": "i-2"}}, False),
        ({"source": "aws.ec2", "detail": {"instance-id": "i-1"}}, False),
        ({"source": "aws.ec2"}, False),
    ],
)
def test_a_pattern_wants_each_of_its_fields(event: dict[str, Any], *, matches: bool) -> None:
    rule = EventRule("rule", {"source": ["aws.ec2"], "detail": {"state": ["stopped"], "instance-id": ["i-1"]}})
    assert rule.matches(event) is matches
