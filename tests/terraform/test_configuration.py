"""What Terraform itself says of the configuration, offline."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.terraform.cli import CONFIGURATION, Terraform

SUITES = sorted(path.name for path in (CONFIGURATION / "tests").glob("*.tftest.hcl"))


def test_it_is_laid_out_as_fmt_does(terraform: Terraform) -> None:
    done = terraform.run("fmt", "-check", "-recursive", "-diff")
    assert done.returncode == 0, done.stdout


def test_it_is_valid_and_free_of_warnings(terraform: Terraform) -> None:
    done = terraform.run("validate")
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stdout


@pytest.mark.long(minutes=1)
@pytest.mark.timeout(300)
@pytest.mark.parametrize("suite", SUITES)
def test_every_variant_plans_as_meant_and_mistakes_are_refused(terraform: Terraform, suite: str) -> None:
    done = terraform.run("test", f"-filter=tests/{suite}", f"-var=lambda_zip={terraform.lambda_zip}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"Success! [1-9]\d* passed, 0 failed\.$", done.stdout.strip()), done.stdout


def test_every_variable_is_typed_and_described(sources: dict[str, str]) -> None:
    bodies = re.findall(r'^variable "(\w+)" {\n(.*?)^}', sources["variables.tf"], re.MULTILINE | re.DOTALL)
    careless = [name for name, body in bodies if "  description = " not in body or "  type " not in body]
    assert len(bodies) > 30
    assert careless == []


def test_every_number_has_a_validated_range(sources: dict[str, str]) -> None:
    bodies = re.findall(r'^variable "(\w+)" {\n(.*?)^}', sources["variables.tf"], re.MULTILINE | re.DOTALL)
    assert [name for name, body in bodies if re.search(r"type += number", body) and "validation {" not in body] == []


def test_the_example_names_only_variables_that_exist(sources: dict[str, str]) -> None:
    example = (CONFIGURATION / "terraform.tfvars.example").read_text()
    named = set(re.findall(r"^(?:# )?(\w+) += ", example, re.MULTILINE))
    assert named
    assert named <= set(re.findall(r'^variable "(\w+)"', sources["variables.tf"], re.MULTILINE))


@pytest.mark.parametrize("domain_name", ["null", '"gpu.example.com"'])
@pytest.mark.parametrize("keys_service", ["ssm", "secretsmanager"])
def test_the_boot_script_is_a_script(terraform: Terraform, tmp_path: Path, domain_name: str, keys_service: str) -> None:
    script = terraform.evaluate(
        f'templatefile("{CONFIGURATION}/templates/orchestrator_user_data.sh.tftpl", {{ region = "us-east-1",'
        ' bundle_uri = "s3://b/k.tar.gz", sha256 = "00", environment = ["A=1", "B=2"], keys_arn = "arn",'
        f' keys_service = "{keys_service}", keys_checksum = "00", domain_name = {domain_name}, port = 8080 }})'
    )
    assert isinstance(script, str)
    assert "\nA=1\nB=2\nENVIRONMENT\n" in script
    assert ("caddy" in script) == (domain_name != "null")
    assert f"aws {keys_service} get-" in script
    assert_shellcheck_has_nothing_to_say(script, tmp_path)


def test_the_install_script_is_a_script(terraform: Terraform, tmp_path: Path) -> None:
    script = terraform.evaluate(
        f'templatefile("{CONFIGURATION}/templates/install_adapter.sh.tftpl",'
        ' { bundle = "/b.tar.gz", sha256 = "00", environment = ["A=1", "B=2"] })'
    )
    assert isinstance(script, str)
    assert "\nA=1\nB=2\nENVIRONMENT\n" in script
    assert_shellcheck_has_nothing_to_say(script, tmp_path)


def test_the_script_for_the_gpu_agent_is_a_script_and_its_configuration_json(
    terraform: Terraform, tmp_path: Path
) -> None:
    configuration = '{"metrics":{"append_dimensions":{"InstanceId":"$${aws:InstanceId}"}}}'
    script = terraform.evaluate(
        f'templatefile("{CONFIGURATION}/templates/configure_gpu_agent.sh.tftpl",'
        f" {{ configuration = {json.dumps(configuration)} }})"
    )
    assert isinstance(script, str)
    assert_shellcheck_has_nothing_to_say(script, tmp_path)
    # What the shell makes of it: the agent itself fills in the instance.
    written = script.partition("<<'CONFIGURATION'\n")[2].partition("\nCONFIGURATION\n")[0]
    assert json.loads(written)["metrics"]["append_dimensions"]["InstanceId"] == "${aws:InstanceId}"


def assert_shellcheck_has_nothing_to_say(script: str, folder: Path) -> None:
    file = folder / "script.sh"
    file.write_text(script)
    shellcheck = Path(sys.executable).with_name("shellcheck")
    done = subprocess.run([shellcheck, file], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")
