"""Emulated AWS, Terraform pointed at it, and what an operator has before the first apply."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from services.devstack.resources import BUCKET_NAME, aws_session, client_config
from services.devstack.surroundings import surroundings
from tests.terraform.cli import Terraform

KEY = "foo"
KEY_HASH = "2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae"


@dataclass(frozen=True, slots=True)
class World:
    """Emulated AWS, and Terraform pointed at it.

    Attributes:
        variables: what an operator would tell Terraform of it.
    """

    endpoint_url: str
    terraform: Terraform
    variables: Mapping[str, Any]

    def client(self, service: str) -> Any:
        return _client(self.endpoint_url, service)

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self.terraform.run(*arguments, environment=self.environment(), timeout_s=400)

    def apply(self, *arguments: str) -> dict[str, Any]:
        """Apply, and return the outputs."""
        applied = self.run("apply", "-auto-approve", "-input=false", *arguments)
        assert applied.returncode == 0, applied.stderr
        return self.outputs()

    def outputs(self) -> dict[str, Any]:
        """Of what was applied."""
        shown = self.run("output", "-json")
        return {name: output["value"] for name, output in json.loads(shown.stdout).items()}

    def local(self, name: str) -> Any:
        """A local value, with what was applied in it."""
        return self.terraform.evaluate(f"local.{name}", here=True, environment=self.environment())

    def environment(self) -> dict[str, str]:
        """Of whatever is to talk to it."""
        return {name: value for name, value in surroundings(self.endpoint_url).items() if not name.startswith("TF_")}


def given_world(endpoint_url: str, terraform: Terraform) -> World:
    """A world with a GPU instance that has a profile, and with a DNS zone."""
    return World(endpoint_url, terraform, _given(endpoint_url))


def tfvars(variables: Mapping[str, Any]) -> str:
    """The text of a terraform.tfvars: JSON's literals are Terraform's, too."""
    return "".join(f"{name} = {json.dumps(value)}\n" for name, value in variables.items())


@contextmanager
def emulated_aws(folder: Path) -> Iterator[str]:
    """The address of an emulator that lives as long as the block."""
    with (folder / "emulator.log").open("wb") as log:
        command = [sys.executable, "-m", "tests.terraform.emulator"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True) as process:
            assert process.stdout is not None
            try:
                yield process.stdout.readline().strip()
            finally:
                process.kill()


def _client(endpoint_url: str, service: str) -> Any:
    make: Any = aws_session().client
    return make(service, endpoint_url=endpoint_url, config=client_config())


def _given(endpoint_url: str) -> Mapping[str, Any]:
    iam, ec2, route53 = (_client(endpoint_url, service) for service in ("iam", "ec2", "route53"))
    trust = {"Version": "2012-10-17", "Statement": []}
    iam.create_role(RoleName="comfyui", AssumeRolePolicyDocument=json.dumps(trust))
    iam.create_instance_profile(InstanceProfileName="comfyui")
    iam.add_role_to_instance_profile(InstanceProfileName="comfyui", RoleName="comfyui")
    image = ec2.describe_images(Owners=["amazon"])["Images"][0]["ImageId"]
    launched = ec2.run_instances(
        ImageId=image,
        InstanceType="g6e.2xlarge",
        MinCount=1,
        MaxCount=1,
        IamInstanceProfile={"Name": "comfyui"},
        MetadataOptions={"HttpTokens": "required", "HttpPutResponseHopLimit": 1},
    )
    zone = route53.create_hosted_zone(Name="example.com", CallerReference="test")
    return {
        "emulated": True,
        "gpu_instance_id": launched["Instances"][0]["InstanceId"],
        "gpu_role_name": "comfyui",
        "domain_name": "gpu.example.com",
        "route53_zone_id": zone["HostedZone"]["Id"].rpartition("/")[2],
        "api_key_hashes": {"frontend": KEY_HASH},
        "image_buckets": [BUCKET_NAME],
        "alert_emails": ["operator@example.com"],
    }
