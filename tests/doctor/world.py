"""Deployments on emulated AWS, as Terraform would leave them, and the doctor run on them."""

from __future__ import annotations

import io
import json
import os
import select
import subprocess
import sys
import time
import urllib.request
import uuid
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config

from lib.gputask.schema import TABLE_KEY, TTL_ATTRIBUTE, definition
from services.devstack import leash
from services.devstack.surroundings import ACCESS_KEY, REGION, surroundings
from services.doctor.judgement.function import ALARM_PRINCIPAL, HANDLER, RULE_PRINCIPAL
from services.doctor.judgement.idle_alarm import EXPRESSION, ROLES

ACCOUNT = "123456789012"

_START_LIMIT_S = 60
_RUN_LIMIT_S = 120


class EmulatedAws:
    """An emulator with what Terraform needs; names are new each time, because tests share it."""

    def __init__(self, endpoint_url: str) -> None:
        self.endpoint_url = endpoint_url
        self._clients: dict[str, Any] = {}

    def client(self, service: Any) -> Any:
        if service not in self._clients:
            session = boto3.Session(aws_access_key_id=ACCESS_KEY, aws_secret_access_key=ACCESS_KEY, region_name=REGION)
            config = Config(proxies={}, retries={"total_max_attempts": 1})
            self._clients[service] = session.client(service, endpoint_url=self.endpoint_url, config=config)
        return self._clients[service]

    def close(self) -> None:
        for client in self._clients.values():
            client.close()

    @cached_property
    def image_id(self) -> str:
        image_id: str = self.client("ec2").describe_images(Owners=["amazon"])["Images"][0]["ImageId"]
        return image_id

    @cached_property
    def role_arn(self) -> str:
        role = self.client("iam").create_role(RoleName=f"role-{uuid.uuid4()}", AssumeRolePolicyDocument="{}")
        arn: str = role["Role"]["Arn"]
        return arn

    def ask(self, method: str, path: str, body: object = None) -> Any:
        """Ask a control path of the devstack's emulator."""
        request = urllib.request.Request(f"{self.endpoint_url}{path}", method=method)
        request.data = None if body is None else json.dumps(body).encode()
        straight = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with straight.open(request, timeout=30) as answer:
            return json.load(answer)

    def deny(self, service: str, action: str, code: str) -> None:
        self.ask("POST", "/devstack/faults", {"service": service, "mode": "error", "action": action, "code": code})

    def heal(self) -> None:
        self.ask("DELETE", "/devstack/faults")

    def attempted(self) -> set[tuple[str, str]]:
        """Each (service, action) that was called so far."""
        calls = self.ask("GET", "/devstack/calls")["attempted"]
        return {(service, action) for service, actions in calls.items() for action in actions}


@contextmanager
def emulated_aws(log_path: Path) -> Iterator[EmulatedAws]:
    command = [sys.executable, leash.__file__, str(os.getpid()), sys.executable, "-m", "tests.terraform.emulator"]
    with log_path.open("wb") as log:
        process = subprocess.Popen(command, env=surroundings("http://unused"), stdout=subprocess.PIPE, stderr=log)
    with process:
        try:
            assert process.stdout is not None
            assert select.select([process.stdout], [], [], _START_LIMIT_S)[0], "the emulator said nothing"
            aws = EmulatedAws(process.stdout.readline().decode().strip())
            yield aws
            aws.close()
        finally:
            process.terminate()


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """One deployment; everything is as it should be, and the instance is stopped."""

    aws: EmulatedAws
    name: str
    queue_url: str
    dead_letter_queue_url: str
    table: str
    instance_id: str
    function_arn: str
    api_url: str | None = None

    @property
    def alarm(self) -> str:
        return f"QueueEmptyFor30Min-{self.name}"

    @property
    def function(self) -> str:
        return f"shutdown-gpu-lambda-{self.name}"

    @property
    def rules(self) -> tuple[str, str]:
        return f"{self.function}-every-minute", f"{self.function}-stopped"

    def client(self, service: str) -> Any:
        return self.aws.client(service)

    def arn(self, service: str, resource: str) -> str:
        return f"arn:aws:{service}:{REGION}:{ACCOUNT}:{resource}"

    def variables(self) -> dict[str, str]:
        """The doctor's environment."""
        return {
            "SQS_QUEUE_URL": self.queue_url,
            "SQS_DLQ_URL": self.dead_letter_queue_url,
            "DYNAMODB_TABLE": self.table,
            "GPU_INSTANCE_ID": self.instance_id,
            "IDLE_ALARM_NAME": self.alarm,
            "SHUTDOWN_FUNCTION_NAME": self.function,
            "API_URL": self.api_url or "",
        }

    def outputs(self) -> str:
        """What `terraform output -json` would print."""
        values = {
            "region": REGION,
            "queue_url": self.queue_url,
            "dead_letter_queue_url": self.dead_letter_queue_url,
            "table_name": self.table,
            "gpu_instance_id": self.instance_id,
            "idle_alarm_name": self.alarm,
            "shutdown_function_name": self.function,
            "api_url": self.api_url,
            "task_max_age_s": 86400,
            "adapter_environment": f"AWS_REGION={REGION}\nHEARTBEAT_S=100\nVISIBILITY_TIMEOUT_S=300",
        }
        return json.dumps({name: {"sensitive": False, "value": value} for name, value in values.items()})

    def run(
        self, *arguments: str, variables: Mapping[str, str] | None = None, stdin: str = ""
    ) -> subprocess.CompletedProcess[str]:
        """The doctor as a process; `variables` None: those of this deployment."""
        own = self.variables() if variables is None else variables
        return subprocess.run(
            [sys.executable, "-m", "services.doctor", *arguments],
            env=surroundings(self.aws.endpoint_url, own),
            input=stdin,
            capture_output=True,
            text=True,
            timeout=_RUN_LIMIT_S,
            check=False,
        )

    def put(self, key: str, **attributes: float | str) -> None:
        item = {name: {"S": v} if isinstance(v, str) else {"N": repr(v)} for name, v in attributes.items()}
        self.client("dynamodb").put_item(TableName=self.table, Item={TABLE_KEY: {"S": key}, **item})

    def start(self) -> None:
        """Start the instance and wait until it runs."""
        self.client("ec2").start_instances(InstanceIds=[self.instance_id])
        path = f"/devstack/instances/{self.instance_id}"
        view = self.aws.ask("GET", path)
        while view["state"] != "running":
            after = view["version"]
            view = self.aws.ask("GET", f"{path}?after={after}&wait_s=10")
            assert view["version"] > after, f"still {view['state']} after 10 s"

    def count(self, metric: str, value: float) -> None:
        """Let CloudWatch have counted something of the function."""
        dimensions = [{"Name": "FunctionName", "Value": self.function}]
        data = [{"MetricName": metric, "Dimensions": dimensions, "Value": value, "Unit": "Count"}]
        self.client("cloudwatch").put_metric_data(Namespace="AWS/Lambda", MetricData=data)

    def alarm_definition(self) -> dict[str, Any]:
        """What PutMetricAlarm is given."""
        dimensions = {
            "AWS/SQS": [{"Name": "QueueName", "Value": self.queue_url.rpartition("/")[2]}],
            "AWS/EC2": [{"Name": "InstanceId", "Value": self.instance_id}],
        }
        metrics = [
            {
                "Id": role,
                "ReturnData": False,
                "MetricStat": {
                    "Metric": {"Namespace": namespace, "MetricName": name, "Dimensions": dimensions[namespace]},
                    "Period": 300,
                    "Stat": statistic,
                },
            }
            for (namespace, name, statistic), role in ROLES.items()
        ]
        return {
            "AlarmName": self.alarm,
            "ComparisonOperator": "LessThanOrEqualToThreshold",
            "Threshold": 0,
            "EvaluationPeriods": 6,
            "DatapointsToAlarm": 6,
            "TreatMissingData": "notBreaching",
            "AlarmActions": [self.function_arn],
            "Metrics": [{"Id": "work", "Expression": EXPRESSION, "ReturnData": True}, *metrics],
        }


def deploy(aws: EmulatedAws, *, api_url: str | None = None) -> World:
    """Everything, as it should be."""
    name = uuid.uuid4().hex[:12]
    queue_url, dead_letter_queue_url = _make_queues(aws.client("sqs"), name)
    table = _make_table(aws.client("dynamodb"), name)
    instance_id = _make_instance(aws, name)
    function_arn = _make_function(
        aws, name, {"GPU_INSTANCE_ID": instance_id, "DYNAMODB_TABLE": table, "SQS_QUEUE_URL": queue_url}
    )
    world = World(
        aws=aws,
        name=name,
        queue_url=queue_url,
        dead_letter_queue_url=dead_letter_queue_url,
        table=table,
        instance_id=instance_id,
        function_arn=function_arn,
        api_url=api_url,
    )
    _make_triggers(world)
    world.count("Invocations", 14)
    world.count("Errors", 0)
    world.put(f"worker#{instance_id}", beat_at=round(time.time() - 7200, 3), upstream="healthy")
    return world


def _make_queues(sqs: Any, name: str) -> tuple[str, str]:
    def arn(url: str) -> str:
        found: str = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
        return found

    kept = {"MessageRetentionPeriod": "1209600", "SqsManagedSseEnabled": "true"}
    dead_letter_queue_url: str = sqs.create_queue(QueueName=f"gpu_tasks_dlq-{name}", Attributes=kept)["QueueUrl"]
    redrive = {"deadLetterTargetArn": arn(dead_letter_queue_url), "maxReceiveCount": 10}
    attributes = {
        "VisibilityTimeout": "300",
        "ReceiveMessageWaitTimeSeconds": "20",
        "MessageRetentionPeriod": "345600",
        "SqsManagedSseEnabled": "true",
        "RedrivePolicy": json.dumps(redrive),
    }
    queue_url: str = sqs.create_queue(QueueName=f"gpu_tasks_queue-{name}", Attributes=attributes)["QueueUrl"]
    allowed = {"redrivePermission": "byQueue", "sourceQueueArns": [arn(queue_url)]}
    sqs.set_queue_attributes(QueueUrl=dead_letter_queue_url, Attributes={"RedriveAllowPolicy": json.dumps(allowed)})
    return queue_url, dead_letter_queue_url


def _make_table(dynamodb: Any, name: str) -> str:
    table = f"task_store-{name}"
    dynamodb.create_table(TableName=table, DeletionProtectionEnabled=True, **definition())
    ttl = {"Enabled": True, "AttributeName": TTL_ATTRIBUTE}
    dynamodb.update_time_to_live(TableName=table, TimeToLiveSpecification=ttl)
    recovery = {"PointInTimeRecoveryEnabled": True}
    dynamodb.update_continuous_backups(TableName=table, PointInTimeRecoverySpecification=recovery)
    return table


def _make_instance(aws: EmulatedAws, name: str) -> str:
    iam = aws.client("iam")
    iam.create_instance_profile(InstanceProfileName=f"gpu-adapter-{name}")
    launched = aws.client("ec2").run_instances(
        ImageId=aws.image_id,
        InstanceType="g6e.2xlarge",
        MinCount=1,
        MaxCount=1,
        IamInstanceProfile={"Name": f"gpu-adapter-{name}"},
        MetadataOptions={"HttpTokens": "required", "HttpPutResponseHopLimit": 1},
        TagSpecifications=[{"ResourceType": "instance", "Tags": [{"Key": "Purpose", "Value": "GPU-ComfyUI"}]}],
    )
    instance_id: str = launched["Instances"][0]["InstanceId"]
    aws.ask("POST", f"/devstack/instances/{instance_id}/rest")
    return instance_id


def _make_function(aws: EmulatedAws, name: str, variables: Mapping[str, str]) -> str:
    package = io.BytesIO()
    with zipfile.ZipFile(package, "w") as zipped:
        zipped.writestr("services/shutdown/handler.py", "")
    made = aws.client("lambda").create_function(
        FunctionName=f"shutdown-gpu-lambda-{name}",
        Runtime="python3.11",
        Role=aws.role_arn,
        Handler=HANDLER,
        Code={"ZipFile": package.getvalue()},
        Environment={"Variables": dict(variables)},
    )
    arn: str = made["FunctionArn"]
    return arn


def _make_triggers(world: World) -> None:
    world.client("cloudwatch").put_metric_alarm(**world.alarm_definition())
    events = world.client("events")
    pattern = {
        "source": ["aws.ec2"],
        "detail-type": ["EC2 Instance State-change Notification"],
        "detail": {"instance-id": [world.instance_id], "state": ["stopped"]},
    }
    every_minute, stopped = world.rules
    events.put_rule(Name=every_minute, ScheduleExpression="rate(1 minute)")
    events.put_rule(Name=stopped, EventPattern=json.dumps(pattern))
    sources = {"IdleAlarm": (ALARM_PRINCIPAL, world.arn("cloudwatch", f"alarm:{world.alarm}"))}
    for rule in world.rules:
        events.put_targets(Rule=rule, Targets=[{"Id": "lambda", "Arn": world.function_arn}])
        sources[rule] = (RULE_PRINCIPAL, world.arn("events", f"rule/{rule}"))
    for statement_id, (principal, source_arn) in sources.items():
        world.client("lambda").add_permission(
            FunctionName=world.function,
            StatementId=statement_id,
            Action="lambda:InvokeFunction",
            Principal=principal,
            SourceArn=source_arn,
        )
