from __future__ import annotations

from pathlib import Path

import pytest

from tests.absence import absent
from tests.terraform.cli import Terraform, find_mirror, find_program


@pytest.fixture(scope="session")
def terraform_program() -> str:
    """Terraform's path."""
    return find_program() or absent("no terraform on PATH")


@pytest.fixture(scope="session")
def provider_mirror() -> Path:
    """Where Terraform finds its provider."""
    return find_mirror() or absent("no terraform-provider-aws_* in a local mirror; set TF_PLUGIN_DIR")


@pytest.fixture(scope="session")
def terraform(terraform_program: str, provider_mirror: Path, tmp_path_factory: pytest.TempPathFactory) -> Terraform:
    """Terraform with a provider."""
    return Terraform.prepare(terraform_program, provider_mirror, tmp_path_factory.mktemp("terraform"))


@pytest.fixture(scope="session")
def sources() -> dict[str, str]:
    """The configuration's text by file name."""
    folder = Path(__file__).resolve().parents[2] / "terraform"
    return {file.name: file.read_text() for file in sorted(folder.glob("*.tf"))}
