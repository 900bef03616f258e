from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from services.adapter.settings import AdapterSettings
from services.doctor import deployment
from services.doctor.deployment import ENVIRONMENT_OUTPUT, OUTPUTS, Deployment, read_outputs
from services.doctor.errors import DeploymentError
from services.doctor.judgement import function, instance
from services.orchestrator.settings import OrchestratorSettings
from services.shutdown.settings import Settings as ShutdownSettings
from tests.doctor.health import QUEUE_URL, VARIABLES
from tests.terraform.hcl import block, default, local

TERRAFORM = Path(__file__).resolve().parents[2] / "terraform"
SOURCES = {file.name: file.read_text() for file in sorted(TERRAFORM.glob("*.tf"))}

OUTPUT_VALUES = {
    "region": "us-east-1",
    "queue_url": QUEUE_URL,
    "dead_letter_queue_url": VARIABLES["SQS_DLQ_URL"],
    "table_name": "task_store",
    "gpu_instance_id": VARIABLES["GPU_INSTANCE_ID"],
    "idle_alarm_name": "QueueEmptyFor30Min",
    "shutdown_function_name": "shutdown-gpu-lambda",
    "task_max_age_s": 7200,
    "api_url": "https://gpu.example.com",
    "adapter_environment": "COMFYUI_API_URL=http://localhost:8000\nHEARTBEAT_S=50\nVISIBILITY_TIMEOUT_S=150",
    "alert_topic_arn": "arn:aws:sns:us-east-1:123456789012:gpu-alerts",
}


def outputs(**changes: Any) -> str:
    values = {name: value for name, value in {**OUTPUT_VALUES, **changes}.items() if value != "left out"}
    return json.dumps({name: {"sensitive": False, "type": "string", "value": value} for name, value in values.items()})


def test_variables_name_a_deployment() -> None:
    known = Deployment.from_variables({**VARIABLES, "HEARTBEAT_S": "50"})
    assert (known.region, known.table, known.heartbeat_s, known.visibility_timeout_s) == (
        "us-east-1",
        "task_store",
        50,
        300,
    )
    assert (known.queue.region, known.queue.account, known.queue.name) == (
        "us-east-1",
        "123456789012",
        "gpu_tasks_queue",
    )


def test_every_variable_that_is_missing_is_named() -> None:
    with pytest.raises(DeploymentError) as raised:
        Deployment.from_variables({"AWS_REGION": "us-east-1", "DYNAMODB_TABLE": " "})
    assert str(raised.value) == (
        "SQS_QUEUE_URL is not set; SQS_DLQ_URL is not set; DYNAMODB_TABLE is not set; GPU_INSTANCE_ID is not set; "
        "IDLE_ALARM_NAME is not set; SHUTDOWN_FUNCTION_NAME is not set"
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SQS_QUEUE_URL", "gpu_tasks_queue"),
        ("SQS_DLQ_URL", "https://sqs.us-east-1.amazonaws.com/1234/gpu_tasks_dlq"),
        ("HEARTBEAT_S", "often"),
        ("VISIBILITY_TIMEOUT_S", "0"),
        ("TASK_MAX_AGE_S", "inf"),
        ("API_URL", "gpu.example.com"),
        ("API_URL", "file:///etc/passwd"),
        ("API_URL", "https://gpu.example.com/api"),
    ],
)
def test_what_is_wrong_is_named_without_its_value(name: str, value: str) -> None:
    with pytest.raises(DeploymentError, match=f"^{name}: ") as raised:
        Deployment.from_variables({**VARIABLES, name: value})
    assert value not in str(raised.value).removeprefix(name)


@pytest.mark.parametrize(
    ("url", "region"),
    [
        ("https://sqs.cn-north-1.amazonaws.com.cn/123456789012/q", "cn-north-1"),
        ("https://queue.amazonaws.com/123456789012/q", ""),
        ("http://127.0.0.1:5000/123456789012/q", ""),
    ],
)
def test_an_address_tells_its_region_where_it_has_one(url: str, region: str) -> None:
    assert Deployment.from_variables({**VARIABLES, "SQS_QUEUE_URL": url}).queue.region == region


def test_outputs_of_terraform_name_a_deployment() -> None:
    known = Deployment.from_variables(read_outputs(outputs()))
    assert (known.queue.url, known.heartbeat_s, known.visibility_timeout_s) == (QUEUE_URL, 50, 150)
    assert (known.task_max_age_s, known.api_url) == (7200, "https://gpu.example.com")


def test_an_orchestrator_without_a_name_is_not_asked() -> None:
    assert Deployment.from_variables(read_outputs(outputs(api_url=None))).api_url is None


def test_outputs_of_an_older_configuration_suffice() -> None:
    assert Deployment.from_variables(read_outputs(outputs(task_max_age_s="left out"))).task_max_age_s == 86_400


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("{}", "Terraform's outputs lack region, queue_url, .*, adapter_environment: `terraform apply` first"),
        (outputs(queue_url="left out"), "Terraform's outputs lack queue_url: `terraform apply` first"),
        ("", "that is not what `terraform output -json` prints"),
        ("[]", "that is not what"),
        ('{"region": "us-east-1"}', "that is not what"),
    ],
)
def test_other_texts_are_refused(text: str, complaint: str) -> None:
    with pytest.raises(DeploymentError, match=complaint):
        read_outputs(text)


def test_commands_can_be_pasted() -> None:
    known = Deployment.from_variables(VARIABLES)
    assert known.aws("sqs", "x", '{"a": "b c"}') == """aws --region us-east-1 sqs x '{"a": "b c"}'"""


@pytest.mark.parametrize("output", [*OUTPUTS, ENVIRONMENT_OUTPUT])
def test_terraform_has_the_output(output: str) -> None:
    assert block(SOURCES, f'output "{output}"')


@pytest.mark.parametrize("variable", ["HEARTBEAT_S", "VISIBILITY_TIMEOUT_S"])
def test_terraform_tells_the_adapters_numbers(variable: str) -> None:
    assert re.search(rf"^    {variable} +=", SOURCES["adapter.tf"], re.MULTILINE)


def test_the_defaults_are_the_services_own() -> None:
    assert AdapterSettings.model_fields["heartbeat_s"].default == deployment.HEARTBEAT_S
    assert AdapterSettings.model_fields["visibility_timeout_s"].default == deployment.VISIBILITY_TIMEOUT_S
    assert OrchestratorSettings.model_fields["task_max_age_s"].default == deployment.TASK_MAX_AGE_S
    names = ("AWS_REGION", "GPU_INSTANCE_ID", "DYNAMODB_TABLE", "SQS_QUEUE_URL")
    assert ShutdownSettings.from_env(dict.fromkeys(names, "x")).policy.idle_s == function.IDLE_S
    assert float(default(SOURCES, "idle_s")) == function.IDLE_S


def test_what_is_expected_is_what_terraform_makes() -> None:
    alarm = block(SOURCES, 'resource "aws_cloudwatch_metric_alarm" "idle"')
    assert f'"{function.HANDLER}"' in SOURCES["shutdown.tf"]
    assert f'"{function.ALARM_PRINCIPAL}"' in SOURCES["shutdown.tf"]
    assert f'"{function.EVERY_MINUTE[0]}"' in SOURCES["shutdown.tf"]
    assert 'expression  = "IF(cpu >= 0, visible + sent, 1)"' in alarm
    tag = 'gpu_tag = {{ key = "{}", value = "{}" }}'.format(*instance.TAG)
    assert tag in SOURCES["names.tf"]
    assert local(SOURCES, "idle_alarm_period_s") == "300"
