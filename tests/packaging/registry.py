"""Wheels of a lock, as files, for installations that are cut off from any package registry."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.absence import absent

ROOT = Path(__file__).parent.parent.parent


def fetch_wheels(lock: str, folder: Path) -> None:
    """Download what a lock names; without a registry the test cannot run."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--only-binary=:all:", "--require-hashes"]
    run = subprocess.run(
        [*command, "--no-deps", "--dest", folder, "--requirement", ROOT / lock],
        capture_output=True,
        text=True,
        check=False,
    )
    if "connection" in run.stderr.lower() and run.returncode:
        absent(f"no package registry is reached: {run.stderr.strip().splitlines()[-1]}")
    assert run.returncode == 0, run.stderr
