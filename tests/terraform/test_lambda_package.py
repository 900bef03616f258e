"""The zip that AWS gets: the same bytes everywhere, and nothing in it but the Lambda."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.terraform.cli import CONFIGURATION

REPOSITORY = CONFIGURATION.parent

# In AWS's runtime boto3 is there already; of what else is loaded, everything must be of the zip or of Python itself.
PROBE = """
import sys
sys.path.insert(0, sys.argv[1])
import boto3, botocore.config, botocore.exceptions
import asyncio, logging
before = set(sys.modules)
from services.shutdown.handler import handler
assert handler.__module__ == "services.shutdown.handler"
assert sys.modules["services.shutdown.handler"].__file__.startswith(sys.argv[1])
print(*sorted({name.partition(".")[0] for name in set(sys.modules) - before} - sys.stdlib_module_names))
"""


@pytest.fixture
def package(tmp_path: Path) -> Path:
    return pack(tmp_path / "shutdown.zip")


def pack(target: Path, **environment: str) -> Path:
    command: list[str | Path] = [sys.executable, CONFIGURATION / "lambda.py", target]
    subprocess.run(command, check=True, cwd=target.parent, env={**os.environ, **environment})
    return target


def test_it_is_the_same_whenever_and_wherever_it_is_packed(package: Path, tmp_path: Path) -> None:
    for source in (REPOSITORY / "services" / "shutdown").glob("*.py"):
        assert source.stat().st_mtime > 0  # real dates, which must not matter
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    again = pack(elsewhere / "again.zip", TZ="Asia/Shanghai", LC_ALL="C", PYTHONHASHSEED="1")
    assert again.read_bytes() == package.read_bytes()
    assert [path.name for path in elsewhere.iterdir()] == ["again.zip"]


def test_it_does_not_depend_on_dates_or_modes(package: Path) -> None:
    with zipfile.ZipFile(package) as archive:
        entries = archive.infolist()
    assert {entry.date_time for entry in entries} == {(1980, 1, 1, 0, 0, 0)}
    assert {entry.external_attr >> 16 for entry in entries} == {0o100644}
    assert {entry.compress_type for entry in entries} == {zipfile.ZIP_STORED}


def test_it_holds_the_lambda_and_nothing_else(package: Path) -> None:
    with zipfile.ZipFile(package) as archive:
        names = archive.namelist()
    modules = sorted(f"services/shutdown/{path.name}" for path in (REPOSITORY / "services/shutdown").glob("*.py"))
    assert names == ["services/__init__.py", *modules]


def test_the_handler_that_terraform_names_is_loaded_from_it_alone(package: Path, sources: dict[str, str]) -> None:
    assert 'handler          = "services.shutdown.handler.handler"' in sources["shutdown.tf"]
    probe = subprocess.run(
        [sys.executable, "-I", "-c", PROBE, package], cwd=package.parent, capture_output=True, text=True, check=False
    )
    assert (probe.stderr, probe.stdout.split()) == ("", ["services"])
