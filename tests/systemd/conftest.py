"""One machine per test process, booted with the units as they are shipped."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.absence import absent
from tests.systemd import emulated_aws
from tests.systemd.emulated_aws import IN_THE_MACHINE, lines
from tests.systemd.inside import AWS_PORT, METADATA_PORT
from tests.systemd.machine import PYTHON, SOURCE, Machine, booted_machine, why_not

UNITS = SOURCE / "systemd"
ADAPTER, ORCHESTRATOR, UPSTREAM = "sqs-adapter.service", "orchestrator.service", "comfyui-unified-api.service"

_QUEUES = f"http://127.0.0.1:{AWS_PORT}/123456789012"
ADAPTER_ENVIRONMENT = {
    **emulated_aws.ENVIRONMENT,
    "SQS_QUEUE_URL": f"{_QUEUES}/gpu_tasks_queue",
    "DYNAMODB_TABLE": "task_store",
    "AWS_EC2_METADATA_SERVICE_ENDPOINT": f"http://127.0.0.1:{METADATA_PORT}",
    # A stop first lets the open receive finish.
    "RECEIVE_WAIT_S": "1",
    "HEALTH_INTERVAL_S": "1",
    "JOB_DEADLINE_S": "4",
}
_ORCHESTRATOR_ENVIRONMENT = {
    **emulated_aws.ENVIRONMENT,
    "SQS_QUEUE_URL": f"{_QUEUES}/gpu_tasks_queue",
    "SQS_DLQ_URL": f"{_QUEUES}/gpu_tasks_dlq",
    "DYNAMODB_TABLE": "task_store",
    "GPU_INSTANCE_ID": "i-0fedcba9876543210",
}
_SHIPPED = (ADAPTER, ORCHESTRATOR, "comfyui-restart.path", "comfyui-restart.service")
_STAND_INS = emulated_aws.UNITS | {
    # As on the GPU instance: nothing but the adapter's own Wants= starts the Unified API.
    "machine.target": (
        f"[Unit]\nRequires=basic.target\nAfter=basic.target\nWants={ADAPTER} {ORCHESTRATOR} comfyui-restart.path\n"
    ),
    "metadata.service": (
        "[Unit]\nDefaultDependencies=no\n[Service]\n"
        f"ExecStart={PYTHON} -m tests.systemd.inside metadata\n{IN_THE_MACHINE}"
    ),
    "network-online.target": (
        "[Unit]\nWants=emulated-aws.service metadata.service\nAfter=emulated-aws.service metadata.service\n"
    ),
    UPSTREAM: (
        f"[Service]\nExecStart={PYTHON} -m services.devstack.upstream\n{IN_THE_MACHINE}"
        "Environment=RESULT_BUCKET=gpu-results STEP_S=0.25 HANG_ON=hang\n"
        + "".join(f"Environment={name}={value}\n" for name, value in emulated_aws.ENVIRONMENT.items())
    ),
    # The only change to a shipped unit: waiting out a minute proves no more.
    f"{ADAPTER}.d/test.conf": "[Service]\nWatchdogSec=5\nRestartSec=1\n",
}


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """The GPU instance and the orchestrator's in one, with emulated AWS on its loopback."""
    if reason := why_not():
        absent(reason)
    scratch: Path = tmp_path_factory.mktemp("machine")
    units = _STAND_INS | {name: (UNITS / name).read_text() for name in _SHIPPED}
    files = {
        "/etc/sqs-adapter/environment": lines(ADAPTER_ENVIRONMENT),
        "/etc/orchestrator/environment": lines(_ORCHESTRATOR_ENVIRONMENT),
        "/opt/sqs-adapter/venv/bin/sqs-to-comfy-adapter": script("services.adapter.sqs_to_comfy_adapter"),
        "/opt/orchestrator/venv/bin/gpu-orchestrator": script("services.orchestrator.__main__"),
    }
    with booted_machine(scratch, units, files) as booted:
        for unit in (ORCHESTRATOR, ADAPTER):
            booted.wait_for(unit, "active/running", limit_s=60)
        yield booted


def script(module: str) -> str:
    """A console script, as an installer writes it."""
    return f"#!/opt/venv/bin/python\nimport sys\nfrom {module} import main\nsys.exit(main())\n"
