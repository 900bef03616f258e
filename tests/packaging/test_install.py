"""`install.sh` on a throw-away machine: what it refuses, what it leaves, and that the unit then starts."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.absence import absent
from tests.packaging.registry import fetch_wheels
from tests.systemd import emulated_aws
from tests.systemd.machine import PYTHON, Machine, booted_machine, why_not

ROOT = Path(__file__).parent.parent.parent
INSTALL = "/opt/checkout/systemd/install.sh"
UNIT = "sqs-adapter.service"
UNITS = emulated_aws.UNITS | {"machine.target": "[Unit]\nRequires=basic.target\nAfter=basic.target\n"}
# On the instance, credentials come from its role and AWS needs no address.
OPERATORS = emulated_aws.ENVIRONMENT | {"GPU_INSTANCE_ID": "i-0fedcba9876543210"}
SHELLCHECK = Path(sys.executable).with_name("shellcheck")


@pytest.mark.parametrize("script", ["systemd/install.sh", "tests/systemd/boot.sh"])
def test_shellcheck_has_nothing_to_say(script: str) -> None:
    run = subprocess.run([SHELLCHECK, ROOT / script], capture_output=True, text=True, check=False)
    assert (run.returncode, run.stdout) == (0, "")


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Machine]:
    if reason := why_not():
        absent(reason)
    with booted_machine(tmp_path, UNITS, {}) as machine:
        sources = "lib services systemd LICENSE pyproject.toml README.md requirements-{adapter,orchestrator}.lock"
        machine.run("bash", "-c", f"mkdir /opt/checkout && cd /opt/source && cp -r {sources} /opt/checkout")
        yield machine


@pytest.mark.parametrize(
    ("arguments", "prefix", "code", "sentence"),
    [
        ("", "", 64, "usage:"),
        ("gpu", "", 64, "usage:"),
        ("adapter", "setpriv --reuid=65534 --clear-groups --", 77, "must be run as root"),
        ("adapter", "env PYTHON=/bin/false", 69, "Python 3.11 or newer is needed"),
    ],
)
def test_it_refuses_with_a_sentence(arguments: str, prefix: str, code: int, sentence: str) -> None:
    if prefix and (reason := why_not()):
        absent(reason)
    with tempfile.TemporaryDirectory() as readable_by_all:
        Path(readable_by_all).chmod(0o755)
        script = Path(readable_by_all) / "install.sh"
        # The account of the unit need not exist here.
        script.write_text((ROOT / "systemd/install.sh").read_text().replace("group=ubuntu", "group=root"))
        command = [*prefix.split(), "bash", str(script), *arguments.split()]
        run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == code, run.stderr
    assert sentence in run.stderr


# As Ubuntu's without its package for virtual environments.
_WITHOUT_ENSUREPIP = """\
#!/bin/sh
exec {python} -c "import sys; sys.modules['ensurepip'] = None; exec(sys.argv[1])" "$2"
"""


def test_an_interpreter_that_can_make_no_environment_is_not_taken(tmp_path: Path) -> None:
    if reason := why_not():
        absent(reason)
    script, python = tmp_path / "install.sh", tmp_path / "python3.11"
    script.write_text((ROOT / "systemd/install.sh").read_text().replace("group=ubuntu", "group=root"))
    python.write_text(_WITHOUT_ENSUREPIP.format(python=sys.executable))
    python.chmod(0o755)
    run = subprocess.run(
        ["env", f"PYTHON={python}", "bash", script, "adapter"], capture_output=True, text=True, check=False
    )
    assert (run.returncode, run.stdout) == (69, "")
    assert "with its modules venv and ensurepip" in run.stderr


@pytest.mark.long(minutes=1)
@pytest.mark.timeout(300)
def test_twice_installed_it_keeps_the_version_before_and_the_operators_settings(box: Machine, tmp_path: Path) -> None:
    fetch_wheels("requirements-adapter.lock", tmp_path / "wheels")
    for wheel in (tmp_path / "wheels").iterdir():
        carry(box, wheel, f"/opt/wheels/{wheel.name}")
    first = install(box)
    assert box.run("systemctl", "is-enabled", UNIT).strip() == "enabled"
    assert box.run("stat", "--format=%a %G", "/etc/sqs-adapter/environment").split() == ["640", "ubuntu"]
    box.run("sh", "-c", f"printf %s '{emulated_aws.lines(OPERATORS)}' >>/etc/sqs-adapter/environment")
    box.run("systemctl", "start", UNIT)
    box.wait_for(UNIT, "active/running")
    pid = box.number(UNIT, "MainPID")

    second = install(box)
    box.wait_for(UNIT, "active/running")
    assert box.number(UNIT, "MainPID") != pid
    assert "GPU_INSTANCE_ID=i-" in box.run("cat", "/etc/sqs-adapter/environment")
    assert {first, second} == set(versions(box))

    # An upgrade that fails leaves everything as it was.
    box.run("sh", "-c", "rm /opt/wheels/aiohttp-*")
    pid = box.number(UNIT, "MainPID")
    assert "aiohttp" in box.run("sh", "-c", f"{environment()} {INSTALL} adapter 2>&1; test $? = 1")
    assert (current(box), box.number(UNIT, "MainPID"), set(versions(box))) == (second, pid, {first, second})


def install(box: Machine) -> str:
    """The version that is current afterwards."""
    box.run("sh", "-c", f"{environment()} {INSTALL} adapter", limit_s=110)
    return current(box)


def environment() -> str:
    return f"PYTHON={PYTHON} PIP_NO_INDEX=1 PIP_NO_COMPILE=1 PIP_FIND_LINKS=/opt/wheels"


def current(box: Machine) -> str:
    return box.run("readlink", "/opt/sqs-adapter/venv").strip()


def versions(box: Machine) -> list[str]:
    return box.run("sh", "-c", "ls -d /opt/sqs-adapter/versions/*").split()


def carry(box: Machine, file: Path, place: str) -> None:
    """Copy a file into the machine."""
    box.run("mkdir", "-p", str(Path(place).parent))
    target = Path(f"/proc/{box.pid}/root") / place.lstrip("/")
    target.write_bytes(file.read_bytes())
