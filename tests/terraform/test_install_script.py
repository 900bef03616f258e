"""What SSM runs on the GPU instance, run here: in a folder instead of /, with stand-ins for the machine's programs."""

from __future__ import annotations

import os
import subprocess
import tarfile
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import pytest

from tests.terraform.cli import CONFIGURATION, Terraform

PLACES = ("/opt/", "/var/lib/", "/etc/")
# No interpreter is of use until apt has installed one; apt is locked for a while.
PROGRAMS = {
    "apt-get": """\
case "$*" in
  *update*) echo >>"$HERE/updates"; [ "$(wc -l <"$HERE/updates")" -gt "$LOCKED" ] ;;
  *) echo "${@: -2}" >"$HERE/packages" ;;
esac
""",
    "python3.11": '[ -e "$HERE/packages" ]',
    **dict.fromkeys(("python3.14", "python3.13", "python3.12", "python3"), "exit 1"),
    **dict.fromkeys(("chown", "sleep"), ""),
    "systemctl": 'echo "$*" >>"$HERE/told"',
}
INSTALL = """\
echo "$PYTHON $1" >>"$HERE/installations"
mkdir -p "$HERE/opt/sqs-adapter/venv/bin"
install -m 0755 /dev/null "$HERE/opt/sqs-adapter/venv/bin/sqs-to-comfy-adapter"
"""


@dataclass(frozen=True, slots=True)
class Machine:
    """The instance.

    Attributes:
        root: what it has instead of /.
    """

    root: Path
    script: str

    def run(self, *, locked: int = 0) -> subprocess.CompletedProcess[str]:
        """The script, where apt's locks are held for so many tries."""
        own = {"HERE": str(self.root), "LOCKED": str(locked)}
        path = f"{self.root / 'bin'}{os.pathsep}{os.environ['PATH']}"
        environment = {**os.environ, **own, "PATH": path}
        command = ["bash", "-c", self.script]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    def lines(self, name: str) -> list[str]:
        file = self.root / name
        return file.read_text().splitlines() if file.exists() else []


@pytest.fixture
def machine(terraform: Terraform, tmp_path: Path) -> Machine:
    for place in ("bin", "etc", "opt", "var/lib/gpu-on-demand"):
        (tmp_path / place).mkdir(parents=True)
    for name, body in PROGRAMS.items():
        file = tmp_path / "bin" / name
        file.write_text(f"#!/bin/bash\n{body}\n")
        file.chmod(0o755)
    (tmp_path / "etc/os-release").write_text('VERSION_ID="22.04"\n')
    release = tmp_path / "release/systemd"
    release.mkdir(parents=True)
    (release / "install.sh").write_text(INSTALL)
    bundle = tmp_path / "var/lib/gpu-on-demand/release.tar.gz"
    with tarfile.open(bundle, "w:gz") as archive:
        archive.add(tmp_path / "release", "release")
    script = terraform.evaluate(
        f'templatefile("{CONFIGURATION}/templates/install_adapter.sh.tftpl", {{ bundle = "/var/lib/gpu-on-demand/'
        f'release.tar.gz", sha256 = "{sha256(bundle.read_bytes()).hexdigest()}", environment = ["A=1"] }})'
    )
    assert isinstance(script, str)
    for place in PLACES:
        script = script.replace(f" {place}", f" {tmp_path}{place}").replace(f"={place}", f"={tmp_path}{place}")
        script = script.replace(f">{place}", f">{tmp_path}{place}").replace(f'"{place}', f'"{tmp_path}{place}')
    return Machine(tmp_path, script)


def test_a_machine_without_a_python_gets_one_once_apt_is_free(machine: Machine) -> None:
    run = machine.run(locked=3)
    assert run.returncode == 0, run.stderr
    assert machine.lines("packages") == ["python3.11 python3.11-venv"]
    assert machine.lines("installations") == ["python3.11 adapter"]
    assert machine.lines("told") == ["enable --now comfyui-restart.path", "start sqs-adapter.service"]
    assert "A=1" in machine.lines("etc/sqs-adapter/environment")


def test_another_release_of_ubuntu_gets_its_own_python(machine: Machine) -> None:
    (machine.root / "etc/os-release").write_text('VERSION_ID="24.04"\n')
    assert machine.run().returncode == 0
    assert machine.lines("packages") == ["--quiet python3-venv"]


def test_locks_that_are_never_freed_fail_with_a_sentence_and_the_next_run_goes_on(machine: Machine) -> None:
    run = machine.run(locked=99)
    assert run.returncode == 1
    assert "there is no Python 3.11 or newer" in run.stderr
    assert machine.lines("installations") == []
    assert machine.run().returncode == 0


def test_what_is_installed_is_left_alone_and_what_was_removed_comes_back(machine: Machine) -> None:
    machine.run()
    assert "up to date" in machine.run().stdout
    assert len(machine.lines("installations")) == len(machine.lines("told")) / 2 == 1
    (machine.root / "opt/sqs-adapter/venv/bin/sqs-to-comfy-adapter").unlink()
    assert machine.run().returncode == 0
    assert len(machine.lines("installations")) == 2
