"""Terraform, as far as this machine has it: the program, and a mirror with the AWS provider. Nothing is downloaded."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

CONFIGURATION = Path(__file__).resolve().parents[2] / "terraform"

_USUAL_MIRRORS = ("/opt", "/usr/share/terraform", "~/.terraform.d")
_DEPTH = 9  # .../registry.terraform.io/hashicorp/aws/VERSION/PLATFORM/terraform-provider-aws_*


@dataclass(frozen=True, slots=True)
class Terraform:
    """The program in a copy of the configuration, initialised from a local mirror.

    Attributes:
        directory: where it runs.
        lambda_zip: the packed Lambda.
    """

    program: str
    directory: Path
    lambda_zip: Path

    @classmethod
    def prepare(cls, program: str, mirror: Path, directory: Path) -> Terraform:
        """Copy the configuration to `directory`/terraform and initialise it."""
        here = directory / "terraform"
        shutil.copytree(CONFIGURATION, here, ignore=shutil.ignore_patterns(".terraform*", "*.tfstate*", "*.tfvars"))
        package = directory / "shutdown.zip"
        subprocess.run([sys.executable, CONFIGURATION / "lambda.py", package], check=True)
        terraform = cls(program, here, package)
        terraform.run("init", "-backend=false", "-input=false", f"-plugin-dir={mirror}").check_returncode()
        return terraform

    def run(
        self, *arguments: str, environment: Mapping[str, str] | None = None, timeout_s: float = 300
    ) -> subprocess.CompletedProcess[str]:
        """Run one command to its end; colours off, the machine's own configuration unseen."""
        return subprocess.run(
            [self.program, *arguments],
            cwd=self.directory,
            env={**clean_environment(), **(environment or {})},
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )

    def evaluate(self, expression: str, *, here: bool = False, environment: Mapping[str, str] | None = None) -> object:
        """What `terraform console` makes of an expression of functions and literals, or `here` of what was applied."""
        done = subprocess.run(
            [self.program, "console"],
            cwd=self.directory if here else self.directory.parent,
            env={**clean_environment(), **(environment or {})},
            input=f"jsonencode({expression})\n",
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        value: object = json.loads(json.loads(done.stdout))
        return value


def clean_environment() -> dict[str, str]:
    """Ours without what would steer Terraform or lead it to somebody's account."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("TF_", "AWS_"))}
    return {**kept, "TF_IN_AUTOMATION": "1", "TF_CLI_ARGS": "-no-color", "CHECKPOINT_DISABLE": "1"}


def find_program() -> str | None:
    """Terraform's path."""
    return shutil.which("terraform")


def find_mirror() -> Path | None:
    """The folder that holds `registry.terraform.io` with the AWS provider in it."""
    for root in _roots():
        for provider in _providers(root, _DEPTH):
            for folder in provider.parents:
                if folder.name == "registry.terraform.io":
                    return folder.parent
    return None


def _roots() -> Iterator[Path]:
    told = os.environ.get("TF_PLUGIN_DIR")
    for name in ([told] if told else []) + list(_USUAL_MIRRORS):
        root = Path(name).expanduser()
        if root.is_dir():
            yield root


def _providers(folder: Path, depth: int) -> Iterator[Path]:
    if depth == 0:
        return
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError:
        return
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            yield from _providers(Path(entry.path), depth - 1)
        elif entry.name.startswith("terraform-provider-aws_") and os.access(entry.path, os.X_OK):
            yield Path(entry.path)
