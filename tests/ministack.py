"""MiniStack, a second and independent emulator of AWS, which runs Lambda functions and rules.

It pins its own botocore, so it lives in an environment of its own: `make .venv-ministack/.installed`.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from services.devstack import leash
from services.devstack.ports import ReservedPort
from tests.absence import absent

PYTHON = Path(__file__).parent.parent / ".venv-ministack/bin/python"
_START_LIMIT_S = 60.0


@contextmanager
def ministack(folder: Path) -> Iterator[str]:
    """The address of an emulator that lives as long as the block; skips, but in CI fails, where it is not installed."""
    if not PYTHON.exists():
        absent(f"no {PYTHON}: make .venv-ministack/.installed")
    with ReservedPort() as port, (folder / "ministack.log").open("wb") as log:
        command = [sys.executable, "-I", "-S", leash.__file__, str(os.getpid()), str(PYTHON), "-m", "ministack"]
        with subprocess.Popen(
            command,
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
            cwd=folder,
            env=_environment(port.number, folder),
            start_new_session=True,
        ) as process:
            try:
                address = f"http://127.0.0.1:{port.number}"
                _await_ready(process, address)
                yield address
            finally:
                os.killpg(process.pid, signal.SIGKILL)  # with the functions that it runs


def _environment(port: int, folder: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "PYTHON", "COV"))}
    return {
        **kept,
        "BIND_HOST": "127.0.0.1",
        "GATEWAY_PORT": str(port),
        "MINISTACK_HOST": "127.0.0.1",
        "TMPDIR": str(folder),
        # Its functions call it with boto3.
        "NO_PROXY": "127.0.0.1",
        "no_proxy": "127.0.0.1",
    }


def _await_ready(process: subprocess.Popen[bytes], address: str) -> None:
    straight = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    give_up_at_s = time.monotonic() + _START_LIMIT_S
    while True:
        try:
            with straight.open(f"{address}/_ministack/ready", timeout=5):
                return
        except (urllib.error.URLError, ConnectionError):
            assert process.poll() is None, "it has ended"
            assert time.monotonic() < give_up_at_s, "it does not answer"
            time.sleep(0.1)
