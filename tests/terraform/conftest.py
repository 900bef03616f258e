from __future__ import annotations

from pathlib import Path

import pytest

from tests.absence import absent
from tests.terraform.cli import Terraform, find_mirror, find_program


@pytest.fixture(scope="session")
def terraform(tmp_path_factory: pytest.TempPathFactory) -> Terraform:
    """Terraform with a provider."""
    program, mirror = find_program(), find_mirror()
    if program is None:
        absent("no terraform on PATH")
    if mirror is None:
        absent("no terraform-provider-aws_* in a local mirror; set TF_PLUGIN_DIR")
    return Terraform.prepare(program, mirror, tmp_path_factory.mktemp("terraform"))


@pytest.fixture(scope="session")
def sources() -> dict[str, str]:
    """The configuration's text by file name."""
    folder = Path(__file__).resolve().parents[2] / "terraform"
    return {file.name: file.read_text() for file in sorted(folder.glob("*.tf"))}
