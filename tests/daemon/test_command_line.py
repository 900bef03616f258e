"""The services' commands, as an operator types them."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version

import pytest

COMMANDS = {"gpu-orchestrator": "services.orchestrator", "sqs-to-comfy-adapter": "services.adapter"}


def said(module: str, argument: str) -> tuple[int, str]:
    done = subprocess.run([sys.executable, "-m", module, argument], capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize(("program", "module"), COMMANDS.items())
def test_help_lists_the_variables_and_version_says_which(program: str, module: str) -> None:
    code, text = said(module, "--help")
    assert code == 0
    assert f"usage: {program}" in text
    assert "SQS_QUEUE_URL" in text
    assert said(module, "--version") == (0, f"{program} {version('gpu-on-demand')}\n")


def test_an_argument_that_there_is_not_is_refused() -> None:
    assert said("services.adapter", "--port=1")[0] == 2
