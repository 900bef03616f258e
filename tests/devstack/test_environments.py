import hashlib
from pathlib import Path

import pytest

from services.devstack.environments import (
    Plan,
    adapter_environment,
    api_keys,
    doctor_environment,
    lambda_environment,
    orchestrator_environment,
    upstream_environment,
)
from services.devstack.options import StackOptions
from services.devstack.resources import Resources
from services.devstack.surroundings import surroundings
from services.doctor.deployment import Deployment
from services.orchestrator.settings import OrchestratorSettings

RESOURCES = Resources(
    region="us-east-1",
    bucket="bucket",
    queue_name="queue",
    queue_url="http://127.0.0.1:1/123456789012/queue",
    dead_letter_queue_name="dead",
    dead_letter_queue_url="http://127.0.0.1:1/123456789012/dead",
    table="table",
    instance_id="i-1",
)


def plan(options: StackOptions) -> Plan:
    return Plan(
        options=options,
        resources=RESOURCES,
        orchestrator_port=81,
        upstream_port=82,
        comfyui_port=83,
        log_dir=Path("/tmp/logs"),
    )


@pytest.mark.parametrize("scale", [1, 60, 120, 240, 1000])
def test_the_most_steps_that_may_be_asked_for_end_before_the_deadline(scale: float) -> None:
    told = plan(StackOptions(scale=scale))
    most = OrchestratorSettings.model_fields["max_steps"].default
    deadline_s, step_s = (
        float(adapter_environment(told)["JOB_DEADLINE_S"]),
        float(upstream_environment(told)["STEP_S"]),
    )
    assert most * step_s < 0.9 * deadline_s


def test_the_doctor_is_told_what_it_needs() -> None:
    told = doctor_environment(plan(StackOptions()), "http://127.0.0.1:83")
    deployment = Deployment.from_variables(told)
    assert deployment.instance_id == RESOURCES.instance_id
    assert deployment.api_url == "http://127.0.0.1:81"
    assert told["AWS_ENDPOINT_URL"] == "http://127.0.0.1:83"


def test_clients_name_objects_of_the_one_bucket_only() -> None:
    assert orchestrator_environment(plan(StackOptions()))["IMAGE_BUCKETS"] == RESOURCES.bucket


def test_thirty_minutes_are_fifteen_seconds_at_120() -> None:
    assert lambda_environment(plan(StackOptions(scale=120)))["IDLE_S"] == "15"


def test_at_scale_1_the_times_are_those_of_aws() -> None:
    real = plan(StackOptions(scale=1, visibility_s=300))
    shutdown, orchestrator, adapter = (
        lambda_environment(real),
        orchestrator_environment(real),
        adapter_environment(real),
    )
    assert [shutdown[name] for name in ("IDLE_S", "WORKER_GRACE_S", "HOLD_S", "HOLD_MAX_S", "FORCE_STOP_AFTER_S")] == [
        "1800",
        "900",
        "900",
        "14400",
        "600",
    ]
    assert [orchestrator[name] for name in ("WAKER_INTERVAL_S", "JANITOR_INTERVAL_S", "RESEND_AFTER_S")] == [
        "30",
        "60",
        "600",
    ]
    assert [adapter[name] for name in ("VISIBILITY_TIMEOUT_S", "HEARTBEAT_S", "JOB_DEADLINE_S")] == [
        "300",
        "100",
        "1500",
    ]


@pytest.mark.parametrize("scale", [1.0, 60.0, 120.0, 240.0, 1800.0])
def test_no_clock_is_so_fast_that_a_worker_is_given_up_before_it_can_start(scale: float) -> None:
    options = StackOptions(scale=scale, boot_s=3, pending_s=2)
    assert float(lambda_environment(plan(options))["WORKER_GRACE_S"]) >= 15
    assert float(orchestrator_environment(plan(options))["RESEND_AFTER_S"]) >= 15
    assert float(orchestrator_environment(plan(options))["WAKER_INTERVAL_S"]) >= 0.25


@pytest.mark.parametrize("visibility_s", [2, 6, 300])
def test_heartbeats_come_often_enough_for_one_to_be_missed(visibility_s: int) -> None:
    environment = adapter_environment(plan(StackOptions(visibility_s=visibility_s)))
    assert float(environment["HEARTBEAT_S"]) < visibility_s / 2


def test_the_adapter_is_told_where_its_upstream_listens() -> None:
    options = StackOptions()
    assert adapter_environment(plan(options))["COMFYUI_API_URL"].endswith(upstream_environment(plan(options))["PORT"])


def test_the_adapter_is_told_where_comfyui_listens() -> None:
    options = StackOptions()
    assert adapter_environment(plan(options))["COMFYUI_URL"].endswith(
        upstream_environment(plan(options))["COMFYUI_PORT"]
    )


def test_what_the_caller_sets_wins() -> None:
    chosen = StackOptions(
        orchestrator_env={"DRAIN_S": "9"},
        adapter_env={"CONCURRENCY": "4"},
        upstream_env={"HANG_ON": "hang"},
        lambda_env={"IDLE_S": "1"},
    )
    assert orchestrator_environment(plan(chosen))["DRAIN_S"] == "9"
    assert adapter_environment(plan(chosen))["CONCURRENCY"] == "4"
    assert upstream_environment(plan(chosen))["HANG_ON"] == "hang"
    assert lambda_environment(plan(chosen))["IDLE_S"] == "1"


def test_keys_are_handed_over_as_hashes() -> None:
    told = api_keys({"web": "secret", "batch": "other"})
    assert told == f"web:{hashlib.sha256(b'secret').hexdigest()},batch:{hashlib.sha256(b'other').hexdigest()}"
    assert api_keys({}) == ""


def test_nothing_of_the_machines_own_aws_account_reaches_a_service(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "production")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "real")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "real")
    environment = surroundings("http://127.0.0.1:1", {"OWN": "1"})
    assert "AWS_PROFILE" not in environment
    assert "AWS_SESSION_TOKEN" not in environment
    assert environment["AWS_SECRET_ACCESS_KEY"] == "devstack"
    assert environment["AWS_ENDPOINT_URL"] == "http://127.0.0.1:1"
    assert environment["OWN"] == "1"
