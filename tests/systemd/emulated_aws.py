"""Emulated AWS inside a booted machine: up, with queue, table and instance, before whatever waits for the network."""

from __future__ import annotations

from tests.systemd.inside import AWS_PORT
from tests.systemd.machine import PYTHON

IN_THE_MACHINE = "WorkingDirectory=/opt/source\nEnvironment=PYTHONPATH=/opt/source:/opt/site-packages\n"
ENVIRONMENT = {
    "AWS_ENDPOINT_URL": f"http://127.0.0.1:{AWS_PORT}",
    "AWS_REGION": "us-east-1",
    "AWS_ACCESS_KEY_ID": "devstack",
    "AWS_SECRET_ACCESS_KEY": "devstack",
}
UNITS = {
    "emulated-aws.service": (
        "[Unit]\nDefaultDependencies=no\n[Service]\n"
        f"ExecStart={PYTHON} -m services.devstack.emulator --port={AWS_PORT}\n"
        f"ExecStartPost={PYTHON} -m tests.systemd.inside prepare\n{IN_THE_MACHINE}"
    ),
    "network-online.target": "[Unit]\nWants=emulated-aws.service\nAfter=emulated-aws.service\n",
}


def lines(variables: dict[str, str]) -> str:
    """An environment file."""
    return "".join(f"{name}={value}\n" for name, value in variables.items())
