"""Apply, look, run, drift, destroy: the real configuration on emulated AWS, and the real services on what it made.

Takes about four minutes, nearly all of it the provider's own waiting. `-m 'not cycle'` leaves it out.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config

from services.devstack.alarm import AlarmDefinition, AlarmState, judge
from services.devstack.ports import ReservedPort
from services.devstack.surroundings import surroundings
from tests.terraform.cli import Terraform

KEY = "foo"
KEY_HASH = "2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae"

# What moto takes and does not give back, so that every plan would set it again. Nothing else may differ.
NOT_KEPT = {
    ("aws_appautoscaling_target.orchestrator[0]", "tags_all"),
    ("aws_ecs_service.orchestrator[0]", "availability_zone_rebalancing"),
    ("aws_ecs_service.orchestrator[0]", "health_check_grace_period_seconds"),
    ("aws_vpc_security_group_egress_rule.balancer[0]", "description"),
    ("aws_vpc_security_group_ingress_rule.orchestrator[0]", "description"),
}

# The handler in the zip, as AWS would call it; nothing of the repository is on its path.
INVOKE = """
import json, sys
sys.path.insert(0, sys.argv[1])
from services.shutdown.handler import handler
print(json.dumps(handler({}, None)))
"""


@dataclass(frozen=True, slots=True)
class World:
    """Emulated AWS, and Terraform pointed at it."""

    endpoint_url: str
    terraform: Terraform
    environment: Mapping[str, str]

    def client(self, service: str) -> Any:
        session = boto3.Session(aws_access_key_id="devstack", aws_secret_access_key="devstack", region_name="us-east-1")
        make: Any = session.client
        return make(service, endpoint_url=self.endpoint_url, config=Config(proxies={}))

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self.terraform.run(*arguments, "-input=false", environment=self.environment, timeout_s=400)

    def outputs(self) -> dict[str, Any]:
        done = self.terraform.run("output", "-json", environment=self.environment)
        return {name: output["value"] for name, output in json.loads(done.stdout).items()}


@pytest.fixture
def world(terraform: Terraform, tmp_path: Path) -> Iterator[World]:
    with emulated_aws(tmp_path) as endpoint_url:
        environment = {name: value for name, value in surroundings(endpoint_url).items() if not name.startswith("TF_")}
        yield World(endpoint_url, terraform, environment)
        for left in terraform.directory.glob("*.tfstate*"):
            left.unlink()


@contextmanager
def emulated_aws(folder: Path) -> Iterator[str]:
    with (folder / "emulator.log").open("wb") as log:
        command = [sys.executable, "-m", "tests.terraform.emulator"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True) as process:
            assert process.stdout is not None
            try:
                yield process.stdout.readline().strip()
            finally:
                process.kill()


def given(world: World) -> dict[str, Any]:
    """What an operator has before: a GPU instance with a profile, and a DNS zone. Returns the variables."""
    iam, ec2 = world.client("iam"), world.client("ec2")
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
    )
    zone = world.client("route53").create_hosted_zone(Name="example.com", CallerReference="test")
    return {
        "emulated": True,
        "table_deletion_protection": False,
        "gpu_instance_id": launched["Instances"][0]["InstanceId"],
        "gpu_role_name": "comfyui",
        "domain_name": "gpu.example.com",
        "route53_zone_id": zone["HostedZone"]["Id"].rpartition("/")[2],
        "api_key_hashes": {"frontend": KEY_HASH},
        "lambda_zip": str(world.terraform.lambda_zip),
        "alert_emails": ["operator@example.com"],
    }


@pytest.mark.cycle
@pytest.mark.timeout(900)
def test_what_is_applied_works_stays_and_goes_without_a_trace(world: World, tmp_path: Path) -> None:
    (world.terraform.directory / "terraform.tfvars.json").write_text(json.dumps(given(world)))
    before = inventory(world)
    try:
        applied = world.run("apply", "-auto-approve")
        assert applied.returncode == 0, applied.stderr
        outputs = world.outputs()

        assert changes(world) == NOT_KEPT

        assert_the_alarm_keeps_rules_a_and_b(world, outputs)
        assert_the_lambda_may_be_called_by_all_three(world, outputs)
        assert_the_lambda_stops_the_idle_gpu(world, outputs)
        assert_a_job_is_taken_and_wakes_the_gpu(world, outputs, tmp_path)
        assert_drift_is_seen(world, outputs)

        destroyed = world.run("destroy", "-auto-approve")
        assert destroyed.returncode == 0, destroyed.stderr
        assert inventory(world) == before
    finally:
        (world.terraform.directory / "terraform.tfvars.json").unlink()


def assert_the_alarm_keeps_rules_a_and_b(world: World, outputs: Mapping[str, Any]) -> None:
    (alarm,) = world.client("cloudwatch").describe_alarms(AlarmNames=[outputs["idle_alarm_name"]])["MetricAlarms"]
    state = alarm_judge(alarm)
    assert state(visible=0, sent=0, cpu=2.0) is AlarmState.ALARM  # rule A; and B, whose stuck task is in flight
    assert state(visible=0, sent=1, cpu=90.0) is AlarmState.OK  # busy, and each task taken before it is counted
    assert state(visible=3, sent=0, cpu=2.0) is AlarmState.OK
    assert state(visible=0, sent=0, cpu=None) is AlarmState.OK  # stopped: armed again for the next run


def alarm_judge(alarm: Mapping[str, Any]) -> Callable[..., AlarmState]:
    """The alarm that was created, as a function of what is measured in each of its periods."""
    queries = {query["Id"]: query for query in alarm["Metrics"]}
    (result,) = [query for query in queries.values() if query.get("ReturnData")]
    assert result["Expression"] == "IF(cpu >= 0, visible + sent, 1)"
    for name, metric in {"visible": "ApproximateNumberOfMessagesVisible", "sent": "NumberOfMessagesSent"}.items():
        assert queries[name]["MetricStat"]["Metric"]["MetricName"] == metric
        assert queries[name]["MetricStat"]["Metric"]["Dimensions"] == [
            {"Name": "QueueName", "Value": "gpu_tasks_queue"}
        ]
    assert alarm["TreatMissingData"] == "notBreaching"
    assert alarm["ComparisonOperator"] == "LessThanOrEqualToThreshold"
    definition = AlarmDefinition(
        evaluation_periods=alarm["EvaluationPeriods"],
        datapoints_to_alarm=alarm["DatapointsToAlarm"],
        threshold=alarm["Threshold"],
    )

    def state(*, visible: float, sent: int, cpu: float | None) -> AlarmState:
        # IF(m, ...) has no value where m has none.
        point = None if cpu is None else visible + sent if cpu >= 0 else 1.0
        return judge([point] * definition.evaluation_periods, definition)

    return state


def assert_the_lambda_may_be_called_by_all_three(world: World, outputs: Mapping[str, Any]) -> None:
    functions, events = world.client("lambda"), world.client("events")
    arn = functions.get_function_configuration(FunctionName=outputs["shutdown_function_name"])["FunctionArn"]
    policy = json.loads(functions.get_policy(FunctionName=outputs["shutdown_function_name"])["Policy"])
    principals = sorted(statement["Principal"]["Service"] for statement in policy["Statement"])
    assert principals == ["events.amazonaws.com"] * 2 + ["lambda.alarms.cloudwatch.amazonaws.com"]
    (alarm,) = world.client("cloudwatch").describe_alarms(AlarmNames=[outputs["idle_alarm_name"]])["MetricAlarms"]
    assert alarm["AlarmActions"] == [arn]
    rules = events.list_rules()["Rules"]
    assert sorted(rule.get("ScheduleExpression", "event") for rule in rules) == ["event", "rate(1 minute)"]
    for rule in rules:
        assert [target["Arn"] for target in events.list_targets_by_rule(Rule=rule["Name"])["Targets"]] == [arn]


def assert_the_lambda_stops_the_idle_gpu(world: World, outputs: Mapping[str, Any]) -> None:
    """Handler and environment as read back: an instance just launched is left alone; with no patience it is not."""
    functions = world.client("lambda")
    deployed = functions.get_function_configuration(FunctionName=outputs["shutdown_function_name"])
    assert deployed["Handler"] == "services.shutdown.handler.handler"
    variables = deployed["Environment"]["Variables"]
    wait_for_state(world, outputs["gpu_instance_id"], "running")
    assert invoke(world, variables)["decision"] == "leave"
    answer = invoke(world, {**variables, "IDLE_S": "0.001"})
    assert (answer["decision"], answer["rule"], answer["outcome"]) == ("stop", "A", "stopped")
    wait_for_state(world, outputs["gpu_instance_id"], "stopped")


def invoke(world: World, variables: Mapping[str, str]) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-I", "-c", INVOKE, world.terraform.lambda_zip],
        env={**surroundings(world.endpoint_url), **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def assert_a_job_is_taken_and_wakes_the_gpu(world: World, outputs: Mapping[str, Any], folder: Path) -> None:
    """The orchestrator with the environment and the secret of its task definition."""
    with ReservedPort() as port:
        own = {**task_environment(world), "HOST": "127.0.0.1", "PORT": str(port.number)}
        command = [sys.executable, "-m", "services.orchestrator"]
        with (
            (folder / "orchestrator.log").open("wb") as log,
            subprocess.Popen(command, env=surroundings(world.endpoint_url, own), stdout=log, stderr=log) as process,
        ):
            try:
                address = f"http://127.0.0.1:{port.number}"
                until(lambda: request(f"{address}/ready")[0] == 200, limit_s=60)
                assert (
                    request(f"{address}/api/v1/camera-angle/jobs", key="wrong", image="s3://pictures/cat.png")[0] == 401
                )
                status, job = request(f"{address}/api/v1/camera-angle/jobs", key=KEY, image="s3://pictures/cat.png")
                while status == 503:  # a busy machine that was too slow for the promised second
                    status, job = request(f"{address}/api/v1/camera-angle/jobs", key=KEY, image="s3://pictures/cat.png")
                assert status == 202
                assert request(f"{address}/api/v1/jobs/{job['job_id']}", key=KEY)[1]["status"] == "pending"
                wait_for_state(world, outputs["gpu_instance_id"], "running")
            finally:
                process.terminate()
                assert process.wait(timeout=60) == 0
    (message,) = world.client("sqs").receive_message(QueueUrl=outputs["queue_url"])["Messages"]
    assert json.loads(message["Body"])["task_id"] == job["job_id"]


def task_environment(world: World) -> dict[str, str]:
    ecs = world.client("ecs")
    (definition,) = ecs.list_task_definitions(familyPrefix="gpu-orchestrator")["taskDefinitionArns"]
    (container,) = ecs.describe_task_definition(taskDefinition=definition)["taskDefinition"]["containerDefinitions"]
    environment = {variable["name"]: variable["value"] for variable in container["environment"]}
    for secret in container["secrets"]:
        name = secret["valueFrom"].partition(":parameter")[2]
        parameter = world.client("ssm").get_parameter(Name=name, WithDecryption=True)["Parameter"]
        environment[secret["name"]] = parameter["Value"]
    return environment


def request(url: str, *, key: str | None = None, image: str | None = None) -> tuple[int, dict[str, Any]]:
    headers = {"Content-Type": "application/json"} | ({"X-API-Key": key} if key else {})
    body = json.dumps({"image_url": image}).encode() if image else None
    straight = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with straight.open(urllib.request.Request(url, body, headers), timeout=10) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, {}
    except urllib.error.URLError:
        return 0, {}


def assert_drift_is_seen(world: World, outputs: Mapping[str, Any]) -> None:
    """A visibility changed by hand shows; traffic, and an instance that was started and stopped, do not."""
    sqs = world.client("sqs")
    sqs.set_queue_attributes(QueueUrl=outputs["queue_url"], Attributes={"VisibilityTimeout": "60"})
    assert changes(world) - NOT_KEPT == {("aws_sqs_queue.tasks", "visibility_timeout_seconds")}


def changes(world: World) -> set[tuple[str, str]]:
    """What a plan would change: (resource, attribute)."""
    planned = world.run("plan", "-out=plan.tfplan")
    assert planned.returncode == 0, planned.stderr
    shown = world.terraform.run("show", "-json", "plan.tfplan", environment=world.environment)
    found: set[tuple[str, str]] = set()
    for resource in json.loads(shown.stdout)["resource_changes"]:
        change = resource["change"]
        before, after, unknown = change["before"] or {}, change["after"] or {}, change["after_unknown"] or {}
        # What depends on a changed resource is unknown until then, and is no change of its own.
        known = [name for name in {**before, **after} if not unknown.get(name)]
        if resource["mode"] == "managed":
            found |= {(resource["address"], name) for name in known if before.get(name) != after.get(name)}
    return found


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


def wait_for_state(world: World, instance_id: str, state: str) -> None:
    ec2 = world.client("ec2")

    def reached() -> bool:
        described = ec2.describe_instances(InstanceIds=[instance_id])["Reservations"][0]["Instances"][0]
        return bool(described["State"]["Name"] == state)

    until(reached, limit_s=60)


def until(holds: Callable[[], bool], *, limit_s: float) -> None:
    ends_at = time.monotonic() + limit_s
    while not holds():
        assert time.monotonic() < ends_at
        time.sleep(0.2)
