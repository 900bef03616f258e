"""AWS's answers where they differ from those that Terraform's resources give."""

from __future__ import annotations

from typing import Any

import pytest

from services.doctor import sight
from services.doctor.facts import Grant
from services.doctor.judgement.function import ALARM_PRINCIPAL

STATEMENT = {
    "Effect": "Allow",
    "Principal": {"Service": ALARM_PRINCIPAL},
    "Action": "lambda:InvokeFunction",
    "Resource": "arn:aws:lambda:us-east-1:123456789012:function:f",
}


def test_an_alarm_on_one_metric_has_no_expression() -> None:
    alarm = sight.alarm(
        {
            "AlarmArn": "arn",
            "Namespace": "AWS/SQS",
            "MetricName": "ApproximateNumberOfMessagesVisible",
            "Statistic": "Average",
            "Period": 300,
            "Dimensions": [{"Name": "QueueName", "Value": "q"}],
            "ComparisonOperator": "LessThanOrEqualToThreshold",
            "Threshold": 0.0,
            "EvaluationPeriods": 6,
        }
    )
    (metric,) = alarm.metrics
    assert alarm.expression is None
    assert (metric.name, metric.statistic, metric.period_s) == ("ApproximateNumberOfMessagesVisible", "Average", 300)
    assert metric.dimensions == {"QueueName": "q"}
    assert (alarm.datapoints_to_alarm, alarm.missing_data, alarm.has_actions_enabled) == (6, "missing", True)


def test_an_alarm_on_one_metric_of_several_looks_at_that_one() -> None:
    def query(name: str, *, returned: bool) -> dict[str, Any]:
        measured = {"Metric": {"Namespace": "AWS/SQS", "MetricName": name}, "Period": 60, "Stat": "Sum"}
        return {"Id": name.lower(), "MetricStat": measured, "ReturnData": returned}

    alarm = sight.alarm(
        {
            "AlarmArn": "arn",
            "ComparisonOperator": "LessThanOrEqualToThreshold",
            "EvaluationPeriods": 1,
            "Metrics": [query("A", returned=False), query("B", returned=True)],
        }
    )
    assert alarm.expression is None
    assert [metric.id for metric in alarm.metrics] == ["b"]


@pytest.mark.parametrize(
    ("change", "granted"),
    [
        ({}, [Grant(ALARM_PRINCIPAL, None, None)]),
        ({"Action": ["lambda:GetFunction", "lambda:*"]}, [Grant(ALARM_PRINCIPAL, None, None)]),
        ({"Action": "lambda:GetFunction"}, []),
        ({"Effect": "Deny"}, []),
        ({"Principal": {"AWS": "arn:aws:iam::123456789012:root"}}, []),
        ({"Principal": {"Service": ["a", "b"]}}, [Grant("a", None, None), Grant("b", None, None)]),
        (
            {"Condition": {"ArnLike": {"AWS:SourceArn": "arn:x"}, "StringEquals": {"aws:sourceAccount": ["1"]}}},
            [Grant(ALARM_PRINCIPAL, "arn:x", "1")],
        ),
    ],
)
def test_who_may_invoke(change: dict[str, Any], granted: list[Grant]) -> None:
    assert list(sight.grants({"Statement": [STATEMENT | change]})) == granted


def test_a_single_statement_need_not_be_in_a_list() -> None:
    assert len(sight.grants({"Statement": STATEMENT})) == 1


@pytest.mark.parametrize("moment", ["2026-11-24T05:24:44.207+0000", "2026-11-24T05:24:44.207515000Z"])
def test_lambdas_way_to_write_a_moment(moment: str) -> None:
    function = sight.function({"FunctionArn": "arn", "LastModified": moment})
    assert function.modified_at == pytest.approx(1795497884.207, abs=0.001)


def test_a_queue_with_a_key_of_its_own_is_encrypted() -> None:
    attributes = {
        "QueueArn": "arn",
        "VisibilityTimeout": "300",
        "ReceiveMessageWaitTimeSeconds": "0",
        "MessageRetentionPeriod": "60",
        "ApproximateNumberOfMessages": "0",
    }
    assert not sight.queue(attributes).is_encrypted
    assert sight.queue({**attributes, "KmsMasterKeyId": "alias/aws/sqs"}).is_encrypted
