"""Apply, run, drift, destroy: the real configuration on emulated AWS, and the real services on what it made.

Takes about three minutes, most of it the provider's own waiting.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from services.devstack.alarm import Alarm, AlarmDefinition, AlarmState
from services.devstack.evaluator import Evaluator
from services.devstack.power import State
from services.devstack.python_module import module_command
from services.devstack.surroundings import surroundings
from tests.system.client import eventually
from tests.terraform.cli import Terraform
from tests.terraform.deployment import SCALE, Deployment, Events, deployed, finished, submit
from tests.terraform.world import World, emulated_aws, given_world

IDLE_S = 1800 / SCALE


@pytest.fixture
def world(terraform: Terraform, tmp_path: Path) -> Iterator[World]:
    with emulated_aws(tmp_path) as endpoint_url, given_world(endpoint_url, terraform) as world:
        yield world


@pytest.mark.long
@pytest.mark.timeout(600)
def test_what_is_applied_works_stays_and_goes_without_a_trace(world: World, tmp_path: Path) -> None:
    before = inventory(world)
    assert_mistakes_are_refused_with_a_sentence(world)
    outputs = world.apply()
    assert_the_next_plan_is_empty(world)

    asyncio.run(prove_both_promises(world, outputs, tmp_path))

    assert_the_next_plan_is_empty(world)
    assert_drift_is_seen(world, outputs)
    destroyed = world.run("destroy", "-auto-approve", "-input=false")
    assert destroyed.returncode == 0, destroyed.stderr
    assert inventory(world) == before


def assert_mistakes_are_refused_with_a_sentence(world: World) -> None:
    said = refusal(
        world,
        heartbeat_s=150,
        domain_name=None,
        route53_zone_id=None,
        api_key_hashes={"frontend": "correct horse battery staple"},
    )
    assert "heartbeat_s must be at least 5 and less than half of visibility_timeout_s" in said
    assert "HTTPS needs a certificate: give certificate_arn, or domain_name and route53_zone_id" in said
    assert "api_key_hashes must hold SHA-256 hashes (64 hexadecimal digits), never the keys themselves" in said
    assert "correct horse" not in said
    said = refusal(world, gpu_instance_id="i-0123456789abcdef0")
    assert "There is no instance i-0123456789abcdef0 in us-east-1 in this account: is it in another region" in said


def refusal(world: World, **variables: object) -> str:
    """What a plan with these variables says, on one line; it must not be made."""
    file = world.terraform.directory / "mistakes.json"
    file.write_text(json.dumps(variables, indent=1))
    planned = world.run("plan", "-input=false", f"-var-file={file}")
    assert planned.returncode == 1
    return " ".join(planned.stderr.split())


async def prove_both_promises(world: World, outputs: Mapping[str, Any], folder: Path) -> None:
    async with deployed(world, outputs, folder) as deployment:
        assert_the_alarm_is_the_designs(deployment.wiring.alarm)
        await assert_only_known_keys_are_let_in(deployment)
        await assert_the_alarm_alone_stops_an_idle_gpu(deployment)
        await assert_a_busy_gpu_is_left_alone_though_no_sample_sees_a_message(deployment)
        await assert_the_schedule_stops_what_the_alarm_will_not_call_for_again(deployment)
        await assert_a_stuck_job_does_not_keep_the_gpu_on(deployment)
        await assert_the_doctor_finds_nothing_wrong(deployment, folder)


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


async def assert_the_doctor_finds_nothing_wrong(deployment: Deployment, folder: Path) -> None:
    """But for what this test has told Terraform itself: that the table may be deleted."""
    deployment.start_by_hand()
    started_at = time.time()
    await eventually(lambda: has_reported(deployment, since_s=started_at))
    outputs = {**deployment.outputs, "api_url": deployment.base_url}  # nobody resolves gpu.example.com
    file = folder / "outputs.json"
    file.write_text(json.dumps({name: {"value": value} for name, value in outputs.items()}))
    environment = surroundings(deployment.world.endpoint_url)
    command = module_command("services.doctor", "--json", "--outputs", str(file))
    doctor = await asyncio.create_subprocess_exec(*command, env=environment, stdout=asyncio.subprocess.PIPE)
    said, _ = await doctor.communicate()
    findings = json.loads(said)["findings"]
    assert len(findings) > 30
    assert [finding["check"] for finding in findings if finding["mark"] != "ok"] == ["table protection"]
    assert doctor.returncode == 0


async def has_reported(deployment: Deployment, *, since_s: float) -> bool:
    """Whether the adapter has told the table that it is at work."""
    key = {"task_id": {"S": f"worker#{deployment.instance_id}"}}
    found = deployment.world.client("dynamodb").get_item(TableName=deployment.outputs["table_name"], Key=key)
    return float(found["Item"]["beat_at"]["N"]) > since_s and found["Item"]["upstream"] == {"S": "healthy"}


async def calls_by(kind: str, events: Events) -> list[dict[str, Any]]:
    return events.called_by(kind)


async def is_in_alarm(evaluator: Evaluator) -> bool:
    return evaluator.alarm.state is AlarmState.ALARM


def assert_the_next_plan_is_empty(world: World) -> None:
    planned = world.run("plan", "-detailed-exitcode", "-input=false")
    assert planned.returncode == 0, planned.stdout + planned.stderr


def assert_drift_is_seen(world: World, outputs: Mapping[str, Any]) -> None:
    """A visibility that somebody has changed shows; traffic, and an instance started and stopped, have not."""
    world.client("sqs").set_queue_attributes(QueueUrl=outputs["queue_url"], Attributes={"VisibilityTimeout": "60"})
    planned = world.run("plan", "-detailed-exitcode", "-input=false", "-out=drift.tfplan")
    assert planned.returncode == 2, planned.stderr
    plan = json.loads(world.run("show", "-json", "drift.tfplan").stdout)
    assert set(changes(plan)) == {("aws_sqs_queue.tasks", "visibility_timeout_seconds", 60, 300)}


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
