"""What is to be checked: the names and numbers of one deployment, by variables or by Terraform's outputs."""

from __future__ import annotations

import json
import math
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from services.doctor.errors import DeploymentError

# Terraform's output -> the variable that says the same.
OUTPUTS: Final = {
    "region": "AWS_REGION",
    "queue_url": "SQS_QUEUE_URL",
    "dead_letter_queue_url": "SQS_DLQ_URL",
    "table_name": "DYNAMODB_TABLE",
    "gpu_instance_id": "GPU_INSTANCE_ID",
    "idle_alarm_name": "IDLE_ALARM_NAME",
    "shutdown_function_name": "SHUTDOWN_FUNCTION_NAME",
    "task_max_age_s": "TASK_MAX_AGE_S",
    "api_url": "API_URL",
}
# An output that holds variables itself, a line each.
ENVIRONMENT_OUTPUT: Final = "adapter_environment"

# The services' own defaults.
HEARTBEAT_S: Final = 100.0
VISIBILITY_TIMEOUT_S: Final = 300.0
TASK_MAX_AGE_S: Final = 86_400.0

_QUEUE_URL = re.compile(
    r"https?://(?:sqs\.(?P<region>[a-z0-9-]+)\.)?[^/]+/(?P<account>\d{12})/(?P<name>[\w-]+(?:\.fifo)?)"
)
_HTTP_URL = re.compile(r"https?://[^/\s]+")


@dataclass(frozen=True, slots=True)
class QueueAddress:
    """What the URL of a queue says; `region` is empty where it is no address of AWS itself."""

    url: str
    region: str
    account: str
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """Names of resources, and numbers that AWS does not know. Times in seconds.

    Attributes:
        heartbeat_s, visibility_timeout_s: the adapter's settings.
        task_max_age_s: the orchestrator's setting.
        api_url: the orchestrator, if it can be reached from here.
    """

    region: str
    queue: QueueAddress
    dead_letters: QueueAddress
    table: str
    instance_id: str
    alarm: str
    function: str
    heartbeat_s: float = HEARTBEAT_S
    visibility_timeout_s: float = VISIBILITY_TIMEOUT_S
    task_max_age_s: float = TASK_MAX_AGE_S
    api_url: str | None = None

    @classmethod
    def from_variables(cls, variables: Mapping[str, str]) -> Deployment:
        """Read and check all of it; an empty variable counts as not set.

        Raises:
            DeploymentError: names each variable that is missing or wrong.
        """
        reading = _Reading(variables)
        deployment = cls(
            region=reading.text("AWS_REGION"),
            queue=reading.queue("SQS_QUEUE_URL"),
            dead_letters=reading.queue("SQS_DLQ_URL"),
            table=reading.text("DYNAMODB_TABLE"),
            instance_id=reading.text("GPU_INSTANCE_ID"),
            alarm=reading.text("IDLE_ALARM_NAME"),
            function=reading.text("SHUTDOWN_FUNCTION_NAME"),
            heartbeat_s=reading.seconds("HEARTBEAT_S", HEARTBEAT_S),
            visibility_timeout_s=reading.seconds("VISIBILITY_TIMEOUT_S", VISIBILITY_TIMEOUT_S),
            task_max_age_s=reading.seconds("TASK_MAX_AGE_S", TASK_MAX_AGE_S),
            api_url=reading.url("API_URL"),
        )
        if reading.complaints:
            raise DeploymentError("; ".join(reading.complaints))
        return deployment

    def aws(self, *words: str) -> str:
        """A command line of the AWS CLI for this deployment's region."""
        return shlex.join(["aws", "--region", self.region, *words])


def read_outputs(text: str) -> dict[str, str]:
    """The variables that the text of `terraform output -json` amounts to.

    Raises:
        DeploymentError: it is no such text, or lacks what is needed.
    """
    try:
        values = {name: output["value"] for name, output in json.loads(text).items()}
    except (ValueError, AttributeError, TypeError, KeyError):
        raise DeploymentError("that is not what `terraform output -json` prints") from None
    optional = {"api_url", "task_max_age_s"}
    missing = [name for name in (*OUTPUTS, ENVIRONMENT_OUTPUT) if name not in values and name not in optional]
    if missing:
        raise DeploymentError(f"Terraform's outputs lack {', '.join(missing)}: `terraform apply` first")
    variables = _assignments(values[ENVIRONMENT_OUTPUT])
    told = {variable: values.get(output) for output, variable in OUTPUTS.items()}
    return variables | {variable: str(value) for variable, value in told.items() if value is not None}


def _assignments(text: Any) -> dict[str, str]:
    pairs = (line.partition("=") for line in str(text).splitlines())
    return {name: value for name, _, value in pairs}


class _Reading:
    """Takes variables out one by one and collects what is wrong with them."""

    def __init__(self, variables: Mapping[str, str]) -> None:
        self._variables = variables
        self.complaints: list[str] = []

    def text(self, name: str) -> str:
        text = self._variables.get(name, "").strip()
        if not text:
            self.complaints.append(f"{name} is not set")
        return text

    def queue(self, name: str) -> QueueAddress:
        url = self.text(name)
        found = _QUEUE_URL.fullmatch(url)
        if url and not found:
            self.complaints.append(
                f"{name}: no queue's URL, such as https://sqs.us-east-1.amazonaws.com/123456789012/q"
            )
        parts = found.groupdict(default="") if found else {"region": "", "account": "", "name": ""}
        return QueueAddress(url=url, **parts)

    def seconds(self, name: str, default: float) -> float:
        text = self._variables.get(name, "").strip()
        if not text:
            return default
        try:
            seconds = float(text)
        except ValueError:
            seconds = math.nan
        if not (math.isfinite(seconds) and seconds > 0):
            self.complaints.append(f"{name}: must be a positive number of seconds")
        return seconds

    def url(self, name: str) -> str | None:
        url = self._variables.get(name, "").strip().rstrip("/")
        if url and not _HTTP_URL.fullmatch(url):
            self.complaints.append(f"{name}: must be scheme, host and port only")
        return url or None
