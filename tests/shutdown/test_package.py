"""The package is a deployable of its own: a zip of it is all that AWS gets."""

import subprocess
import sys
import zipfile
from pathlib import Path

import services.shutdown

PACKAGE = Path(services.shutdown.__file__).parent

# Run with the zip in front; what boto3 itself brings is in the runtime, so it is the base that counts as nothing.
PROBE = """
import importlib, pkgutil, sys
sys.path.insert(0, sys.argv[1])
import boto3, botocore.config, botocore.exceptions
boto3.Session(region_name="us-east-1").client("ec2")
import asyncio, logging
before = set(sys.modules)
import services.shutdown
assert services.shutdown.__file__.startswith(sys.argv[1]), services.shutdown.__file__
for module in pkgutil.walk_packages(services.shutdown.__path__, "services.shutdown."):
    importlib.import_module(module.name)
brought = {name.partition(".")[0] for name in set(sys.modules) - before}
print(*sorted(brought - sys.stdlib_module_names))
"""


def test_it_runs_from_a_zip_of_itself_with_nothing_but_the_runtimes_boto3(tmp_path: Path) -> None:
    archive = tmp_path / "shutdown.zip"
    with zipfile.ZipFile(archive, "w") as zipped:
        zipped.write(PACKAGE.parent / "__init__.py", "services/__init__.py")
        for module in PACKAGE.glob("*.py"):
            zipped.write(module, f"services/shutdown/{module.name}")
    probe = subprocess.run(
        [sys.executable, "-I", "-c", PROBE, str(archive)], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert probe.stderr == ""
    assert probe.stdout.split() == ["services"]


def test_importing_it_writes_nothing_and_needs_no_environment(tmp_path: Path) -> None:
    code = "import services.shutdown.handler"
    probe = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={"PYTHONPATH": str(PACKAGE.parents[1])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (probe.returncode, probe.stdout, probe.stderr) == (0, "", "")
