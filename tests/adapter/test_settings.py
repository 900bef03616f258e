"""What an operator can set, and what is said about what is set wrong."""

from __future__ import annotations

import os

import pytest
from pydantic import ValidationError

from lib.daemon.configuration import EXIT_CONFIGURATION, load_settings
from services.adapter.settings import AdapterSettings

REQUIRED = {
    "AWS_REGION": "us-east-1",
    "SQS_QUEUE_URL": "https://sqs.us-east-1.amazonaws.com/123456789012/gpu_tasks_queue",
    "DYNAMODB_TABLE": "task_store",
}


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """The environment with what is required and nothing else of ours."""
    for name in (*AdapterSettings.model_fields, *os.environ):
        if name.lower() in AdapterSettings.model_fields:
            monkeypatch.delenv(name.upper(), raising=False)
    for name, value in REQUIRED.items():
        monkeypatch.setenv(name, value)
    return monkeypatch


def test_three_variables_suffice(environment: pytest.MonkeyPatch) -> None:
    settings = load_settings(AdapterSettings)
    assert str(settings.comfyui_api_url).rstrip("/") == "http://localhost:8000"
    assert settings.concurrency == 1
    assert settings.visibility_timeout_s == 300
    assert settings.heartbeat_s == settings.visibility_timeout_s / 3
    assert settings.job_deadline_s == 25 * 60
    assert settings.max_attempts == 3


def test_an_empty_variable_is_not_set(environment: pytest.MonkeyPatch) -> None:
    """An EnvironmentFile has lines such as `AWS_ENDPOINT_URL=`."""
    for name in ("AWS_ENDPOINT_URL", "GPU_INSTANCE_ID", "CONCURRENCY"):
        environment.setenv(name, "")
    settings = load_settings(AdapterSettings)
    assert (settings.aws_endpoint_url, settings.gpu_instance_id, settings.concurrency) == (None, "", 1)


def test_settings_do_not_change(environment: pytest.MonkeyPatch) -> None:
    settings = load_settings(AdapterSettings)
    with pytest.raises(ValidationError):
        settings.concurrency = 2  # type: ignore[misc]


@pytest.mark.parametrize("name", REQUIRED)
@pytest.mark.parametrize("value", [None, ""])
def test_a_missing_variable_is_named(
    environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str, value: str | None
) -> None:
    environment.delenv(name) if value is None else environment.setenv(name, value)
    with pytest.raises(SystemExit) as caught:
        load_settings(AdapterSettings)
    assert caught.value.code == EXIT_CONFIGURATION == 78
    assert capsys.readouterr().err == f"configuration: {name} is not set\n"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SQS_QUEUE_URL", "gpu_tasks_queue"),
        ("COMFYUI_API_URL", "localhost:8000"),
        ("COMFYUI_API_URL", "http://localhost:8000/comfy"),
        ("CONCURRENCY", "0"),
        ("CONCURRENCY", "many"),
        ("VISIBILITY_TIMEOUT_S", "1"),
        ("VISIBILITY_TIMEOUT_S", "43201"),
        ("HEARTBEAT_S", "150"),
        ("HEARTBEAT_S", "0"),
        ("HEARTBEAT_S", "nan"),
        ("RECEIVE_WAIT_S", "21"),
        ("JOB_DEADLINE_S", "1800"),
        ("JOB_DEADLINE_S", "0"),
        ("JOB_DEADLINE_S", "nan"),
        ("MAX_ATTEMPTS", "0"),
        ("POLL_INTERVAL_S", "0"),
        ("HEALTH_INTERVAL_S", "0"),
        ("WORKER_BEAT_S", "0"),
        ("DRAIN_S", "-1"),
        ("DRAIN_S", "nan"),
        ("DRAIN_S", "inf"),
        ("LOG_FORMAT", "xml"),
        ("METRICS", "statsd"),
        ("METRICS_NAMESPACE", "AWS/SQS"),
        ("LOG_LEVEL", "LOUD"),
        ("AWS_ENDPOINT_URL", "localhost"),
    ],
)
def test_a_wrong_variable_is_named_in_one_line(
    environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str, value: str
) -> None:
    environment.setenv(name, value)
    with pytest.raises(SystemExit) as caught:
        load_settings(AdapterSettings)
    assert caught.value.code == EXIT_CONFIGURATION
    [line] = capsys.readouterr().err.splitlines()
    assert name in line


def test_all_that_is_wrong_is_named_at_once(
    environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    environment.delenv("SQS_QUEUE_URL")
    environment.setenv("CONCURRENCY", "0")
    with pytest.raises(SystemExit):
        load_settings(AdapterSettings)
    [line] = capsys.readouterr().err.splitlines()
    assert "SQS_QUEUE_URL" in line
    assert "CONCURRENCY" in line


def test_a_heartbeat_may_be_missed_once(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("VISIBILITY_TIMEOUT_S", "60")
    environment.setenv("HEARTBEAT_S", "29")
    assert load_settings(AdapterSettings).heartbeat_s == 29


def test_values_are_not_printed(environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    environment.setenv("SQS_QUEUE_URL", "not-a-url-but-a-secret")
    with pytest.raises(SystemExit):
        load_settings(AdapterSettings)
    assert "secret" not in capsys.readouterr().err
