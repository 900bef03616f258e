"""The environment: complete, right, or one line that names the variable."""

import pytest

from services.shutdown.decision import Policy
from services.shutdown.errors import SettingError
from services.shutdown.settings import Settings

NEEDED = {
    "AWS_REGION": "us-east-1",
    "GPU_INSTANCE_ID": "i-0fedcba9876543210",
    "DYNAMODB_TABLE": "task_store",
    "SQS_QUEUE_URL": "http://127.0.0.1/123456789012/gpu_tasks_queue",
}


def test_what_is_not_a_resource_has_a_default() -> None:
    settings = Settings.from_env(NEEDED)
    assert settings.policy == Policy(
        idle_s=1800, worker_grace_s=900, hold_s=900, hold_max_s=14400, force_stop_after_s=600
    )
    assert settings.alert_topic_arn is None
    assert settings.log_level == "INFO"
    assert settings.metrics is False


def test_everything_can_be_said() -> None:
    said = {
        "IDLE_S": "12.5",
        "WORKER_GRACE_S": "6",
        "HOLD_S": "3",
        "HOLD_MAX_S": "9",
        "FORCE_STOP_AFTER_S": "8",
        "ALERT_TOPIC_ARN": "arn:aws:sns:us-east-1:123456789012:alerts",
        "LOG_LEVEL": "debug",
        "METRICS": "log",
        "METRICS_NAMESPACE": "gpu-on-demand-staging",
    }
    settings = Settings.from_env(NEEDED | said)
    assert settings.policy == Policy(idle_s=12.5, worker_grace_s=6, hold_s=3, hold_max_s=9, force_stop_after_s=8)
    assert settings.alert_topic_arn == said["ALERT_TOPIC_ARN"]
    assert settings.log_level == "DEBUG"
    assert (settings.metrics, settings.metrics_namespace) == (True, "gpu-on-demand-staging")


@pytest.mark.parametrize("variable", NEEDED)
@pytest.mark.parametrize("value", [None, "", "  "])
def test_a_missing_resource_is_named(variable: str, value: str | None) -> None:
    environ = {name: text for name, text in NEEDED.items() if name != variable}
    if value is not None:
        environ[variable] = value
    with pytest.raises(SettingError, match=f"^{variable}: is not set$"):
        Settings.from_env(environ)


@pytest.mark.parametrize("variable", ["IDLE_S", "WORKER_GRACE_S", "HOLD_S", "HOLD_MAX_S", "FORCE_STOP_AFTER_S"])
@pytest.mark.parametrize("value", ["0", "-1", "nan", "inf", "30 min", "1e999"])
def test_a_nonsensical_duration_is_named(variable: str, value: str) -> None:
    with pytest.raises(SettingError, match=f"^{variable}: must be") as caught:
        Settings.from_env(NEEDED | {variable: value})
    assert caught.value.variable == variable
    assert "\n" not in str(caught.value)


def test_holds_cannot_be_capped_below_the_first() -> None:
    with pytest.raises(SettingError, match=r"^HOLD_MAX_S: must not be below HOLD_S"):
        Settings.from_env(NEEDED | {"HOLD_S": "20", "HOLD_MAX_S": "10"})


def test_an_unknown_log_level_is_named() -> None:
    with pytest.raises(SettingError, match=r"^LOG_LEVEL: must be one of"):
        Settings.from_env(NEEDED | {"LOG_LEVEL": "loud"})


def test_metrics_that_the_lambda_cannot_write_are_named() -> None:
    with pytest.raises(SettingError, match=r"^METRICS: must be off or log"):
        Settings.from_env(NEEDED | {"METRICS": "cloudwatch"})
