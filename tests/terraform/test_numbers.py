"""One set of numbers and names: Terraform's, systemd's, and those of the services' own settings."""

from __future__ import annotations

import re
from typing import Any

import pytest

from lib.gputask.measures import JOBS_COMPLETED, JOBS_FAILED, MEASURES
from lib.gputask.message import MAX_MESSAGE_BYTES
from lib.gputask.schema import STATUS_INDEX, STATUS_INDEX_ATTRIBUTES, TABLE_KEY, TTL_ATTRIBUTE
from services.adapter.settings import AdapterSettings
from services.devstack import resources
from services.devstack.alarm import EXPRESSION, AlarmDefinition
from services.devstack.simulation import numbers as simulation
from services.doctor.judgement import idle_alarm
from services.orchestrator.connections import ConnectionLimits, most_connections
from services.orchestrator.settings import OrchestratorSettings
from services.shutdown.decision import Rule
from services.shutdown.meter import Meter as ShutdownMeter
from services.shutdown.settings import Settings as ShutdownSettings
from tests.terraform.cli import CONFIGURATION
from tests.terraform.hcl import block, default, keys, local

SYSTEMD = CONFIGURATION.parent / "systemd"


def adapter(name: str) -> Any:
    return AdapterSettings.model_fields[name].default


def orchestrator(name: str) -> Any:
    return OrchestratorSettings.model_fields[name].default


@pytest.mark.parametrize(
    ("variable", "setting"),
    [
        ("visibility_timeout_s", "visibility_timeout_s"),
        ("heartbeat_s", "heartbeat_s"),
        ("job_deadline_s", "job_deadline_s"),
        ("adapter_concurrency", "concurrency"),
    ],
)
def test_the_adapter_is_told_its_own_defaults(sources: dict[str, str], variable: str, setting: str) -> None:
    assert float(default(sources, variable)) == adapter(setting)


def test_the_upstream_is_where_the_adapter_expects_it(sources: dict[str, str]) -> None:
    assert default(sources, "comfyui_api_url") == str(adapter("comfyui_api_url")).rstrip("/")


def test_the_orchestrator_is_told_its_own_defaults(sources: dict[str, str]) -> None:
    for name in ("task_max_age_s", "max_steps", "max_cfg", "max_prompt"):
        assert float(default(sources, name)) == orchestrator(name)
    assert float(local(sources, "orchestrator_drain_s")) == orchestrator("drain_s")
    assert int(local(sources, "orchestrator_port")) == orchestrator("port")


def test_the_lambda_is_told_its_own_defaults(sources: dict[str, str]) -> None:
    names = ("AWS_REGION", "GPU_INSTANCE_ID", "DYNAMODB_TABLE", "SQS_QUEUE_URL")
    policy = ShutdownSettings.from_env(dict.fromkeys(names, "x")).policy
    for name in ("idle_s", "worker_grace_s", "hold_s", "hold_max_s", "force_stop_after_s"):
        assert float(default(sources, name)) == getattr(policy, name)


def test_deadline_idle_time_and_alarm_belong_together(sources: dict[str, str]) -> None:
    definition = AlarmDefinition()
    idle_s, period_s = float(default(sources, "idle_s")), float(local(sources, "idle_alarm_period_s"))
    assert float(default(sources, "job_deadline_s")) < idle_s
    assert period_s == definition.period_s
    assert idle_s / period_s == definition.evaluation_periods == definition.datapoints_to_alarm
    assert local(sources, "idle_alarm").replace("${var.idle_s / 60}", f"{idle_s / 60:.0f}") == (
        definition.name + "${local.suffix}"
    )


def test_everybody_means_the_same_alarm(sources: dict[str, str]) -> None:
    (expression,) = re.findall(r'expression += "(.*)"', block(sources, 'resource "aws_cloudwatch_metric_alarm" "idle"'))
    assert expression == EXPRESSION == idle_alarm.EXPRESSION


def test_fargate_waits_for_the_drain(sources: dict[str, str]) -> None:
    stop_s, drain_s = local(sources, "orchestrator_stop_timeout_s"), local(sources, "orchestrator_drain_s")
    assert float(drain_s) < float(stop_s) <= 120


def test_the_server_keeps_connections_longer_than_the_load_balancer(sources: dict[str, str]) -> None:
    (idle_s,) = re.findall(r"idle_timeout += (\d+)", sources["balancer.tf"])
    assert ConnectionLimits().idle_s > int(idle_s)


def test_fargate_may_open_the_files_that_its_connections_need(sources: dict[str, str]) -> None:
    (descriptors,) = re.findall(r"ulimits += .*softLimit = (\d+)", sources["orchestrator_fargate.tf"])
    wanted = orchestrator("max_connections")
    assert most_connections(wanted, descriptors=int(descriptors)) == wanted


def test_the_queue_takes_the_largest_message(sources: dict[str, str]) -> None:
    (largest,) = re.findall(r"max_message_size += (\d+)", block(sources, 'resource "aws_sqs_queue" "tasks"'))
    assert int(largest) == MAX_MESSAGE_BYTES


def test_the_queue_gives_up_after_the_table_does(sources: dict[str, str]) -> None:
    assert int(default(sources, "max_receive_count")) == simulation.MAX_RECEIVES > adapter("max_attempts")
    assert float(default(sources, "queue_retention_s")) > orchestrator("task_max_age_s")
    (dead_letters_s,) = re.findall(r"message_retention_seconds = (\d+)", sources["queue.tf"])
    assert float(dead_letters_s) > float(default(sources, "queue_retention_s"))


def test_the_table_is_the_one_that_the_code_expects(sources: dict[str, str]) -> None:
    body = block(sources, 'resource "aws_dynamodb_table" "tasks"')
    assert re.search(rf'hash_key += "{TABLE_KEY}"', body)
    assert local(sources, "index") == STATUS_INDEX
    (projected,) = re.findall(r"non_key_attributes = \[(.*?)\]", body, re.DOTALL)
    assert re.findall(r'"(\w+)"', projected) == list(STATUS_INDEX_ATTRIBUTES)
    assert re.search(rf'attribute_name = "{TTL_ATTRIBUTE}"\n +enabled += true', body)


def test_names_are_those_of_the_design(sources: dict[str, str]) -> None:
    assert local(sources, "queue") == resources.QUEUE_NAME + "${local.suffix}"
    assert local(sources, "dead_letters") == resources.DEAD_LETTER_QUEUE_NAME + "${local.suffix}"
    assert local(sources, "table") == resources.TABLE_NAME + "${local.suffix}"
    assert default(sources, "environment") == ""
    (tag,) = re.findall(r'gpu_tag = { key = "(\w+)", value = "([\w-]+)" }', sources["names.tf"])
    assert resources.INSTANCE_TAGS[tag[0]] == tag[1]
    assert default(sources, "gpu_instance_type") == resources.INSTANCE_TYPE


def test_metrics_go_where_they_are_looked_for(sources: dict[str, str]) -> None:
    system = local(sources, "system")
    assert system == orchestrator("metrics_namespace") + "${local.suffix}"
    assert adapter("metrics_namespace") == orchestrator("metrics_namespace")
    names = ("AWS_REGION", "GPU_INSTANCE_ID", "DYNAMODB_TABLE", "SQS_QUEUE_URL")
    assert ShutdownSettings.from_env(dict.fromkeys(names, "x")).metrics_namespace == adapter("metrics_namespace")
    assert local(sources, "metrics_namespace") == "local.names.system"


def test_nothing_is_published_unless_terraform_asks_for_it() -> None:
    assert (adapter("metrics"), orchestrator("metrics")) == ("off", "off")


def test_alarm_and_dashboard_ask_for_metrics_that_are_published(sources: dict[str, str]) -> None:
    published = {measure.name for measure in MEASURES} | {"GpuStopped"}
    shown = set(re.findall(r'local\.metrics_namespace, "(\w+)"', sources["dashboard.tf"]))
    shown |= set(re.findall(r'MetricName=\\"(\w+)\\"', sources["dashboard.tf"]))
    assert shown == published - {"JobsClaimed"}  # a metric that explains others, when they need it
    watched = block(sources, 'resource "aws_cloudwatch_metric_alarm" "failures"')
    assert f'failed = "{JOBS_FAILED.name}", completed = "{JOBS_COMPLETED.name}"' in watched


def test_the_docs_name_every_metric() -> None:
    operations = (CONFIGURATION.parent / "docs/operations.md").read_text()
    table = operations.partition("| metric | unit | by | |\n")[2].partition("\n\n")[0]
    ours = set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE))
    assert ours == {measure.name for measure in MEASURES} | {"GpuStopped"}


def test_the_lambda_counts_under_the_names_of_the_others() -> None:
    lines: list[str] = []
    ShutdownMeter(namespace="n", write=lines.append).failed("rule_b")
    assert f'"Name":"{JOBS_FAILED.name}","Unit":"{JOBS_FAILED.unit}"' in lines[0]
    by_cause = JOBS_FAILED.by(Cause="rule_b")
    assert by_cause in MEASURES
    assert f'"{by_cause.dimensions[0][0]}":"{by_cause.dimensions[0][1]}"' in lines[0]


def test_every_metric_is_paid_for(sources: dict[str, str]) -> None:
    services, _, stops = local(sources, "service_metric_count").partition(" + ")
    by_force = 1
    assert (int(services), int(stops)) == (len(MEASURES), len(Rule) + by_force)


def test_every_variable_that_is_set_is_one_that_is_read(sources: dict[str, str]) -> None:
    """A misspelt one would be ignored in silence."""
    assert {name.lower() for name in keys(sources, "adapter_environment")} <= set(AdapterSettings.model_fields)
    assert {name.lower() for name in keys(sources, "orchestrator_environment")} <= set(
        OrchestratorSettings.model_fields
    )
    read = (CONFIGURATION.parent / "services/shutdown/settings.py").read_text()
    told = re.findall(r"^      (\w+) += ", block(sources, 'resource "aws_lambda_function" "shutdown"'), re.MULTILINE)
    assert "GPU_INSTANCE_ID" in told
    assert [name for name in told if f'"{name}"' not in read] == []


def test_the_environment_is_put_where_systemd_looks_for_it() -> None:
    for unit, template in (
        ("sqs-adapter.service", "install_adapter.sh.tftpl"),
        ("orchestrator.service", "orchestrator_user_data.sh.tftpl"),
    ):
        (file,) = re.findall(r"^EnvironmentFile=(.*)$", (SYSTEMD / unit).read_text(), re.MULTILINE)
        script = (CONFIGURATION / "templates" / template).read_text()
        assert f" {file}\n" in script or f">{file} <<" in script
        assert f"systemctl start {unit}" in script
        assert (SYSTEMD / "install.sh").is_file()
        assert "/systemd/install.sh" in script
