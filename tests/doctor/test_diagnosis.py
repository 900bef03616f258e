"""Each finding once right and once wrong: facts in, lines out."""

from __future__ import annotations

import re
from dataclasses import fields, replace
from typing import Any

import pytest

from lib.gputask.gpu import InstanceHold
from lib.gputask.schema import STATUS_INDEX
from services.doctor.deployment import Deployment
from services.doctor.diagnosis import diagnose
from services.doctor.facts import Absent, Facts, Grant, Invocations, Seen, Tasks, Unseen, Worker
from services.doctor.finding import Finding, Mark
from services.doctor.judgement.function import ALARM_PRINCIPAL
from tests.doctor.health import (
    ALARM_ARN,
    DEPLOYMENT,
    FACTS,
    FUNCTION,
    GRANTS,
    HOUR,
    INDEX,
    INSTANCE_ID,
    METRICS,
    MINUTE,
    NOW,
    SCHEDULE,
    STOP_EVENT,
    VARIABLES,
    facts,
)

STOPPED = {"state": "stopped"}
LONG_UP = {"launched_at": NOW - 2 * HOUR}


def variables_of_function(**changes: str) -> dict[str, Any]:
    return {"variables": {**FUNCTION.variables, **changes}}


def measured(index: int, **changes: Any) -> dict[str, Any]:
    """The alarm with one metric changed."""
    metrics = list(METRICS)
    metrics[index] = replace(metrics[index], **changes)
    return {"metrics": tuple(metrics)}


def renamed(**ids: str) -> dict[str, Any]:
    metrics = tuple(replace(metric, id=ids.get(metric.id, metric.id)) for metric in METRICS)
    return {"metrics": metrics}


# what is changed, and then: check, mark, words of the text, words of the fix
ILLS: dict[str, tuple[dict[str, Any], str, str, str, str]] = {
    "another account": (
        {"identity": {"account": "999999999999"}},
        *("identity", "broken", "in account 123456789012, these credentials in 999999999999", "set AWS_PROFILE"),
    ),
    "clock a little off": ({"skew_s": -12}, "clock", "warning", "is 12 s behind", "timedatectl"),
    "clock far off": ({"skew_s": 400}, "clock", "broken", "is 6 min ahead: AWS refuses", "timedatectl"),
    # table
    "no table": ({"table": Absent()}, "table", "broken", "there is no table task_store", "terraform apply"),
    "other key": ({"table": {"key": ("id",)}}, "table", "broken", "has the key id, not task_id", "another name"),
    "no index": ({"table": {"indexes": {}}}, "table index", "broken", f"no index {STATUS_INDEX}", "terraform apply"),
    "other index key": (
        {"table": {"indexes": {STATUS_INDEX: replace(INDEX, key=("status",))}}},
        *("table index", "broken", "has the key status, not status, created_at", "delete the index"),
    ),
    "index lacks an attribute": (
        {"table": {"indexes": {STATUS_INDEX: replace(INDEX, attributes=INDEX.attributes - {"lease_until"})}}},
        *("table index", "broken", "lacks lease_until", "delete the index"),
    ),
    "index of keys only": (
        {"table": {"indexes": {STATUS_INDEX: replace(INDEX, projection="KEYS_ONLY", attributes=frozenset())}}},
        *("table index", "broken", "lacks attempt, claimed_at", "delete the index"),
    ),
    "index with bodies": (
        {"table": {"indexes": {STATUS_INDEX: replace(INDEX, attributes=INDEX.attributes | {"request_body"})}}},
        *("table index", "warning", "each write is paid twice", "delete the index"),
    ),
    "index with everything": (
        {"table": {"indexes": {STATUS_INDEX: replace(INDEX, projection="ALL", attributes=frozenset())}}},
        *("table index", "warning", "each write is paid twice", "delete the index"),
    ),
    "unprotected": (
        {"table": {"is_protected": False}},
        *("table protection", "warning", "off", "update-table --table-name task_store --deletion-protection-enabled"),
    ),
    "no ttl": ({"ttl": Absent()}, "table ttl", "warning", "for ever", "Enabled=true,AttributeName=expires_at"),
    "ttl on another attribute": ({"ttl": "ttl"}, "table ttl", "warning", "on ttl, which", "switch TTL on ttl off"),
    "no recovery": ({"recovery": False}, "table recovery", "warning", "is off", "update-continuous-backups"),
    # queues
    "no queue": ({"queue": Absent()}, "queue", "broken", "there is no queue https://sqs", "terraform apply"),
    "visibility below two heartbeats": (
        {"queue": {"visibility_s": 200}},
        *("queue visibility", "broken", "200 s, not over twice the heartbeat of 100 s", '"VisibilityTimeout": "300"'),
    ),
    "visibility is not the adapter's": (
        {"queue": {"visibility_s": 600}},
        *("queue visibility", "warning", "VISIBILITY_TIMEOUT_S is 300", '"VisibilityTimeout": "300"'),
    ),
    "short poll": (
        {"queue": {"receive_wait_s": 0}},
        *("queue long poll", "warning", "0 s", '"ReceiveMessageWaitTimeSeconds": "20"'),
    ),
    "queue in the clear": (
        {"queue": {"is_encrypted": False}},
        *("queue encryption", "warning", "off", '"SqsManagedSseEnabled": "true"'),
    ),
    "messages forgotten before their tasks": (
        {"queue": {"retention_s": 3600}},
        *("queue retention", "broken", "forgotten after 60 min, tasks live 24 h", '"MessageRetentionPeriod": "345600"'),
    ),
    "no redrive": ({"queue": {"dead_letter_arn": None}}, "queue redrive", "broken", "none", "RedrivePolicy"),
    "redrive elsewhere": (
        {"queue": {"dead_letter_arn": "arn:other"}},
        *("queue redrive", "broken", "to arn:other, but the orchestrator buries", "gpu_tasks_dlq"),
    ),
    "dead too early": (
        {"queue": {"max_receive_count": 3}},
        *("queue redrive", "broken", "after 3 receives, below 5", "maxReceiveCount"),
    ),
    "anybody may bury": (
        {"dead_letters": {"redrive_permission": "allowAll", "redrive_sources": ()}},
        *("redrive permission", "warning", "any queue", "RedriveAllowPolicy"),
    ),
    "nobody may bury": (
        {"dead_letters": {"redrive_permission": "denyAll", "redrive_sources": ()}},
        *("redrive permission", "broken", "gpu_tasks_dlq takes nothing from gpu_tasks_queue", "RedriveAllowPolicy"),
    ),
    "another queue may bury": (
        {"dead_letters": {"redrive_sources": ("arn:other",)}},
        *("redrive permission", "broken", "takes nothing from gpu_tasks_queue", "RedriveAllowPolicy"),
    ),
    "dead letters vanish": (
        {"dead_letters": {"retention_s": 345_600}},
        *("dead letter retention", "broken", "may vanish unseen", '"MessageRetentionPeriod": "1209600"'),
    ),
    "nothing can be kept for longer than the messages": (
        {"queue": {"retention_s": 1_209_600}},
        *("dead letter retention", "broken", "may vanish unseen", '"MessageRetentionPeriod": "345600"'),
    ),
    "no dead-letter queue": ({"dead_letters": Absent()}, "dead letters", "broken", "there is no queue", "apply"),
    "dead letters": ({"dead_letters": {"visible": 2}}, "dead letters", "broken", "2 in gpu_tasks_dlq", "orchestrator"),
    "dead letters in the clear": (
        {"dead_letters": {"is_encrypted": False}},
        *("dead letter encryption", "warning", "off", DEPLOYMENT.dead_letters.url),
    ),
    # alarm
    "no alarm": ({"alarm": Absent()}, "alarm", "broken", "there is no alarm QueueEmptyFor30Min", "terraform apply"),
    "visible alone": (
        {"alarm": {"expression": None, "metrics": METRICS[:1]}},
        *("alarm expression", "broken", "looks idle, and is stopped in mid-work", "terraform apply"),
    ),
    "visible alone, as an expression": (
        {"alarm": {"expression": "visible"}},
        *("alarm expression", "broken", "visible messages alone", "terraform apply"),
    ),
    "without the cpu": (
        {"alarm": {"expression": "sent + visible"}},
        *("alarm expression", "warning", "does not re-arm", "terraform apply"),
    ),
    "filled": (
        {"alarm": {"expression": "FILL(visible, 0) + sent"}},
        *("alarm expression", "broken", "FILL(visible, 0) + sent, not IF", "terraform apply"),
    ),
    "in flight counts as work": (
        {"alarm": measured(0, name="ApproximateNumberOfMessagesNotVisible")},
        *("alarm expression", "broken", "not IF", "terraform apply"),
    ),
    "average of sent": (
        {"alarm": measured(1, statistic="Average")},
        *("alarm expression", "broken", "not IF", "terraform apply"),
    ),
    "another queue": (
        {"alarm": measured(1, dimensions={"QueueName": "other"})},
        *("alarm metrics", "broken", "NumberOfMessagesSent is measured of QueueName other", "terraform apply"),
    ),
    "another instance": (
        {"alarm": measured(2, dimensions={})},
        *("alarm metrics", "broken", "CPUUtilization is measured of nothing", "terraform apply"),
    ),
    "shorter": (
        {"alarm": {"evaluation_periods": 3, "datapoints_to_alarm": 3}},
        *("alarm window", "broken", "3 of 3 periods of 300 s, but the Lambda's IDLE_S is 1800", "terraform apply"),
    ),
    "another idle time": (
        {"function": variables_of_function(IDLE_S="900")},
        *("alarm window", "broken", "but the Lambda's IDLE_S is 900", "terraform apply"),
    ),
    "most of the time": (
        {"alarm": {"datapoints_to_alarm": 4}},
        *("alarm window", "broken", "4 of 6 periods", "terraform apply"),
    ),
    "other threshold": (
        {"alarm": {"threshold": 1}},
        *("alarm threshold", "broken", "LessThanOrEqualToThreshold 1", "terraform apply"),
    ),
    "other comparison": (
        {"alarm": {"comparison": "LessThanThreshold"}},
        *("alarm threshold", "broken", "LessThanThreshold 0", "terraform apply"),
    ),
    "missing is breaching": (
        {"alarm": {"missing_data": "missing"}},
        *("alarm missing data", "broken", "gets stuck", "terraform apply"),
    ),
    "actions off": (
        {"alarm": {"has_actions_enabled": False}},
        *("alarm action", "broken", "switched off", "enable-alarm-actions --alarm-names QueueEmptyFor30Min"),
    ),
    "no action": ({"alarm": {"actions": ()}}, "alarm action", "broken", "calls nobody, not", "terraform apply"),
    "calls a topic": (
        {"alarm": {"actions": ("arn:topic",)}},
        *("alarm action", "broken", "calls arn:topic, not", "terraform apply"),
    ),
    "alarm not permitted": (
        {"grants": GRANTS[1:]},
        *("alarm permission", "broken", "fires and nothing happens", f"--source-arn {ALARM_ARN}"),
    ),
    "another alarm permitted": (
        {"grants": (Grant(ALARM_PRINCIPAL, ALARM_ARN + "2", None), *GRANTS[1:])},
        *("alarm permission", "broken", "may not call", f"--principal {ALARM_PRINCIPAL}"),
    ),
    "another account's alarm permitted": (
        {"grants": (Grant(ALARM_PRINCIPAL, None, "999999999999"), *GRANTS[1:])},
        *("alarm permission", "broken", "may not call", "add-permission"),
    ),
    # function
    "no function": ({"function": Absent()}, "function", "broken", "nobody stops the GPU", "terraform apply"),
    "failed update": ({"function": {"update": "Failed"}}, "function", "broken", "update Failed", "terraform apply"),
    "failed": ({"function": {"state": "Failed"}}, "function", "broken", "Failed", "terraform apply"),
    "other handler": ({"function": {"handler": "a.b"}}, "function", "broken", "its handler is a.b", "terraform apply"),
    "another instance is watched": (
        {"function": variables_of_function(GPU_INSTANCE_ID="i-1")},
        *("function environment", "broken", f"GPU_INSTANCE_ID is i-1, not {INSTANCE_ID}", "terraform apply"),
    ),
    "no table told": (
        {"function": variables_of_function(DYNAMODB_TABLE="")},
        *("function environment", "broken", "DYNAMODB_TABLE is not set, not task_store", "terraform apply"),
    ),
    "switched off": (
        {"concurrency": 0},
        *("function concurrency", "broken", "every call is refused", "delete-function-concurrency"),
    ),
    "never called": (
        {"invocations": Invocations(0, 0, 900)},
        *("function calls", "broken", "none within 15 min", "schedule"),
    ),
    "always raises": (
        {"invocations": Invocations(15, 15, 900)},
        *("function calls", "broken", "all 15 within 15 min failed", "logs tail /aws/lambda/shutdown-gpu-lambda"),
    ),
    "sometimes raises": (
        {"invocations": Invocations(15, 2, 900)},
        *("function calls", "warning", "2 of 15 within 15 min failed", "logs tail"),
    ),
    # rules
    "no schedule": (
        {"rules": (STOP_EVENT,)},
        *("schedule", "broken", "no scheduled rule calls shutdown-gpu-lambda", "terraform apply"),
    ),
    "schedule off": (
        {"rules": (replace(SCHEDULE, is_enabled=False), STOP_EVENT)},
        *("schedule", "broken", "is disabled", f"enable-rule --name {SCHEDULE.name}"),
    ),
    "seldom": (
        {"rules": (replace(SCHEDULE, schedule="rate(15 minutes)"), STOP_EVENT)},
        *("schedule", "warning", "rate(15 minutes)", "--schedule-expression 'rate(1 minute)'"),
    ),
    "schedule not permitted": (
        {"grants": (GRANTS[0], GRANTS[2])},
        *("schedule permission", "broken", "may not call", f"--source-arn {SCHEDULE.arn}"),
    ),
    "no stop event": (
        {"rules": (SCHEDULE,)},
        *("stop event", "warning", f"that {INSTANCE_ID} is stopped", "terraform apply"),
    ),
    "stop event of another instance": (
        {"rules": (SCHEDULE, replace(STOP_EVENT, pattern=str(STOP_EVENT.pattern).replace(INSTANCE_ID, "i-1")))},
        *("stop event", "warning", f"that {INSTANCE_ID} is stopped", "terraform apply"),
    ),
    "stop event off": (
        {"rules": (SCHEDULE, replace(STOP_EVENT, is_enabled=False))},
        *("stop event", "warning", "is disabled", f"enable-rule --name {STOP_EVENT.name}"),
    ),
    "stop event not permitted": (
        {"grants": GRANTS[:2]},
        *("stop event permission", "warning", "may not call", f"--source-arn {STOP_EVENT.arn}"),
    ),
    # instance
    "no instance": ({"instance": Absent()}, "instance", "broken", f"no instance {INSTANCE_ID}", "region"),
    "terminated": ({"instance": {"state": "terminated"}}, "instance", "broken", "is terminated", "gpu_instance_id"),
    "no tag": (
        {"instance": {"tags": {}}},
        *("instance tag", "broken", "Purpose is not set", f"create-tags --resources {INSTANCE_ID}"),
    ),
    "other tag": (
        {"instance": {"tags": {"Purpose": "gpu"}}},
        *("instance tag", "broken", "neither started nor stopped", "Key=Purpose,Value=GPU-ComfyUI"),
    ),
    "no profile": (
        {"instance": {"profile_arn": None}},
        *("instance profile", "broken", "may do nothing", "gpu_profile_command"),
    ),
    "IMDSv1": (
        {"instance": {"needs_token": False}},
        *("instance metadata", "warning", "without a token", "--http-tokens required"),
    ),
    "two hops": (
        {"instance": {"hop_limit": 2}},
        *("instance metadata", "warning", "over 2 hops", "--http-put-response-hop-limit 1"),
    ),
    "runs for nothing": (
        {
            "instance": LONG_UP,
            "worker": {"last_claim_at": NOW - 36 * MINUTE},
            "tasks": Tasks(None, NOW - 50 * MINUTE),
        },
        *("instance cost", "broken", "for 36 min", f"stop-instances --instance-ids {INSTANCE_ID}"),
    ),
    "runs for nothing, and nobody ever worked": (
        {"instance": LONG_UP, "worker": Absent(), "tasks": Tasks(None, None)},
        *("instance cost", "broken", "for 2 h", "stop-instances"),
    ),
    "held": (
        {"hold": InstanceHold(NOW + HOUR, "no worker"), "instance": STOPPED, "tasks": Tasks(None, None)},
        *("hold", "warning", "another 60 min: no worker", f"start-instances --instance-ids {INSTANCE_ID}"),
    ),
    "held while tasks wait": (
        {"hold": InstanceHold(NOW + HOUR, "no worker"), "instance": STOPPED},
        *("hold", "broken", "while tasks wait", "repair the adapter"),
    ),
    # adapter and upstream
    "no adapter yet": (
        {"instance": STOPPED, "worker": Absent()},
        *("adapter", "warning", "has never reported", "install it"),
    ),
    "no adapter": (
        {"worker": Absent()},
        *("adapter", "broken", "no beat since the launch 20 min ago", "journalctl -u sqs-adapter"),
    ),
    "no adapter in this run": (
        {"worker": {"beat_at": NOW - HOUR}},
        *("adapter", "broken", "no beat since the launch", f"start-session --target {INSTANCE_ID}"),
    ),
    "silent adapter": (
        {"worker": {"beat_at": NOW - 6 * MINUTE}},
        *("adapter", "broken", "last beat 6 min ago, although the instance runs", "journalctl -u sqs-adapter"),
    ),
    "adapter ahead": (
        {"worker": {"beat_at": NOW + 10 * MINUTE}},
        *("adapter", "broken", "its clock is 10 min ahead", "timedatectl"),
    ),
    "unhealthy upstream": (
        {"worker": {"upstream": "unhealthy", "upstream_ok_at": NOW - 9 * MINUTE, "upstream_remark": "restarting"}},
        *("upstream", "broken", "for 9 min (restarting)", "journalctl -u comfyui-unified-api"),
    ),
    "upstream that never was healthy": (
        {"worker": {"upstream": "unhealthy", "upstream_ok_at": 0}},
        *("upstream", "broken", "for 20 min", "comfyui-unified-api"),
    ),
    # tasks and orchestrator
    "a task too old": (
        {"tasks": {"oldest_unfinished_at": NOW - 25 * HOUR}},
        *("tasks", "broken", "25 h old, and 24 h is the limit", "janitor"),
    ),
    "a task nobody wakes for": (
        {"tasks": {"oldest_unfinished_at": NOW - 11 * MINUTE}, "instance": STOPPED},
        *("tasks", "broken", "nobody starts it", "waker"),
    ),
    "a task that takes long": (
        {"tasks": {"oldest_unfinished_at": NOW - 3 * HOUR}},
        *("tasks", "warning", "3 h old", "adapter and upstream"),
    ),
    "dead orchestrator": (
        {"service": {"health": 503}},
        *("orchestrator", "broken", "/health answers 503", "see its log"),
    ),
    "cut off orchestrator": (
        {"service": {"ready": 503}},
        *("orchestrator", "broken", "/ready answers 503", "cannot wake the GPU"),
    ),
}

ALL_RIGHT: dict[str, dict[str, Any]] = {
    "as it should be": {},
    "the clock is not known": {"skew_s": None},
    "the other order of a sum": {"alarm": {"expression": "IF(cpu>=0, sent+visible, 1)"}},
    "other names in the expression": {
        "alarm": {"expression": "IF(m3 >= 0, m1 + m2, 1)", **renamed(visible="m1", sent="m2", cpu="m3")}
    },
    "the Lambda's own idle time": {"function": {"variables": {**FUNCTION.variables, "IDLE_S": ""}}},
    "any alarm of the account is permitted": {
        "grants": (Grant(ALARM_PRINCIPAL, ALARM_ARN.rpartition(":")[0] + ":*", None), *GRANTS[1:])
    },
    "any source is permitted": {"grants": (Grant(ALARM_PRINCIPAL, None, None), *GRANTS[1:])},
    "some concurrency is reserved": {"concurrency": 1},
    "just deployed": {"invocations": Invocations(0, 0, 900), "function": {"modified_at": NOW - 60}},
    "a cron each minute": {"rules": (replace(SCHEDULE, schedule="cron(* * * * ? *)"), STOP_EVENT)},
    "a stop event of all instances": {
        "rules": (SCHEDULE, replace(STOP_EVENT, pattern='{"source": ["aws.ec2"], "detail": {"state": ["stopped"]}}'))
    },
    "a hold that is over": {"hold": InstanceHold(NOW - 1, "no worker")},
    "asleep": {
        "instance": {"state": "stopped", "launched_at": NOW - 9 * HOUR},
        "worker": {"beat_at": NOW - 8 * HOUR, "last_claim_at": NOW - 8 * HOUR},
        "tasks": Tasks(None, NOW - 8 * HOUR),
    },
    "booting": {"instance": {"launched_at": NOW - 2 * MINUTE}, "worker": {"beat_at": NOW - HOUR}},
    "the Unified API is starting": {
        "instance": {"launched_at": NOW - 4 * MINUTE},
        "worker": {"upstream": "unhealthy", "upstream_ok_at": 0},
    },
    "idle, and not for long": {
        "instance": {"launched_at": NOW - 2 * HOUR},
        "worker": {"last_claim_at": NOW - 34 * MINUTE},
        "tasks": Tasks(None, NOW - 50 * MINUTE),
    },
    "no task ever": {"tasks": Tasks(None, None)},
    "a task waits while it is started": {
        "tasks": Tasks(NOW - 9 * MINUTE, NOW - 9 * MINUTE),
        "instance": {"state": "stopped"},
    },
    "no orchestrator to ask": {"service": None},
}


def findings(seen: Facts, deployment: Deployment = DEPLOYMENT) -> dict[str, Finding]:
    """By check; two findings of one check would hide one another."""
    found = diagnose(seen, deployment)
    by_check = {finding.check: finding for finding in found}
    assert len(by_check) == len(found)
    return by_check


@pytest.mark.parametrize("name", ALL_RIGHT)
def test_nothing_is_said_against_what_is_right(name: str) -> None:
    ill = [finding for finding in findings(facts(**ALL_RIGHT[name])).values() if finding.mark is not Mark.OK]
    assert ill == []


@pytest.mark.parametrize("name", ILLS)
def test_what_is_wrong_is_named_with_its_fix(name: str) -> None:
    changes, check, mark, text, fix = ILLS[name]
    finding = findings(facts(**changes))[check]
    assert finding.mark == mark
    assert text in finding.text
    assert fix in finding.fix


@pytest.mark.parametrize("name", ILLS)
def test_a_finding_is_one_line(name: str) -> None:
    for finding in diagnose(facts(**ILLS[name][0]), DEPLOYMENT):
        assert "\n" not in finding.text + finding.fix
        assert bool(finding.fix) == (finding.mark is not Mark.OK)


def test_each_check_is_shown_wrong_as_well() -> None:
    wrong = {check for _, check, *_ in ILLS.values()} | {"region"}
    assert set(findings(FACTS)) <= wrong


def test_a_table_in_another_region_is_looked_for_in_vain() -> None:
    elsewhere = Deployment.from_variables({**VARIABLES, "AWS_REGION": "eu-west-1"})
    finding = findings(FACTS, elsewhere)["region"]
    assert (finding.mark, finding.text) == (Mark.BROKEN, "the queues are in us-east-1, not in eu-west-1")
    assert finding.fix == "set AWS_REGION=us-east-1"


@pytest.mark.parametrize(("variable", "check"), [("SQS_QUEUE_URL", "queue"), ("SQS_DLQ_URL", "dead letters")])
def test_a_fifo_queue_is_broken(variable: str, check: str) -> None:
    fifo = Deployment.from_variables({**VARIABLES, variable: f"{VARIABLES[variable]}.fifo"})
    finding = findings(FACTS, fifo)[check]
    assert finding.mark is Mark.BROKEN
    assert "is a FIFO queue" in finding.text
    assert "a standard queue" in finding.fix


def test_an_address_without_a_region_is_no_other_region() -> None:
    emulated = {**VARIABLES, "SQS_QUEUE_URL": "http://127.0.0.1:5000/123456789012/gpu_tasks_queue"}
    assert findings(FACTS, Deployment.from_variables(emulated))["region"].mark is Mark.OK


def test_a_heartbeat_that_may_not_be_missed_once_is_the_adapters_fault() -> None:
    slow = Deployment.from_variables({**VARIABLES, "HEARTBEAT_S": "150"})
    finding = findings(FACTS, slow)["queue visibility"]
    assert (finding.mark, finding.fix) == (
        Mark.BROKEN,
        "make HEARTBEAT_S less than half of VISIBILITY_TIMEOUT_S",
    )


LOOKS = [field.name for field in fields(Facts) if field.name not in ("now", "skew_s", "identity")]


@pytest.mark.parametrize("name", LOOKS)
def test_a_look_that_failed_is_a_line_and_hides_nothing_else_that_was_seen(name: str) -> None:
    blind = findings(facts(**{name: Unseen("some:Action: AccessDenied", "allow some:Action")}))
    unseen = [finding for finding in blind.values() if finding.mark is Mark.UNSEEN]
    assert [(finding.text, finding.fix) for finding in unseen] == [
        ("could not look: some:Action: AccessDenied", "allow some:Action")
    ]
    assert all(finding.mark in (Mark.OK, Mark.UNSEEN) for finding in blind.values())


@pytest.mark.parametrize("nothing", [Absent(), Unseen("denied", "allow it")])
def test_nothing_at_all_is_reported_without_an_error(nothing: Seen[Any]) -> None:
    seen = facts(**dict.fromkeys(LOOKS, nothing))
    for finding in diagnose(seen, DEPLOYMENT):
        assert finding.text
    assert {f.mark for f in diagnose(seen, DEPLOYMENT)} > {Mark.OK}


def test_only_a_running_instance_costs_and_ages() -> None:
    asleep = findings(facts(**ALL_RIGHT["asleep"]))
    assert "instance cost" not in asleep
    assert asleep["instance"].text == f"{INSTANCE_ID} is stopped"
    assert findings(FACTS)["instance"].text == f"{INSTANCE_ID} is running for 20 min"


def test_whether_it_runs_for_nothing_is_not_guessed() -> None:
    """Its worker may have claimed an old task a minute ago."""
    unknown = facts(instance=LONG_UP, worker=Unseen("denied", "allow it"), tasks=Tasks(None, NOW - HOUR))
    assert "instance cost" not in findings(unknown)


@pytest.mark.parametrize(("until", "mark"), [(NOW + HOUR, Mark.OK), (NOW - 1, Mark.BROKEN)])
def test_the_orchestrator_is_not_blamed_for_a_hold(until: float, mark: Mark) -> None:
    waiting = {"oldest_unfinished_at": NOW - 11 * MINUTE}
    held = facts(hold=InstanceHold(until, "no worker"), instance=STOPPED, tasks=waiting)
    assert findings(held)["tasks"].mark is mark


def test_a_worker_that_wrote_nothing_useful_has_not_reported() -> None:
    assert re.match("no beat since the launch", findings(facts(worker=Worker()))["adapter"].text)
