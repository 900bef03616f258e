"""The doctor as a process on emulated AWS: what is right, each thing broken for real, and what it may not see."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from lib.gputask.schema import STATUS_INDEX
from services.devstack.surroundings import surroundings
from services.doctor.judgement.function import ALARM_PRINCIPAL
from services.doctor.reader import ACTIONS
from tests.aws_cli import put_aws_cli
from tests.doctor.orchestrator import Orchestrator
from tests.doctor.world import World

ROOT = Path(__file__).resolve().parents[2]


def test_a_deployment_as_it_should_be_is_well(world: World) -> None:
    done = world.run()
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert [line for line in lines[:-1] if not line.startswith("ok ")] == []
    assert lines[-1] == f"{len(lines) - 1} ok"
    assert len(lines) > 40


def test_it_only_reads(world: World) -> None:
    before = counted(world)
    assert world.run().returncode == 0
    called = {call for call, count in counted(world).items() if count > before.get(call, 0)}
    services = {"monitoring": "cloudwatch"}
    named = {f"{services.get(service, service)}:{action}" for service, action in called}
    # Lambda's API has paths instead of names.
    in_lambda = {action for action in ACTIONS if action.startswith("lambda:")}
    assert named == (set(ACTIONS) - in_lambda) | {"lambda:GET"}


def counted(world: World) -> dict[tuple[str, str], int]:
    calls = world.aws.ask("GET", "/devstack/calls")["attempted"]
    return {(service, action): count for service, actions in calls.items() for action, count in actions.items()}


@pytest.mark.parametrize("source", ["file", "stdin", "terraform"])
def test_it_is_told_by_terraforms_outputs(world: World, tmp_path: Path, source: str) -> None:
    file = tmp_path / "outputs.json"
    file.write_text(world.outputs())
    path = {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
    (tmp_path / "terraform").write_text(f'#!/bin/sh\n[ "$*" = "-chdir=infra output -json -no-color" ] && cat {file}\n')
    (tmp_path / "terraform").chmod(0o755)
    arguments = {"file": ["--outputs", str(file)], "stdin": ["--outputs", "-"], "terraform": ["--terraform", "infra"]}
    done = world.run(*arguments[source], variables=path, stdin=world.outputs())
    assert (done.returncode, done.stderr) == (0, "")
    assert f"{world.api_url} is healthy and ready" in done.stdout


def test_json_for_machines(world: World) -> None:
    world.client("ec2").delete_tags(Resources=[world.instance_id], Tags=[{"Key": "Purpose"}])
    done = world.run("--json")
    assert done.returncode == 1
    document = json.loads(done.stdout)
    assert document["ok"] is False
    (ill,) = [finding for finding in document["findings"] if finding["mark"] != "ok"]
    assert (ill["mark"], ill["check"]) == ("broken", "instance tag")
    assert ill["fix"].endswith(f"create-tags --resources {world.instance_id} --tags Key=Purpose,Value=GPU-ComfyUI")


def set_queue(world: World, **attributes: str) -> None:
    world.client("sqs").set_queue_attributes(QueueUrl=world.queue_url, Attributes=attributes)


def set_dead_letters(world: World, **attributes: str) -> None:
    world.client("sqs").set_queue_attributes(QueueUrl=world.dead_letter_queue_url, Attributes=attributes)


def change_alarm(world: World, **changes: Any) -> None:
    world.client("cloudwatch").put_metric_alarm(**{**world.alarm_definition(), **changes})


def watch_visible_alone(world: World) -> None:
    """The alarm of the original design."""
    change_alarm(
        world,
        Metrics=[],
        Namespace="AWS/SQS",
        MetricName="ApproximateNumberOfMessagesVisible",
        Statistic="Average",
        Period=300,
        Dimensions=[{"Name": "QueueName", "Value": world.queue_url.rpartition("/")[2]}],
    )


def configure_function(world: World, **changes: Any) -> None:
    world.client("lambda").update_function_configuration(FunctionName=world.function, **changes)


def forbid(world: World, statement_id: str) -> None:
    world.client("lambda").remove_permission(FunctionName=world.function, StatementId=statement_id)


def forbid_all(world: World) -> None:
    for statement_id in ("IdleAlarm", *world.rules):
        forbid(world, statement_id)


def remove_target(world: World, rule: str) -> None:
    world.client("events").remove_targets(Rule=rule, Ids=["lambda"])


def drop_index(world: World) -> None:
    world.client("dynamodb").update_table(
        TableName=world.table, GlobalSecondaryIndexUpdates=[{"Delete": {"IndexName": STATUS_INDEX}}]
    )


def switch_ttl_off(world: World) -> None:
    off = {"Enabled": False, "AttributeName": "expires_at"}
    world.client("dynamodb").update_time_to_live(TableName=world.table, TimeToLiveSpecification=off)


def switch_recovery_off(world: World) -> None:
    off = {"PointInTimeRecoveryEnabled": False}
    world.client("dynamodb").update_continuous_backups(TableName=world.table, PointInTimeRecoverySpecification=off)


def drop_table(world: World) -> None:
    dynamodb = world.client("dynamodb")
    dynamodb.update_table(TableName=world.table, DeletionProtectionEnabled=False)
    dynamodb.delete_table(TableName=world.table)


def run_and_beat(world: World, **worker: Any) -> None:
    world.start()
    world.put(f"worker#{world.instance_id}", **worker)


def leave_waiting(world: World, age_s: float) -> None:
    world.put("a-task", status="pending", created_at=round(time.time() - age_s, 3))


def hold(world: World) -> None:
    until = round(time.time() + 3600, 3)
    world.put(f"instance#{world.instance_id}", hold_until=until, hold_count=1, hold_reason="no worker")
    leave_waiting(world, 5)


Break = Callable[[World], object]

# what is done to the deployment -> the mark and check of the line, and words of it
BREAKS: dict[str, tuple[Break, str, str, str]] = {
    "another visibility": (
        lambda world: set_queue(world, VisibilityTimeout="60"),
        *("broken", "queue visibility", "60 s, not over twice the heartbeat of 100 s"),
    ),
    "short poll": (
        lambda world: set_queue(world, ReceiveMessageWaitTimeSeconds="0"),
        *("warning", "queue long poll", "0 s"),
    ),
    "queue in the clear": (
        lambda world: set_queue(world, SqsManagedSseEnabled="false"),
        *("warning", "queue encryption", "off"),
    ),
    "longer retention than the dead letters'": (
        lambda world: set_queue(world, MessageRetentionPeriod="1209600"),
        *("broken", "dead letter retention", "may vanish unseen"),
    ),
    "redrive to itself": (
        lambda world: set_queue(
            world, RedrivePolicy=json.dumps({"deadLetterTargetArn": arn_of(world), "maxReceiveCount": 10})
        ),
        *("broken", "queue redrive", "but the orchestrator buries"),
    ),
    "dead too early": (
        lambda world: set_queue(
            world,
            RedrivePolicy=json.dumps(
                {"deadLetterTargetArn": arn_of(world).replace("_queue", "_dlq"), "maxReceiveCount": 2}
            ),
        ),
        *("broken", "queue redrive", "after 2 receives"),
    ),
    "nobody may bury": (
        lambda world: set_dead_letters(world, RedriveAllowPolicy=json.dumps({"redrivePermission": "denyAll"})),
        *("broken", "redrive permission", "takes nothing"),
    ),
    "a dead letter": (
        lambda world: world.client("sqs").send_message(QueueUrl=world.dead_letter_queue_url, MessageBody="{}"),
        *("broken", "dead letters", "1 in gpu_tasks_dlq"),
    ),
    "no queue": (
        lambda world: world.client("sqs").delete_queue(QueueUrl=world.queue_url),
        *("broken", "queue", "there is no queue"),
    ),
    "no index": (drop_index, "broken", "table index", f"there is no index {STATUS_INDEX}"),
    "no ttl": (switch_ttl_off, "warning", "table ttl", "for ever"),
    "no recovery": (switch_recovery_off, "warning", "table recovery", "is off"),
    "no table": (drop_table, "broken", "table", "there is no table"),
    "visible alone": (watch_visible_alone, "broken", "alarm expression", "visible messages alone"),
    "actions off": (
        lambda world: world.client("cloudwatch").disable_alarm_actions(AlarmNames=[world.alarm]),
        *("broken", "alarm action", "switched off"),
    ),
    "calls nobody": (
        lambda world: change_alarm(world, AlarmActions=[]),
        *("broken", "alarm action", "calls nobody"),
    ),
    "missing data": (
        lambda world: change_alarm(world, TreatMissingData="breaching"),
        *("broken", "alarm missing data", "breaching"),
    ),
    "three periods": (
        lambda world: change_alarm(world, EvaluationPeriods=3, DatapointsToAlarm=3),
        *("broken", "alarm window", "3 of 3 periods"),
    ),
    "no alarm": (
        lambda world: world.client("cloudwatch").delete_alarms(AlarmNames=[world.alarm]),
        *("broken", "alarm", "there is no alarm"),
    ),
    "alarm forbidden": (
        lambda world: forbid(world, "IdleAlarm"),
        *("broken", "alarm permission", f"--principal {ALARM_PRINCIPAL}"),
    ),
    "all forbidden": (forbid_all, "broken", "schedule permission", "may not call"),
    "schedule off": (
        lambda world: world.client("events").disable_rule(Name=world.rules[0]),
        *("broken", "schedule", "is disabled"),
    ),
    "schedule without its target": (
        lambda world: remove_target(world, world.rules[0]),
        *("broken", "schedule", "no scheduled rule calls"),
    ),
    "stop event without its target": (
        lambda world: remove_target(world, world.rules[1]),
        *("warning", "stop event", "no rule tells"),
    ),
    "another handler": (
        lambda world: configure_function(world, Handler="lambda_function.lambda_handler"),
        *("broken", "function", "its handler is lambda_function.lambda_handler"),
    ),
    "another environment": (
        lambda world: configure_function(world, Environment={"Variables": {"GPU_INSTANCE_ID": "i-1"}}),
        *("broken", "function environment", "GPU_INSTANCE_ID is i-1"),
    ),
    "switched off": (
        lambda world: world.client("lambda").put_function_concurrency(
            FunctionName=world.function, ReservedConcurrentExecutions=0
        ),
        *("broken", "function concurrency", "every call is refused"),
    ),
    "raises": (lambda world: world.count("Errors", 3), "warning", "function calls", "3 of 14 within 15 min failed"),
    "no function": (
        lambda world: world.client("lambda").delete_function(FunctionName=world.function),
        *("broken", "function", "nobody stops the GPU"),
    ),
    "IMDSv1": (
        lambda world: world.client("ec2").modify_instance_metadata_options(
            InstanceId=world.instance_id, HttpTokens="optional", HttpPutResponseHopLimit=2
        ),
        *("warning", "instance metadata", "without a token (IMDSv1) and over 2 hops"),
    ),
    "terminated": (
        lambda world: world.client("ec2").terminate_instances(InstanceIds=[world.instance_id]),
        *("broken", "instance", "is terminated"),
    ),
    "its clock is ahead": (
        lambda world: run_and_beat(world, beat_at=round(time.time() + 900, 3), upstream="healthy"),
        *("broken", "adapter", "its clock is"),
    ),
    "a record that is no number": (
        lambda world: world.put(f"worker#{world.instance_id}", beat_at="soon"),
        *("unseen", "adapter", "not understood"),
    ),
    "held": (hold, "broken", "hold", "no worker, while tasks wait"),
    "nobody wakes": (lambda world: leave_waiting(world, 900), "broken", "tasks", "nobody starts it"),
}


def arn_of(world: World) -> str:
    return world.arn("sqs", world.queue_url.rpartition("/")[2])


# A process a group, because each takes a second; within one, no break hides another.
GROUPS = {
    "drift": [
        "another visibility",
        "short poll",
        "queue in the clear",
        "longer retention than the dead letters'",
        "redrive to itself",
        "a dead letter",
        "no index",
        "no ttl",
        "no recovery",
        "visible alone",
        "actions off",
        "another environment",
    ],
    "a watchman who does not come": [
        "dead too early",
        "nobody may bury",
        "missing data",
        "alarm forbidden",
        "schedule off",
        "another handler",
        "raises",
        "IMDSv1",
        "its clock is ahead",
    ],
    "a watchman who may not come": [
        "calls nobody",
        "all forbidden",
        "stop event without its target",
        "switched off",
        "a record that is no number",
        "held",
    ],
    "a task nobody cares for": ["three periods", "schedule without its target", "nobody wakes"],
    "nothing there": ["no queue", "no table", "no alarm", "no function", "terminated"],
}


@pytest.mark.parametrize("group", GROUPS)
def test_what_is_broken_has_its_line(world: World, group: str) -> None:
    for name in GROUPS[group]:
        BREAKS[name][0](world)
    done = world.run()
    assert (done.returncode, done.stderr) == (1, "")
    lines = dict(re.findall(r"^(\w+ +\S+(?: \S+)*)  +(.*)$", done.stdout, re.MULTILINE))
    for name in GROUPS[group]:
        _, mark, check, words = BREAKS[name]
        line = lines[f"{mark:7}  {check}"]
        assert words in line
        assert "  fix: " in line


def test_everything_is_broken_once() -> None:
    assert sorted(name for group in GROUPS.values() for name in group) == sorted(BREAKS)


# Broken in a way that one command of AWS's own command line mends, beside those that only `terraform apply` does.
MENDED = [
    "another visibility",
    "short poll",
    "queue in the clear",
    "longer retention than the dead letters'",
    "no ttl",
    "no recovery",
    "actions off",
    "all forbidden",
    "schedule off",
    "switched off",
    "IMDSv1",
]


def test_its_fixes_are_commands_that_mend(world: World, tmp_path: Path) -> None:
    put_aws_cli(tmp_path)
    for name in MENDED:
        BREAKS[name][0](world)
    world.client("ec2").delete_tags(Resources=[world.instance_id], Tags=[{"Key": "Purpose"}])
    world.client("dynamodb").update_table(TableName=world.table, DeletionProtectionEnabled=False)
    ill = [finding for finding in json.loads(world.run("--json").stdout)["findings"] if finding["mark"] != "ok"]
    assert len(ill) >= len(MENDED) + 2
    for finding in ill:
        assert finding["fix"].startswith("aws "), finding
        done = subprocess.run(
            ["sh", "-ec", finding["fix"]],
            env=surroundings(world.aws.endpoint_url, {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{finding['fix']}\n{done.stderr}"
    done = world.run()
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert done.stdout.splitlines()[-1].endswith(" ok")


def test_an_orchestrator_that_is_not_ready_is_told(world: World, orchestrator: Orchestrator) -> None:
    orchestrator.statuses["/ready"] = 503
    done = world.run()
    assert done.returncode == 1
    assert f"{world.api_url}/ready answers 503" in done.stdout


def test_an_orchestrator_that_cannot_be_reached_is_unseen(world: World, orchestrator: Orchestrator) -> None:
    done = world.run(variables={**world.variables(), "API_URL": "http://127.0.0.1:1"})
    assert done.returncode == 1
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("unseen")]
    assert "could not look: http://127.0.0.1:1: " in line


DENIED = [
    ("dynamodb", "DescribeTable", "AccessDeniedException", ["table"]),
    ("dynamodb", "DescribeTimeToLive", "AccessDeniedException", ["table ttl"]),
    ("sqs", "GetQueueAttributes", "AccessDenied", ["queue", "dead letters"]),
    ("events", "ListRuleNamesByTarget", "AccessDeniedException", ["schedule"]),
    ("ec2", "DescribeInstances", "UnauthorizedOperation", ["instance"]),
    ("dynamodb", "GetItem", "AccessDeniedException", ["hold", "adapter"]),
    ("dynamodb", "Query", "AccessDeniedException", ["tasks"]),
]


@pytest.mark.parametrize("denied", [DENIED[:1], DENIED], ids=["one", "many"])
def test_a_missing_permission_is_a_line_and_the_rest_is_looked_at(
    world: World, denied: list[tuple[str, str, str, list[str]]]
) -> None:
    for service, action, code, _ in denied:
        world.aws.deny(service, action, code)
    done = world.run("--json")
    assert (done.returncode, done.stderr) == (1, "")
    findings = json.loads(done.stdout)["findings"]
    assert {finding["mark"] for finding in findings} == {"ok", "unseen"}
    assert [(f["check"], f["text"], f["fix"]) for f in findings if f["mark"] == "unseen"] == [
        (
            check,
            f"could not look: {service}:{action}: {code}: Ordered by the test.",
            f"allow {service}:{action} to whoever runs the doctor",
        )
        for service, action, code, checks in denied
        for check in checks
    ]
    assert len(findings) > 25


def test_without_credentials_it_cannot_look(world: World) -> None:
    variables = {**world.variables(), "AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}
    done = world.run(variables=variables)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("cannot look: ")
    assert done.stderr.endswith("  fix: set AWS_PROFILE, or sign in: aws sso login\n")


@pytest.mark.parametrize(
    ("behind_s", "complaint", "fix"),
    [
        (0, "sts:GetCallerIdentity: SignatureDoesNotMatch: Signature expired", "set AWS_PROFILE"),
        # Halfway into its minute: a slow machine counts some seconds less.
        (-930, "this machine's clock is 15 min ahead: AWS refuses signatures", "sudo timedatectl set-ntp true"),
    ],
)
def test_a_refused_signature_is_laid_to_the_clock_if_that_is_wrong(
    world: World, behind_s: float, complaint: str, fix: str
) -> None:
    with suspicious_aws(behind_s) as endpoint_url:
        done = world.run(variables={**world.variables(), "AWS_ENDPOINT_URL": endpoint_url})
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"cannot look: {complaint}")
    assert f"  fix: {fix}" in done.stderr


@contextmanager
def suspicious_aws(off_s: float) -> Iterator[str]:
    """An AWS that takes no signature and whose clock is off by `off_s`."""
    body = (
        b"<ErrorResponse><Error><Type>Sender</Type><Code>SignatureDoesNotMatch</Code>"
        b"<Message>Signature expired</Message></Error><RequestId>1</RequestId></ErrorResponse>"
    )

    class Refusal(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.send_response_only(403)
            self.send_header("Date", formatdate(time.time() + off_s, usegmt=True))
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    with ThreadingHTTPServer(("127.0.0.1", 0), Refusal) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def test_not_told_where_to_look_it_says_what_is_missing(world: World, tmp_path: Path) -> None:
    done = world.run(variables={**world.variables(), "IDLE_ALARM_NAME": ""})
    assert (done.returncode, done.stdout, done.stderr) == (78, "", "configuration: IDLE_ALARM_NAME is not set\n")
    done = world.run("--outputs", str(tmp_path / "none"), variables={})
    assert done.returncode == 78
    assert done.stderr.startswith("configuration: [Errno 2]")
    done = world.run("--outputs", "-", variables={}, stdin="{}")
    assert done.returncode == 78
    assert "`terraform apply` first" in done.stderr


def test_terraforms_own_complaint_is_passed_on(world: World, tmp_path: Path) -> None:
    (tmp_path / "terraform").write_text("#!/bin/sh\necho 'Error: Backend initialization\n required' >&2\nexit 1\n")
    (tmp_path / "terraform").chmod(0o755)
    done = world.run("--terraform", "infra", variables={"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"})
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "cannot look: Error: Backend initialization required  fix: terraform -chdir=infra init, then apply\n"
    )


def test_without_terraform_it_says_so(world: World, tmp_path: Path) -> None:
    done = world.run("--terraform", "infra", variables={"PATH": str(tmp_path)})
    assert done.returncode == 2
    assert "there is no terraform on this machine" in done.stderr


def test_make_deploy_check_runs_it(world: World, tmp_path: Path) -> None:
    """With the interpreter of these tests, which a stamp tells make that it has nothing to install."""
    outputs = tmp_path / "outputs.json"
    outputs.write_text(world.outputs())
    binaries, environment = Path(sys.executable).parent, surroundings(world.aws.endpoint_url)
    made = ["make", "--no-print-directory", "--assume-old", f"{binaries}/.installed", "deploy-check"]
    done = subprocess.run(
        [*made, f"BIN={binaries}", f"READY={binaries}/.installed", f"OUTPUTS={outputs}"],
        cwd=ROOT,
        env={name: value for name, value in environment.items() if not name.startswith("MAKE")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1].endswith(" ok")
