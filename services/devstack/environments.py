"""The environment variables of each process, computed from the options and what was created in AWS; pure."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from services.devstack.alarm import AlarmDefinition
from services.devstack.options import StackOptions
from services.devstack.resources import Resources
from services.devstack.surroundings import ACCESS_KEY

# However fast the clock runs, a loaded machine needs these seconds to start a Python process and make a few calls.
_START_ALLOWANCE_S = 10.0
# Uploading a result may take as long on a busy machine, and must not look like a hang.
_UPLOAD_S = 10.0
_SHORTEST_INTERVAL_S = 0.25

_FUNCTION_NAME = "shutdown-gpu-lambda"
_DEADLINE_S = 1500.0
# Sampling is scaled like the deadline: the most steps that a job may ask for must end before it.
_MOST_STEPS = 100
_SHARE_OF_DEADLINE = 0.8
_LONGEST_STEP_S = 0.3

RECEIVE_WAIT_S = 1
ADAPTER_DRAIN_S = 5.0
ORCHESTRATOR_DRAIN_S = 3.0


@dataclass(frozen=True, slots=True)
class Plan:
    """All that the environments follow from."""

    options: StackOptions
    resources: Resources
    orchestrator_port: int
    upstream_port: int
    comfyui_port: int
    log_dir: Path

    @property
    def start_s(self) -> float:
        """Real seconds from a start to a worker that answers; what waits for one must not give up before."""
        return self.options.pending_s + self.options.boot_s + _START_ALLOWANCE_S

    @property
    def step_s(self) -> float:
        """Real seconds that a step of sampling takes."""
        return min(_LONGEST_STEP_S, _DEADLINE_S / self.options.scale * _SHARE_OF_DEADLINE / _MOST_STEPS)

    @property
    def restart_file(self) -> Path:
        """Touched by the adapter when the upstream hangs."""
        return self.log_dir / "restart-upstream"

    def scaled_s(self, seconds: float, *, at_least_s: float = _SHORTEST_INTERVAL_S) -> str:
        """`seconds` of AWS's time on the faster clock, as a variable's text."""
        return f"{max(seconds / self.options.scale, at_least_s):g}"


def orchestrator_environment(plan: Plan) -> dict[str, str]:
    """For `services.orchestrator`."""
    return {
        "SQS_QUEUE_URL": plan.resources.queue_url,
        "SQS_DLQ_URL": plan.resources.dead_letter_queue_url,
        "DYNAMODB_TABLE": plan.resources.table,
        "GPU_INSTANCE_ID": plan.resources.instance_id,
        "HOST": "127.0.0.1",
        "PORT": str(plan.orchestrator_port),
        "API_KEYS": api_keys(plan.options.api_keys),
        "ALLOW_PRIVATE_IMAGE_URLS": "true",  # the bucket is on loopback
        "IMAGE_BUCKETS": plan.resources.bucket,
        "WAKER_INTERVAL_S": plan.scaled_s(30),
        "JANITOR_INTERVAL_S": plan.scaled_s(60),
        "RESEND_AFTER_S": plan.scaled_s(600, at_least_s=20),
        "TASK_MAX_AGE_S": plan.scaled_s(86_400),
        "DRAIN_S": f"{ORCHESTRATOR_DRAIN_S:g}",
        **plan.options.orchestrator_env,
    }


def adapter_environment(plan: Plan) -> dict[str, str]:
    """For `services.adapter`."""
    return {
        "SQS_QUEUE_URL": plan.resources.queue_url,
        "DYNAMODB_TABLE": plan.resources.table,
        "GPU_INSTANCE_ID": plan.resources.instance_id,
        "COMFYUI_API_URL": f"http://127.0.0.1:{plan.upstream_port}",
        "COMFYUI_URL": f"http://127.0.0.1:{plan.comfyui_port}",
        "COMFYUI_WEDGED_S": plan.scaled_s(90, at_least_s=_UPLOAD_S),
        "VISIBILITY_TIMEOUT_S": str(plan.options.visibility_s),
        "HEARTBEAT_S": f"{plan.options.visibility_s / 3:g}",
        "RECEIVE_WAIT_S": str(RECEIVE_WAIT_S),
        "JOB_DEADLINE_S": plan.scaled_s(_DEADLINE_S),
        "POLL_INTERVAL_S": "0.2",
        "HEALTH_INTERVAL_S": plan.scaled_s(5, at_least_s=1),
        "WORKER_BEAT_S": plan.scaled_s(30),
        "DRAIN_S": f"{ADAPTER_DRAIN_S:g}",
        "UPSTREAM_RESTART_FILE": str(plan.restart_file),
        **plan.options.adapter_env,
    }


def upstream_environment(plan: Plan) -> dict[str, str]:
    """For `services.devstack.upstream`; `RUN_LOG` tells afterwards what really ran, and how often."""
    return {
        "PORT": str(plan.upstream_port),
        "COMFYUI_PORT": str(plan.comfyui_port),
        "RESULT_BUCKET": plan.resources.bucket,
        "RUN_LOG": str(plan.log_dir / "upstream-runs.jsonl"),
        "STEP_S": f"{plan.step_s:g}",
        "COMFYUI_STATE": str(plan.log_dir / "comfyui-state"),
        **plan.options.upstream_env,
    }


def lambda_environment(plan: Plan) -> dict[str, str]:
    """For the shutdown Lambda."""
    return {
        "AWS_LAMBDA_FUNCTION_NAME": _FUNCTION_NAME,
        "GPU_INSTANCE_ID": plan.resources.instance_id,
        "DYNAMODB_TABLE": plan.resources.table,
        "SQS_QUEUE_URL": plan.resources.queue_url,
        "IDLE_S": plan.scaled_s(1800),
        "WORKER_GRACE_S": plan.scaled_s(900, at_least_s=plan.start_s),
        "HOLD_S": plan.scaled_s(900),
        "HOLD_MAX_S": plan.scaled_s(14_400),
        "FORCE_STOP_AFTER_S": plan.scaled_s(600, at_least_s=plan.start_s),
        **plan.options.lambda_env,
    }


def doctor_environment(plan: Plan, endpoint_url: str) -> dict[str, str]:
    """For `services.doctor`, which a person runs."""
    resources = plan.resources
    return {
        "AWS_ENDPOINT_URL": endpoint_url,
        "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": ACCESS_KEY,
        "AWS_REGION": resources.region,
        "SQS_QUEUE_URL": resources.queue_url,
        "SQS_DLQ_URL": resources.dead_letter_queue_url,
        "DYNAMODB_TABLE": resources.table,
        "GPU_INSTANCE_ID": resources.instance_id,
        "IDLE_ALARM_NAME": AlarmDefinition().name,
        "SHUTDOWN_FUNCTION_NAME": _FUNCTION_NAME,
        "VISIBILITY_TIMEOUT_S": str(plan.options.visibility_s),
        "HEARTBEAT_S": f"{plan.options.visibility_s / 3:g}",
        "API_URL": f"http://127.0.0.1:{plan.orchestrator_port}",
    }


def api_keys(keys: Mapping[str, str]) -> str:
    """`name:sha256hex,...`, as the orchestrator is told who its clients are."""
    return ",".join(f"{name}:{hashlib.sha256(key.encode()).hexdigest()}" for name, key in keys.items())
