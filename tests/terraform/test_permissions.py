"""Least privilege: each role may do exactly what the code that runs under it calls."""

from __future__ import annotations

import re

import pytest

from tests.terraform.calls import Call, calls_of_lambda, calls_of_service, unknown_holders
from tests.terraform.hcl import statements, strings

PLACES = {
    "aws_dynamodb_table.tasks.arn": "table",
    "${aws_dynamodb_table.tasks.arn}/index/${local.names.index}": "index",
    "aws_sqs_queue.tasks.arn": "queue",
    "aws_sqs_queue.dead_letters.arn": "dead_letters",
    "aws_sns_topic.alerts.arn": "alerts",
    "local.gpu_instance_arn": "instance",
    "${aws_cloudwatch_log_group.shutdown.arn}:*": "logs",
    "arn:${local.partition}:kms:${var.region}:${local.account_id}:key/*": "volume_keys",
}
# Where AWS knows no resource for an action.
EVERYWHERE = {"ec2": "instance", "cloudwatch": "metrics"}
# The runtime's own: no code of ours calls them.
LAMBDA_LOGS = {("logs", "CreateLogStream"), ("logs", "PutLogEvents")}
# What AWS calls in the caller's name: EC2 attaches encrypted volumes.
# https://docs.aws.amazon.com/ebs/latest/userguide/ebs-encryption-requirements.html
IN_OUR_NAME = {("instance", "StartInstances"): {("volume_keys", "CreateGrant")}}


def allowed(sources: dict[str, str], document: str) -> set[Call]:
    return {
        (PLACES.get(resource) or EVERYWHERE[action.partition(":")[0]], action.partition(":")[2])
        for statement in statements(sources, document)
        for action in strings(statement, "actions")
        for resource in strings(statement, "resources")
    }


def test_the_orchestrator_may_do_what_it_does(sources: dict[str, str]) -> None:
    calls = calls_of_service("orchestrator")
    besides = {call for ours, calls_of_aws in IN_OUR_NAME.items() if ours in calls for call in calls_of_aws}
    assert allowed(sources, "orchestrator") == calls | besides
    assert besides


def test_only_ec2_gets_grants_and_only_for_volumes(sources: dict[str, str]) -> None:
    (statement,) = [
        text for text in statements(sources, "orchestrator") if "kms:CreateGrant" in strings(text, "actions")
    ]
    conditions = [
        re.findall(r'(test|variable) += "([\w:]+)"', text)
        for text in re.findall(r"condition {(.*?)}\n", statement, re.DOTALL)
    ]
    assert [dict(condition) for condition in conditions] == [
        {"test": "Bool", "variable": "kms:GrantIsForAWSResource"},
        {"test": "StringEquals", "variable": "kms:ViaService"},
    ]
    assert re.findall(r"values += \[(.*?)\]", statement) == ['"true"', '"ec2.${var.region}.amazonaws.com"']


def test_the_adapter_may_do_what_it_does(sources: dict[str, str]) -> None:
    assert allowed(sources, "adapter") == calls_of_service("adapter", "lib/asyncaws/consumer.py")


@pytest.mark.parametrize("service", ["orchestrator", "adapter"])
def test_who_publishes_metrics_by_call_may_do_that_besides(sources: dict[str, str], service: str) -> None:
    """The orchestrator on Fargate writes lines instead, and gets no such policy; `metrics.tftest.hcl` sees to that."""
    besides = calls_of_service(service, "lib/asyncaws/reporter.py") - calls_of_service(service)
    assert allowed(sources, "publish_metrics") == besides == {("metrics", "PutMetricData")}


@pytest.mark.parametrize(
    ("document", "namespace"), [("publish_metrics", "local.metrics_namespace"), ("gpu_agent", "local.gpu_namespace")]
)
def test_metrics_are_published_into_one_namespace_only(sources: dict[str, str], document: str, namespace: str) -> None:
    (statement,) = statements(sources, document)
    assert strings(statement, "actions") == ["cloudwatch:PutMetricData"]
    assert 'variable = "cloudwatch:namespace"' in statement
    assert strings(statement, "values") == [namespace]


@pytest.mark.parametrize("service", ["orchestrator", "adapter"])
def test_no_call_hides_behind_a_new_name(service: str) -> None:
    assert unknown_holders(service) == set()


def test_the_lambda_may_do_what_it_does(sources: dict[str, str]) -> None:
    assert allowed(sources, "shutdown") == calls_of_lambda() | LAMBDA_LOGS


@pytest.mark.parametrize(
    ("document", "verb"), [("orchestrator", "ec2:StartInstances"), ("shutdown", "ec2:StopInstances")]
)
def test_only_the_one_tagged_instance_is_started_and_stopped(sources: dict[str, str], document: str, verb: str) -> None:
    (statement,) = [text for text in statements(sources, document) if verb in strings(text, "actions")]
    assert strings(statement, "actions") == [verb]
    assert strings(statement, "resources") == ["local.gpu_instance_arn"]
    assert 'variable = "ec2:ResourceTag/${local.gpu_tag.key}"' in statement
    assert strings(statement, "values") == ["local.gpu_tag.value"]


@pytest.mark.parametrize(
    "document",
    ["orchestrator", "adapter", "shutdown", "execution", "fetch_release", "publish_metrics", "gpu_agent"],
)
def test_nothing_is_allowed_by_wildcard(sources: dict[str, str], document: str) -> None:
    # AWS knows no resource for them.
    everywhere = {"ec2:DescribeInstances", "ecr:GetAuthorizationToken", "cloudwatch:PutMetricData"}
    for statement in statements(sources, document):
        actions = strings(statement, "actions")
        assert not any("*" in action for action in actions)
        if strings(statement, "resources") == ["*"]:
            assert set(actions) <= everywhere
