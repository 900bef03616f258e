"""The guide's way to deploy, on emulated AWS: apply, run the services on what it made, upgrade, drift, destroy.

Takes four to five minutes, most of it the provider's own waiting.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from services.devstack.alarm import Alarm, AlarmDefinition, AlarmState
from services.devstack.evaluator import Evaluator
from services.devstack.power import State
from services.devstack.resources import BUCKET_NAME
from tests.aws_cli import put_aws_cli
from tests.system.client import eventually
from tests.terraform.cli import Terraform
from tests.terraform.deployment import PICTURE, SCALE, Deployment, Events, deployed, finished, submit
from tests.terraform.guide import Shell, read_asides, read_guide
from tests.terraform.world import KEY, World, emulated_aws, given_world, tfvars

ROOT = Path(__file__).resolve().parents[2]
IDLE_S = 1800 / SCALE

# No engine here: what it was told is enough.
_DOCKER = """\
#!/bin/sh
[ "$1" != login ] || cat >/dev/null
echo "$*" >>"$DOCKER_LOG"
"""
_EDITOR = """\
#!/bin/sh
cp "$TFVARS" "$1"
"""


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """As cloned, and `make install` done."""
    copy = tmp_path / "repository"
    untracked = (
        ".*",
        "*.egg-info",
        "*.tfstate*",
        "*.tfvars",
        "__pycache__",
        "build",
        "demo-results",
        "demo-up-logs",
        "dist",
        "soak-logs",
    )
    shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(*untracked))
    shutil.copy(ROOT / ".gitignore", copy)  # it keeps what Terraform leaves there out of the release
    (copy / ".venv").symlink_to(sys.prefix)
    for name in ("pyproject.toml", "requirements.lock"):
        os.utime(copy / name, (0, 0))  # older than the environment, so that make has nothing to install
    return copy


@pytest.fixture
def world(terraform_program: str, repository: Path, tmp_path: Path) -> Iterator[World]:
    package = repository / "build/shutdown-gpu-lambda.zip"
    with emulated_aws(tmp_path) as endpoint_url:
        yield given_world(endpoint_url, Terraform(terraform_program, repository / "terraform", package))


@pytest.fixture
def shell(world: World, repository: Path, provider_mirror: Path, tmp_path: Path) -> Shell:
    """An operator's, with AWS's own command line."""
    programs = tmp_path / "programs"
    programs.mkdir()
    put_aws_cli(programs)
    for name, script in (("docker", _DOCKER), ("editor", _EDITOR)):
        (programs / name).write_text(script)
        (programs / name).chmod(0o755)
    environment = {name: value for name, value in world.environment().items() if not name.startswith("MAKE")}
    own = {
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        "EDITOR": "editor",
        "DOCKER_LOG": str(tmp_path / "docker.log"),
        "TFVARS": str(tmp_path / "filled-in.tfvars"),
        "TF_CLI_ARGS": "-no-color",
        "TF_CLI_ARGS_init": f"-plugin-dir={provider_mirror}",
    }
    return Shell(repository, {**environment, **own}, tmp_path / "variables")


@pytest.mark.long(minutes=5)
@pytest.mark.timeout(900)
def test_what_the_readme_says_works_stays_and_goes_without_a_trace(world: World, shell: Shell, tmp_path: Path) -> None:
    guide = read_guide()
    before = inventory(world)
    fill_in(world, shell, version="0.1.0")
    shell.follow(guide["1. Software and keys"], KEY=KEY)
    shell.follow(guide["2. The image of the orchestrator"])
    assert_mistakes_are_refused_with_a_sentence(world)
    shell.follow(guide["3. Apply"])
    shell.follow(aside for aside in read_asides() if aside.startswith(("aws lambda ", "aws ecs ")))
    assert_the_next_plan_is_empty(world)
    assert_the_instance_is_told_to_install_the_release(world, shell)

    outputs = world.outputs()
    asyncio.run(prove_both_promises(world, outputs, shell, guide["4. The first image"], tmp_path))

    assert_the_next_plan_is_empty(world)
    fill_in(world, shell, version="0.2.0")
    shell.follow(guide["Upgrading, and back"])
    assert running_image(world).endswith("/gpu-orchestrator:0.2.0")
    assert_docker_was_told(shell, running_image(world))
    assert_the_next_plan_is_empty(world)

    assert_drift_is_seen(world, outputs)
    *unprotect, destroy, stop = guide["Uninstalling"]
    shell.follow(unprotect)
    shell.follow(aside for aside in read_asides() if aside.startswith("aws ec2 disassociate-"))
    shell.follow([destroy, stop])
    assert inventory(world) == before
    assert [command for commands in guide.values() for command in commands if command not in shell.typed] == []


def fill_in(world: World, shell: Shell, *, version: str) -> None:
    """What the operator writes into terraform.tfvars, once the editor opens."""
    own = {"orchestrator_version": version, "release_bundle": "../dist/gpu_on_demand-0.1.0.tar.gz"}
    Path(shell.environment["TFVARS"]).write_text(tfvars({**world.variables, **own}))


def assert_mistakes_are_refused_with_a_sentence(world: World) -> None:
    said = refusal(
        world,
        heartbeat_s=150,
        domain_name=None,
        route53_zone_id=None,
        api_key_hashes={"frontend": "correct horse battery staple"},
    )
    assert "heartbeat_s must be at least 5 and less than half of visibility_timeout_s" in said
    assert "HTTPS needs a certificate: give domain_name and certificate_arn, or domain_name and route53_zone_id" in said
    assert "api_key_hashes must hold SHA-256 hashes (64 hexadecimal digits), never the keys themselves" in said
    assert "correct horse" not in said
    said = refusal(world, domain_name="gpu.example.org")
    assert "domain_name gpu.example.org does not lie in the public zone route53_zone_id, which is example.com" in said
    said = refusal(world, gpu_instance_id="i-0123456789abcdef0")
    assert "There is no instance i-0123456789abcdef0 in us-east-1 in this account: is it in another region" in said


def refusal(world: World, **variables: object) -> str:
    """What a plan with these variables says, on one line; it must not be made."""
    file = world.terraform.directory / "mistakes.json"
    file.write_text(json.dumps(variables, indent=1))
    planned = world.run("plan", "-input=false", f"-var-file={file}")
    assert planned.returncode == 1
    return " ".join(planned.stderr.split())


def assert_the_instance_is_told_to_install_the_release(world: World, shell: Shell) -> None:
    """By SSM: what its document fetches is what `make dist` has made, and is what the document checks."""
    ssm = world.client("ssm")
    told = {item["Name"]: item["Targets"] for item in ssm.list_associations()["Associations"]}
    here = [{"Key": "InstanceIds", "Values": [world.variables["gpu_instance_id"]]}]
    assert told == {"gpu-adapter-install": here, "gpu-adapter-gpu-agent": here}
    document = json.loads(ssm.get_document(Name="gpu-adapter-install")["Content"])
    fetch, install = (step["inputs"] for step in document["mainSteps"])
    bucket, key = re.findall(r"amazonaws\.com/([^/]+)/(.+)", json.loads(fetch["sourceInfo"])["path"])[0]
    release = world.client("s3").get_object(Bucket=bucket, Key=key)["Body"].read()
    assert release == (shell.directory / "dist/gpu_on_demand-0.1.0.tar.gz").read_bytes()
    assert f'echo "{sha256(release).hexdigest()}  {fetch["destinationPath"]}" | sha256sum --check' in "\n".join(
        install["runCommand"]
    )


def running_image(world: World) -> str:
    """What the service is told to run."""
    ecs = world.client("ecs")
    (service,) = ecs.describe_services(cluster="gpu-on-demand", services=["gpu-orchestrator"])["services"]
    definition = ecs.describe_task_definition(taskDefinition=service["taskDefinition"])["taskDefinition"]
    return str(definition["containerDefinitions"][0]["image"])


def assert_docker_was_told(shell: Shell, image: str) -> None:
    registry, (name, _) = image.partition("/")[0], image.split(":")
    login = f"login --username AWS --password-stdin {registry}"
    build = "build --platform linux/arm64 --tag"
    assert Path(shell.environment["DOCKER_LOG"]).read_text().splitlines() == [
        login,
        f"{build} {name}:0.1.0 .",
        f"push {name}:0.1.0",
        login,
        f"{build} {image} .",
        f"push {image}",
    ]


async def prove_both_promises(
    world: World, outputs: Mapping[str, Any], shell: Shell, first_image: list[str], folder: Path
) -> None:
    async with deployed(world, outputs, folder) as deployment:
        assert_the_alarm_is_the_designs(deployment.wiring.alarm)
        await assert_only_known_keys_are_let_in(deployment)
        await assert_the_alarm_alone_stops_an_idle_gpu(deployment)
        await assert_the_first_job_wakes_it_and_the_doctor_finds_nothing_wrong(deployment, shell, first_image)
        await assert_a_busy_gpu_is_left_alone_though_no_sample_sees_a_message(deployment)
        await assert_the_schedule_stops_what_the_alarm_will_not_call_for_again(deployment)
        await assert_a_stuck_job_does_not_keep_the_gpu_on(deployment)


def assert_the_alarm_is_the_designs(definition: AlarmDefinition) -> None:
    assert (definition.name, definition.period_s, definition.evaluation_periods) == ("QueueEmptyFor30Min", 300, 6)
    assert states(definition, visible=0, sent=0, cpu=2.0) == ["OK", "ALARM"]  # rule A; B's stuck task is in flight
    assert states(definition, visible=0, sent=1, cpu=90.0) == [
        "OK"
    ]  # busy, and each task is taken before it is counted
    assert states(definition, visible=3, sent=0, cpu=2.0) == ["OK"]
    assert states(definition, visible=0, sent=0, cpu=None) == ["OK"]  # stopped: armed again for the next run


def states(definition: AlarmDefinition, *, visible: int, sent: int, cpu: float | None) -> list[str]:
    """What the alarm becomes in an hour of such minutes."""
    alarm = Alarm(definition)
    found = []
    for minute in range(60):
        alarm.metrics.publish(minute * 60.0, visible=visible, sent=sent, cpu=cpu)
        if transition := alarm.look((minute + 1) * 60.0):
            found.append(transition.current.value)
    return found


async def assert_only_known_keys_are_let_in(deployment: Deployment) -> None:
    async with deployment.http.get("/api/v1/jobs/nothing", headers={"X-API-Key": "wrong"}) as answer:
        assert answer.status == 401


async def assert_the_alarm_alone_stops_an_idle_gpu(deployment: Deployment) -> None:
    """Rule A, with every event of the schedule lost. The stop is an event, too, and its rule calls as well."""
    await deployment.reaches(State.RUNNING)
    async with deployment.evaluated(lost={"schedule"}) as (_evaluator, events):
        await deployment.reaches(State.STOPPED)
        assert events.stops() == [("alarm", "A")]
        (stopped,) = await eventually(lambda: calls_by("instance_state", events))
        assert stopped["trigger"]["state"] == "stopped"


async def assert_the_first_job_wakes_it_and_the_doctor_finds_nothing_wrong(
    deployment: Deployment, shell: Shell, commands: list[str]
) -> None:
    """Nobody here resolves the API's name, so its address takes that place, for the doctor, too."""
    *submit_and_poll, deploy_check = commands
    image = f"s3://{BUCKET_NAME}/{PICTURE}"
    await asyncio.to_thread(shell.follow, submit_and_poll, API=deployment.base_url, IMAGE=image)
    assert (await finished(deployment.http, shell.value("JOB")))["status"] == "completed"
    told = {name: {"value": value} for name, value in deployment.outputs.items()}
    outputs = shell.directory / "outputs.json"
    outputs.write_text(json.dumps({**told, "api_url": {"value": deployment.base_url}}))
    report = await asyncio.to_thread(shell.type, deploy_check, then=f" OUTPUTS={outputs}")
    assert re.fullmatch(r"[34]\d ok", report.splitlines()[-1])
    deployment.stop_by_hand()
    await deployment.reaches(State.STOPPED)


async def assert_a_busy_gpu_is_left_alone_though_no_sample_sees_a_message(deployment: Deployment) -> None:
    """From the POST that wakes it on: each message is taken at once, and the alarm knows of it all the same."""
    http = deployment.http
    async with deployment.evaluated() as (evaluator, events):
        assert (await finished(http, await submit(http)))["status"] == "completed"
        ends_at = time.monotonic() + 2 * IDLE_S
        while time.monotonic() < ends_at:
            assert (await finished(http, await submit(http)))["status"] == "completed"
        assert evaluator.alarm.state is AlarmState.OK
        assert (events.called_by("alarm"), events.stops()) == ([], [])
        await deployment.reaches(State.STOPPED)
        assert [rule for _, rule in events.stops()] == ["A"]


async def assert_the_schedule_stops_what_the_alarm_will_not_call_for_again(deployment: Deployment) -> None:
    """Started by hand, and the alarm's one call gets lost: it stays in ALARM, and calls no second time."""
    deployment.start_by_hand()
    await deployment.reaches(State.RUNNING)
    async with deployment.evaluated(lost={"alarm", "schedule"}) as (evaluator, events):
        await eventually(lambda: is_in_alarm(evaluator))
        assert await deployment.state() is State.RUNNING
        events.lost.clear()
        await deployment.reaches(State.STOPPED)
        assert events.stops() == [("schedule", "A")]
        assert events.called_by("alarm") == []


async def assert_a_stuck_job_does_not_keep_the_gpu_on(deployment: Deployment) -> None:
    """Rule B: the message stays in flight for ever, so that the queue looks empty."""
    async with deployment.evaluated() as (_evaluator, events):
        job_id = await submit(deployment.http, "hang")
        await deployment.reaches(State.RUNNING)
        await deployment.reaches(State.STOPPED)
        assert (await finished(deployment.http, job_id))["status"] == "failed"
        assert [rule for _, rule in events.stops()] == ["B"]
    key = {"task_id": {"S": job_id}}
    record = deployment.world.client("dynamodb").get_item(TableName=deployment.outputs["table_name"], Key=key)["Item"]
    assert record["error_code"] == {"S": "rule_b"}


async def calls_by(kind: str, events: Events) -> list[dict[str, Any]]:
    return events.called_by(kind)


async def is_in_alarm(evaluator: Evaluator) -> bool:
    return evaluator.alarm.state is AlarmState.ALARM


def assert_the_next_plan_is_empty(world: World) -> None:
    planned = world.run("plan", "-detailed-exitcode", "-input=false")
    assert planned.returncode == 0, planned.stdout + planned.stderr


def assert_drift_is_seen(world: World, outputs: Mapping[str, Any]) -> None:
    """A visibility that somebody has changed shows; traffic, and an instance started and stopped, have not."""
    set_visibility(world, outputs, 60)
    planned = world.run("plan", "-detailed-exitcode", "-input=false", "-out=drift.tfplan")
    assert planned.returncode == 2, planned.stderr
    plan = json.loads(world.run("show", "-json", "drift.tfplan").stdout)
    assert set(changes(plan)) == {("aws_sqs_queue.tasks", "visibility_timeout_seconds", 60, 300)}
    set_visibility(world, outputs, 300)  # Terraform itself would wait for half a minute


def set_visibility(world: World, outputs: Mapping[str, Any], seconds: int) -> None:
    attributes = {"VisibilityTimeout": str(seconds)}
    world.client("sqs").set_queue_attributes(QueueUrl=outputs["queue_url"], Attributes=attributes)


def changes(plan: Mapping[str, Any]) -> Iterator[tuple[str, str, object, object]]:
    """What a plan would change: resource, attribute, from, to."""
    for resource in plan["resource_changes"]:
        change = resource["change"]
        before, after, unknown = change["before"] or {}, change["after"] or {}, change["after_unknown"] or {}
        for name in {**before, **after}:
            # What depends on a changed resource is unknown until then, and is no change of its own.
            if resource["mode"] == "managed" and not unknown.get(name) and before.get(name) != after.get(name):
                yield resource["address"], name, before.get(name), after.get(name)


def inventory(world: World) -> dict[str, Any]:
    """What costs or permits something, by name."""
    ec2, iam = world.client("ec2"), world.client("iam")
    (gpu,) = [instance for item in ec2.describe_instances()["Reservations"] for instance in item["Instances"]]
    return {
        "queues": world.client("sqs").list_queues().get("QueueUrls", []),
        "tables": world.client("dynamodb").list_tables()["TableNames"],
        "functions": [item["FunctionName"] for item in world.client("lambda").list_functions()["Functions"]],
        "rules": world.client("events").list_rules()["Rules"],
        "alarms": world.client("cloudwatch").describe_alarms()["MetricAlarms"],
        "balancers": world.client("elbv2").describe_load_balancers()["LoadBalancers"],
        "clusters": active_clusters(world),
        "repositories": world.client("ecr").describe_repositories()["repositories"],
        "topics": world.client("sns").list_topics()["Topics"],
        "parameters": world.client("ssm").describe_parameters()["Parameters"],
        "documents": world.client("ssm").list_documents(Filters=[{"Key": "Owner", "Values": ["Self"]}])[
            "DocumentIdentifiers"
        ],
        "associations": world.client("ssm").list_associations()["Associations"],
        "log_groups": world.client("logs").describe_log_groups()["logGroups"],
        "roles": sorted(role["RoleName"] for role in iam.list_roles()["Roles"]),
        "policies_of_the_gpu": iam.list_role_policies(RoleName="comfyui")["PolicyNames"],
        "networks": sorted(vpc["VpcId"] for vpc in ec2.describe_vpcs()["Vpcs"]),
        "gpu_tags": gpu.get("Tags", []),
    }


def active_clusters(world: World) -> list[str]:
    """A deleted cluster stays listed for a while, as INACTIVE."""
    ecs = world.client("ecs")
    described = ecs.describe_clusters(clusters=ecs.list_clusters()["clusterArns"])["clusters"]
    return [cluster["clusterName"] for cluster in described if cluster["status"] == "ACTIVE"]
