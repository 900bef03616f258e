from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.terraform.cli import Terraform, find_mirror, find_program


@pytest.fixture(scope="session")
def terraform(tmp_path_factory: pytest.TempPathFactory) -> Terraform:
    """Terraform with a provider; skipped where there is none. In CI, a machine with the one must have the other."""
    program, mirror = find_program(), find_mirror()
    if program is None:
        pytest.skip("no terraform here")
    if mirror is None:
        if os.environ.get("CI") == "true":
            pytest.fail("no terraform-provider-aws_* in a local mirror; set TF_PLUGIN_DIR")
        pytest.skip("no terraform-provider-aws_* in a local mirror")
    return Terraform.prepare(program, mirror, tmp_path_factory.mktemp("terraform"))


@pytest.fixture(scope="session")
def sources() -> dict[str, str]:
    """The configuration's text by file name."""
    folder = Path(__file__).resolve().parents[2] / "terraform"
    return {file.name: file.read_text() for file in sorted(folder.glob("*.tf"))}
