from __future__ import annotations

import hashlib
import os

import pytest

from lib.daemon.configuration import EXIT_CONFIGURATION, load_settings
from lib.gputask.image_buckets import BucketPrefix
from lib.gputask.request_rules import RequestRules
from services.orchestrator.settings import OrchestratorSettings

REQUIRED = {
    "AWS_REGION": "us-east-1",
    "SQS_QUEUE_URL": "https://sqs.us-east-1.amazonaws.com/123456789012/gpu_tasks_queue",
    "SQS_DLQ_URL": "https://sqs.us-east-1.amazonaws.com/123456789012/gpu_tasks_dlq",
    "DYNAMODB_TABLE": "task_store",
    "GPU_INSTANCE_ID": "i-0fedcba9876543210",
}
SECRET = "correct-horse-battery-staple"
DIGEST = hashlib.sha256(SECRET.encode()).hexdigest()


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Nothing but what must be set."""
    for name in os.environ:
        monkeypatch.delenv(name)
    for name, text in REQUIRED.items():
        monkeypatch.setenv(name, text)
    return monkeypatch


def refusal(capsys: pytest.CaptureFixture[str]) -> str:
    """The one line that says what is wrong."""
    with pytest.raises(SystemExit) as end:
        load_settings(OrchestratorSettings)
    assert end.value.code == EXIT_CONFIGURATION == 78
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_what_must_be_set_is_enough_on_loopback() -> None:
    settings = load_settings(OrchestratorSettings)
    assert (settings.host, settings.port, settings.keys, settings.origins) == ("127.0.0.1", 8080, (), ())
    assert str(settings.sqs_queue_url) == REQUIRED["SQS_QUEUE_URL"]
    assert settings.aws_endpoint_url is None
    assert settings.allow_private_image_urls is False


@pytest.mark.parametrize("how", ["missing", "empty"])
@pytest.mark.parametrize("name", REQUIRED)
def test_no_resource_has_a_default(
    environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str, how: str
) -> None:
    if how == "missing":
        environment.delenv(name)
    else:
        environment.setenv(name, "")
    assert refusal(capsys) == f"configuration: {name} is not set"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("GPU_INSTANCE_ID", "gpu-1"),
        ("GPU_INSTANCE_ID", "i-0F0F6FD680921DE5F"),
        ("SQS_QUEUE_URL", "gpu_tasks_queue"),
        ("SQS_DLQ_URL", "arn:aws:sqs:us-east-1:123456789012:gpu_tasks_dlq"),
        ("AWS_ENDPOINT_URL", "localhost:4566"),
        ("PORT", "0"),
        ("PORT", "65536"),
        ("PORT", "http"),
        ("ALLOW_PRIVATE_IMAGE_URLS", "perhaps"),
        ("MAX_SUBMISSIONS", "0"),
        ("IMAGE_BUCKETS", "my-bucket/prefix"),
        ("IMAGE_BUCKETS", "s3://my-bucket/"),
        ("IMAGE_URL_PORTS", "0"),
        ("IMAGE_URL_PORTS", "8080-8090"),
        ("IMAGE_URL_PORTS", "8443,65536"),
        ("MAX_STEPS", "7"),
        ("MAX_STEPS", "10001"),
        ("MAX_CFG", "101"),
        ("MAX_CFG", "nan"),
        ("MAX_PROMPT", "0"),
        ("WAKER_INTERVAL_S", "0"),
        ("WAKER_INTERVAL_S", "301"),
        ("JANITOR_INTERVAL_S", "-1"),
        ("RESEND_AFTER_S", "0"),
        ("TASK_MAX_AGE_S", "a day"),
        ("TASK_RETENTION_S", "inf"),
        ("RESEND_AFTER_S", "nan"),
        ("DRAIN_S", "inf"),
        ("DRAIN_S", "-1"),
        ("LOG_FORMAT", "xml"),
        ("METRICS", "statsd"),
        ("METRICS_NAMESPACE", "AWS/SQS"),
        ("LOG_LEVEL", "verbose"),
    ],
)
def test_a_wrong_value_is_named_by_its_variable(
    environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str, text: str
) -> None:
    environment.setenv(name, text)
    assert refusal(capsys).startswith(f"configuration: {name}: ")


def test_all_wrong_variables_are_named_in_one_line(
    environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    environment.setenv("PORT", "http")
    environment.setenv("LOG_FORMAT", "xml")
    environment.delenv("SQS_DLQ_URL")
    line = refusal(capsys)
    assert all(name in line for name in ("PORT: ", "LOG_FORMAT: ", "SQS_DLQ_URL is not set"))


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "::1", "localhost"])
def test_loopback_needs_no_api_keys(environment: pytest.MonkeyPatch, host: str) -> None:
    environment.setenv("HOST", host)
    assert load_settings(OrchestratorSettings).keys == ()


@pytest.mark.parametrize("keys", [None, "", " "])
@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.7", "orchestrator.internal"])
def test_elsewhere_api_keys_are_mandatory(
    environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], host: str, keys: str | None
) -> None:
    environment.setenv("HOST", host)
    environment.setenv("IMAGE_BUCKETS", "pictures")
    if keys is not None:
        environment.setenv("API_KEYS", keys)
    line = refusal(capsys)
    assert line.startswith("configuration: API_KEYS is not set")
    assert host in line


@pytest.mark.parametrize("buckets", [None, "", " "])
@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.7", "orchestrator.internal"])
def test_elsewhere_the_buckets_of_images_are_mandatory(
    environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], host: str, buckets: str | None
) -> None:
    environment.setenv("HOST", host)
    environment.setenv("API_KEYS", f"web:{DIGEST}")
    if buckets is not None:
        environment.setenv("IMAGE_BUCKETS", buckets)
    line = refusal(capsys)
    assert line.startswith("configuration: IMAGE_BUCKETS is not set")
    assert host in line


def test_on_loopback_images_may_come_from_all_buckets(environment: pytest.MonkeyPatch) -> None:
    assert load_settings(OrchestratorSettings).rules == RequestRules()


def test_what_requests_may_say_follows_the_settings(environment: pytest.MonkeyPatch) -> None:
    values = {
        "IMAGE_BUCKETS": "my-bucket, other/prefix/",
        "IMAGE_URL_PORTS": "8080, 8443,",
        "MAX_STEPS": "8",
        "MAX_CFG": "7.5",
        "MAX_PROMPT": "500",
    }
    for name, text in values.items():
        environment.setenv(name, text)
    rules = load_settings(OrchestratorSettings).rules
    assert rules.images.ports == {80, 443, 8080, 8443}
    assert rules.images.buckets.prefixes == [BucketPrefix("my-bucket"), BucketPrefix("other", "prefix/")]
    assert (rules.max_steps, rules.max_cfg, rules.max_prompt) == (8, 7.5, 500)


def test_several_named_clients(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("HOST", "0.0.0.0")
    environment.setenv("IMAGE_BUCKETS", "none")
    environment.setenv("API_KEYS", f"web:{DIGEST}, batch:{'ab' * 32}")
    assert [key.client_id for key in load_settings(OrchestratorSettings).keys] == ["web", "batch"]


@pytest.mark.parametrize(
    "entry", [SECRET, f"web:{SECRET}", f"web {DIGEST}", f"web:{DIGEST}0", f"web:{DIGEST},{SECRET}"]
)
def test_a_bad_entry_of_api_keys_is_not_echoed(
    environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], entry: str
) -> None:
    environment.setenv("API_KEYS", entry)
    line = refusal(capsys)
    assert line.startswith("configuration: API_KEYS: entry ")
    assert SECRET not in line
    assert DIGEST not in line


def test_the_keys_are_not_in_the_settings_text(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("API_KEYS", f"web:{DIGEST}")
    assert DIGEST not in repr(load_settings(OrchestratorSettings))


@pytest.mark.parametrize(
    ("ages", "names"),
    [
        pytest.param(
            {"TASK_MAX_AGE_S": "600000", "TASK_RETENTION_S": "600000"},
            ("TASK_MAX_AGE_S", "TASK_RETENTION_S"),
            id="a record would vanish before its task ends",
        ),
        pytest.param(
            {"RESEND_AFTER_S": "3600", "TASK_MAX_AGE_S": "3600"},
            ("RESEND_AFTER_S", "TASK_MAX_AGE_S"),
            id="a lost message would never be sent again",
        ),
    ],
)
def test_ages_that_do_not_fit_together_are_named(
    environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], ages: dict[str, str], names: tuple[str, str]
) -> None:
    for name, text in ages.items():
        environment.setenv(name, text)
    line = refusal(capsys)
    assert all(name in line for name in names)


def test_origins_are_separated_by_commas(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("CORS_ORIGINS", "https://app.example.com, http://localhost:3000,")
    assert load_settings(OrchestratorSettings).origins == ("https://app.example.com", "http://localhost:3000")


def test_settings_cannot_be_changed() -> None:
    settings = load_settings(OrchestratorSettings)
    with pytest.raises(ValueError, match="frozen"):
        settings.port = 1  # type: ignore[misc]  # that is the point


@pytest.mark.parametrize("origins", ["localhost:5173", "https://app.example.com/", "https://a.example, b.example"])
def test_an_origin_is_written_as_browsers_write_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], origins: str
) -> None:
    monkeypatch.setenv("CORS_ORIGINS", origins)
    assert "say http://localhost:5173" in refusal(capsys)


@pytest.mark.parametrize("origins", ["", "*", "http://localhost:5173", "https://a.example, https://b.example:8443"])
def test_origins_with_a_scheme_are_taken(monkeypatch: pytest.MonkeyPatch, origins: str) -> None:
    monkeypatch.setenv("CORS_ORIGINS", origins)
    load_settings(OrchestratorSettings)


def test_the_levels_are_listed_to_whoever_names_another(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LOG_LEVEL", "loud")
    assert refusal(capsys).endswith("LOG_LEVEL: Input should be 'DEBUG', 'INFO', 'WARNING' or 'ERROR'")
