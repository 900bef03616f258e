"""The Lambda as AWS calls it, against emulated AWS over HTTP."""

import json
import re
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest
from botocore.exceptions import ClientError

from services.shutdown.errors import (
    HoldNotWrittenError,
    InstanceNotFoundError,
    QueueUnseenError,
    SettingError,
    TableUnreadableError,
)
from services.shutdown.handler import compose, handler
from tests.shutdown import events
from tests.shutdown.world import World

Lines = Callable[[], list[dict[str, Any]]]
CONTEXT = SimpleNamespace(aws_request_id="6f2a")


def invoke(event: object = events.SCHEDULE) -> dict[str, Any]:
    """An invocation; what it returns has to be JSON, or the runtime fails it after the fact."""
    answer: dict[str, Any] = json.loads(json.dumps(handler(event, CONTEXT), allow_nan=False))
    return answer


class TestTriggers:
    @pytest.mark.parametrize("event", events.ALL.values(), ids=events.ALL.keys())
    def test_whatever_invokes_it_an_idle_instance_is_stopped(self, world: World, event: object) -> None:
        assert invoke(event)["outcome"] == "stopped"
        assert world.state() == "stopped"

    @pytest.mark.parametrize("event", [*events.ALL.values(), None, "nonsense", [1], {"alarmData": None}])
    def test_whatever_invokes_it_a_busy_instance_is_left_alone(self, world: World, event: object) -> None:
        world.processing(created=10, claimed=10)
        assert invoke(event)["decision"] == "leave"
        assert world.state() == "running"


class TestForce:
    def test_a_stop_that_hangs_is_forced_once(self, world: World) -> None:
        world.stopping(11)
        answer = invoke()
        assert (answer["decision"], answer["rule"], answer["outcome"]) == ("force_stop", None, "forced")
        assert world.forces() == 1
        world.stopping(12)
        assert invoke()["decision"] == "leave"
        assert world.forces() == 1

    def test_one_that_takes_its_time_is_not(self, world: World) -> None:
        world.stopping(9)
        answer = invoke()
        assert (answer["decision"], answer["reason"]) == ("leave", "the instance is stopping")
        assert world.forces() == 0

    def test_one_that_has_just_ended_is_left_alone(self, world: World) -> None:
        world.stopping(11)
        world.gateway.refusals["StopInstances"] = "IncorrectInstanceState"
        assert invoke()["outcome"] == "already_stopping"

    def test_an_operator_hears_of_it(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        topic_arn, inbox = world.subscribe()
        monkeypatch.setenv("ALERT_TOPIC_ARN", topic_arn)
        world.stopping(11)
        invoke()
        (alert,) = world.messages(inbox)
        assert alert["Subject"] == f"GPU instance {world.instance_id} is stopped by force"
        assert alert["Message"] == "the instance has been stopping for 11 min."


class TestRuleA:
    def test_a_silent_half_hour_stops_it(self, world: World) -> None:
        world.finished(created=31, claimed=31)
        answer = invoke()
        assert (answer["decision"], answer["rule"], answer["outcome"]) == ("stop", "A", "stopped")
        assert world.state() == "stopped"
        assert world.hold() is None

    @pytest.mark.parametrize("status", ["completed", "failed"])
    def test_a_task_that_came_and_went_within_it_does_not(self, world: World, status: str) -> None:
        world.finished(created=29, claimed=28, status=status)
        world.finished(created=58, claimed=50, status=status)
        answer = invoke()
        assert answer["decision"] == "leave"
        assert answer["stops_at"] == pytest.approx(world.ago(28) + 1800, abs=0.01)

    def test_the_latest_submission_and_the_latest_claim_may_be_of_different_tasks(self, world: World) -> None:
        world.finished(created=55, claimed=20)
        assert invoke()["stops_at"] == pytest.approx(world.ago(20) + 1800, abs=0.01)
        world.put("never-claimed", status="failed", created_at=world.ago(10))
        assert invoke()["stops_at"] == pytest.approx(world.ago(10) + 1800, abs=0.01)

    def test_a_claim_that_only_the_worker_knows_of_does_not(self, world: World) -> None:
        world.worker(last_claim_at=world.ago(20))
        assert invoke()["decision"] == "leave"

    def test_a_launch_within_it_does_not(self, world: World) -> None:
        world.launched(29)
        answer = invoke()
        assert answer["stops_at"] == pytest.approx(world.ago(29) + 1800, abs=1.0)

    def test_a_message_in_the_queue_postpones_it(self, world: World) -> None:
        world.launched(31)
        world.sqs.send_message(QueueUrl=world.queue_url, MessageBody="{}")
        assert invoke()["decision"] == "leave"
        world.launched(46)
        assert invoke()["rule"] == "A"

    def test_the_window_is_a_setting(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("IDLE_S", "60")
        world.finished(created=1.5, claimed=1.5)
        assert invoke()["rule"] == "A"


class TestRuleB:
    def test_a_stuck_task_is_failed_by_name_and_the_instance_stopped(self, world: World) -> None:
        stuck = world.processing(created=40, claimed=31, attempt=2)
        answer = invoke()
        record = world.record(stuck)
        assert (answer["rule"], answer["outcome"], world.state()) == ("B", "stopped", "stopped")
        assert record is not None
        assert (record["status"], record["error_code"]) == ("failed", "rule_b")
        assert record["error_message"] == (
            "Rule B stopped the GPU while this task was processing:"
            " no task was created or claimed for 30 min, with 1 task still processing."
        )
        assert record["finished_at"] == record["updated_at"] == pytest.approx(world.born_at, abs=60)
        assert record["attempt"] == 2

    def test_it_is_failed_before_the_stop_so_that_nobody_starts_the_instance_for_it(self, world: World) -> None:
        stuck = world.processing(created=40, claimed=31)
        seen: list[str] = []
        world.gateway.before["StopInstances"] = lambda: seen.append((world.record(stuck) or {})["status"])
        invoke()
        assert seen == ["failed"]

    def test_a_task_within_its_time_keeps_the_instance_on(self, world: World) -> None:
        task = world.processing(created=40, claimed=29)
        assert invoke()["decision"] == "leave"
        assert (world.record(task) or {})["status"] == "processing"

    def test_a_task_that_ended_between_look_and_write_is_left_as_it_ended_and_the_stop_goes_on(
        self, world: World
    ) -> None:
        stuck = world.processing(created=40, claimed=31)
        times = {"created_at": world.ago(40), "claimed_at": world.ago(31)}
        world.gateway.before["UpdateItem"] = lambda: world.put(stuck, status="completed", attempt=1, **times)
        assert invoke()["outcome"] == "stopped"
        assert (world.record(stuck) or {})["status"] == "completed"

    def test_a_record_that_is_gone_between_look_and_write_is_not_brought_back(self, world: World) -> None:
        stuck = world.processing(created=40, claimed=31)
        key: Any = {"task_id": {"S": stuck}}
        world.gateway.before["UpdateItem"] = lambda: world.dynamodb.delete_item(TableName=world.table, Key=key)
        assert invoke()["outcome"] == "stopped"
        assert world.record(stuck) is None

    @pytest.mark.parametrize(("status", "attempt"), [("processing", 2), ("pending", 1)], ids=["claimed", "released"])
    def test_a_task_that_became_new_work_between_look_and_write_keeps_the_instance_on(
        self, world: World, status: str, attempt: int
    ) -> None:
        others = world.processing(created=50, claimed=50)
        stuck = world.processing(created=40, claimed=31)
        times = {"created_at": world.ago(40), "claimed_at": world.ago(0), "lease_until": world.ago(-5)}
        for task in (others, stuck):
            world.put(task, status="processing", attempt=1, **(times | {"claimed_at": world.ago(31)}))

        def renew() -> None:
            for task in (others, stuck):
                world.put(task, status=status, attempt=attempt, **times)

        world.gateway.before["UpdateItem"] = renew
        assert invoke()["outcome"] == "overtaken"
        assert world.state() == "running"
        assert [(world.record(task) or {})["status"] for task in (others, stuck)] == [status, status]
        assert "StopInstances" not in world.gateway.calls


class TestRuleC:
    def test_work_without_a_worker_stops_it_and_holds_its_next_start(self, world: World) -> None:
        task = world.pending(created=40)
        answer = invoke()
        hold = world.hold()
        assert (answer["rule"], answer["outcome"], world.state()) == ("C", "stopped", "stopped")
        assert hold is not None
        assert hold["hold_until"] - hold["updated_at"] == pytest.approx(900, abs=0.01)
        assert hold["updated_at"] == pytest.approx(world.born_at, abs=60)
        assert hold["hold_count"] == 1
        assert hold["hold_reason"] == "1 task waiting, but no worker has reported since the launch"
        assert (world.record(task) or {})["status"] == "pending"

    def test_a_worker_that_deletes_what_a_flood_has_left_is_not_broken(self, world: World) -> None:
        world.pending(created=40)
        world.launched(50)
        world.worker(last_service_at=world.ago(1))
        assert invoke()["decision"] == "leave"
        world.worker(last_service_at=world.ago(31))
        assert invoke()["rule"] == "C"

    def test_the_hold_is_there_before_the_instance_is_stopped(self, world: World) -> None:
        world.pending(created=40)
        seen: list[object] = []
        world.gateway.before["StopInstances"] = lambda: seen.append(world.hold())
        invoke()
        assert seen[0] is not None

    def test_an_expired_lease_is_work_too(self, world: World) -> None:
        world.processing(created=40, claimed=20, lease=1)
        assert invoke()["rule"] == "C"

    def test_a_worker_that_only_looks_healthy_is_stopped(self, world: World) -> None:
        world.pending(created=40)
        world.worker(last_claim_at=world.ago(31))
        answer = invoke()
        assert answer["rule"] == "C"
        assert answer["reason"] == "1 task waiting, but the worker claimed nothing for 30 min"

    def test_holds_double_from_launch_to_launch(self, world: World) -> None:
        world.put_hold(count=2, put=150)
        world.pending(created=40)
        invoke()
        hold = world.hold()
        assert hold is not None
        assert hold["hold_count"] == 3
        assert hold["hold_until"] - hold["updated_at"] == pytest.approx(3600, abs=0.01)

    def test_a_stop_that_ec2_refuses_does_not_double_the_hold_each_minute(self, world: World) -> None:
        world.pending(created=40)
        world.gateway.refusals["StopInstances"] = "UnauthorizedOperation"
        for _ in range(2):
            with pytest.raises(ClientError):
                invoke()
        assert (world.hold() or {})["hold_count"] == 1
        world.gateway.refusals.clear()
        assert invoke()["outcome"] == "stopped"
        assert (world.hold() or {})["hold_count"] == 1

    def test_two_lambdas_at_once_put_one_hold(self, world: World) -> None:
        world.pending(created=40)
        world.gateway.before["PutItem"] = invoke
        assert invoke()["outcome"] == "already_stopping"
        assert (world.hold() or {})["hold_count"] == 1

    def test_a_longer_hold_of_another_lambda_is_not_shortened(self, world: World) -> None:
        world.pending(created=40)
        world.gateway.before["PutItem"] = lambda: world.put_hold(count=4, put=0)
        assert invoke()["outcome"] == "stopped"
        assert (world.hold() or {})["hold_count"] == 4

    def test_a_healthy_worker_that_claims_clears_the_hold(self, world: World) -> None:
        world.put_hold(count=3, put=150)
        world.launched(5)
        world.pending(created=40)
        world.worker()
        invoke()
        assert world.hold() is not None
        world.worker(last_claim_at=world.ago(1))
        invoke()
        assert world.hold() is None

    def test_a_hold_put_between_look_and_removal_stays(self, world: World) -> None:
        world.put_hold(count=3, put=150)
        world.launched(5)
        world.worker()
        world.gateway.before["DeleteItem"] = lambda: world.put_hold(count=4, put=0)
        assert invoke()["outcome"] == "left"
        assert (world.hold() or {})["hold_count"] == 4


class TestAlert:
    @pytest.fixture
    def inbox(self, world: World, monkeypatch: pytest.MonkeyPatch) -> str:
        topic_arn, inbox = world.subscribe()
        monkeypatch.setenv("ALERT_TOPIC_ARN", topic_arn)
        return inbox

    def test_rule_c_tells_an_operator_once(self, world: World, inbox: str) -> None:
        world.pending(created=40)
        world.gateway.before["StopInstances"] = invoke
        invoke()
        (alert,) = world.messages(inbox)
        assert alert["Subject"] == f"GPU instance {world.instance_id} stopped by rule C"
        # A whole second may pass between the decision and the message.
        assert re.fullmatch(
            r"1 task waiting, but no worker has reported since the launch\.\n"
            r"It will not be started again for (900|89\d) s\.",
            alert["Message"],
        )

    def test_rule_b_names_what_it_gave_up(self, world: World, inbox: str) -> None:
        stuck = world.processing(created=40, claimed=31)
        invoke()
        (alert,) = world.messages(inbox)
        assert f"Task {stuck} was failed as rule_b." in alert["Message"]

    def test_rule_a_is_no_news(self, world: World, inbox: str) -> None:
        assert invoke()["outcome"] == "stopped"
        assert world.messages(inbox) == []

    def test_an_alert_that_fails_comes_after_the_stop_and_is_raised(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("ALERT_TOPIC_ARN", "arn:aws:sns:us-east-1:123456789012:nobody-made-it")
        world.pending(created=40)
        with pytest.raises(ClientError, match="Publish"):
            invoke()
        assert world.state() == "stopped"


class TestInstance:
    def test_the_second_call_finds_nothing_to_do(self, world: World) -> None:
        assert invoke()["outcome"] == "stopped"
        again = invoke()
        assert (again["decision"], again["reason"], again["outcome"]) == ("leave", "the instance is stopped", "left")

    def test_while_it_does_not_run_nothing_else_is_looked_up(self, world: World) -> None:
        world.ec2.stop_instances(InstanceIds=[world.instance_id])
        invoke()
        assert world.gateway.calls == ["DescribeInstances"]

    def test_a_stop_ordered_by_someone_else_meanwhile_is_fine(self, world: World) -> None:
        stopped = [world.instance_id]
        world.gateway.before["StopInstances"] = lambda: world.ec2.stop_instances(InstanceIds=stopped)
        assert invoke()["outcome"] == "already_stopping"

    def test_a_stop_refused_because_it_is_stopping_is_fine(self, world: World) -> None:
        world.gateway.refusals["StopInstances"] = "IncorrectInstanceState"
        assert invoke()["outcome"] == "already_stopping"

    def test_a_terminated_one_is_left(self, world: World) -> None:
        world.ec2.terminate_instances(InstanceIds=[world.instance_id])
        assert invoke()["reason"] == "the instance is terminated"


class TestFailure:
    """Only what raises is retried and counted."""

    @pytest.mark.parametrize(
        ("action", "code"),
        [
            ("DescribeInstances", "UnauthorizedOperation"),
            ("StopInstances", "UnauthorizedOperation"),
            ("StopInstances", "RequestLimitExceeded"),
        ],
    )
    def test_ec2_refusing_raises(self, world: World, action: str, code: str) -> None:
        world.gateway.refusals[action] = code
        with pytest.raises(ClientError, match=code):
            invoke()
        assert world.state() == "running"

    def test_an_instance_that_is_not_there_is_named(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("GPU_INSTANCE_ID", "i-0fedcba9876543210")
        with pytest.raises(
            InstanceNotFoundError, match=r"^GPU_INSTANCE_ID: EC2 knows no instance 'i-0fedcba9876543210'"
        ):
            invoke()

    def test_a_table_that_is_not_there_raises(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("DYNAMODB_TABLE", "nobody-made-it")
        with pytest.raises(TableUnreadableError):
            invoke()
        assert world.state() == "running"

    def test_a_queue_that_does_not_answer_postpones_and_is_counted_but_does_not_keep_the_instance_on(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("SQS_QUEUE_URL", "http://127.0.0.1/1/none")
        world.launched(44)
        with pytest.raises(QueueUnseenError, match="left"):
            invoke()
        assert world.state() == "running"
        world.launched(46)
        with pytest.raises(QueueUnseenError, match="stopped"):
            invoke()
        assert world.state() == "stopped"

    def test_a_give_up_that_fails_stops_nothing_yet(self, world: World) -> None:
        stuck = world.processing(created=40, claimed=31)
        world.gateway.refusals["UpdateItem"] = "AccessDenied"
        with pytest.raises(ClientError):
            invoke()
        assert (world.record(stuck) or {})["status"] == "processing"
        assert world.state() == "running"

    def test_a_give_up_that_fails_for_long_does_not_keep_it_on(self, world: World) -> None:
        world.processing(created=60, claimed=46)
        world.gateway.refusals["UpdateItem"] = "AccessDenied"
        assert invoke()["outcome"] == "stopped"
        assert world.state() == "stopped"

    def test_a_hold_that_cannot_be_written_does_not_prevent_the_stop(self, world: World) -> None:
        world.pending(created=40)
        world.gateway.refusals["PutItem"] = "AccessDenied"
        with pytest.raises(HoldNotWrittenError, match="stopped"):
            invoke()
        assert world.state() == "stopped"

    @pytest.mark.parametrize(
        "odd",
        [
            {"hold_count": {"N": "1" + "0" * 50}},
            {"hold_count": {"N": "-3"}},
            {"hold_count": {"S": "many"}},
            {"hold_count": {"N": "1"}, "updated_at": {"N": "1800000000000"}},
        ],
        ids=["51 digits", "negative", "text", "in milliseconds"],
    )
    def test_a_hold_that_makes_no_sense_prevents_neither_the_stop_nor_the_next_hold(
        self, world: World, odd: dict[str, Any]
    ) -> None:
        world.pending(created=40)
        key: Any = {"task_id": {"S": f"instance#{world.instance_id}"}}
        world.dynamodb.put_item(TableName=world.table, Item={**key, **odd})
        assert invoke()["outcome"] == "stopped"
        assert 840 <= (world.hold() or {})["hold_until"] - world.born_at <= 1860

    @pytest.mark.parametrize("action", ["Query", "GetItem"])
    def test_a_table_that_does_not_answer_for_a_moment_stops_nothing(self, world: World, action: str) -> None:
        world.processing(created=10, claimed=10)
        world.gateway.refusals[action] = "InternalServerError"
        with pytest.raises(TableUnreadableError, match="left, without the table"):
            invoke()
        assert world.state() == "running"
        assert world.unreadable_since() == pytest.approx(world.born_at, abs=60)
        world.gateway.refusals.clear()
        assert invoke()["decision"] == "leave"
        assert world.unreadable_since() is None

    def test_a_table_that_does_not_answer_for_long_stops_it_and_alerts(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        topic_arn, inbox = world.subscribe()
        monkeypatch.setenv("ALERT_TOPIC_ARN", topic_arn)
        world.note_unreadable(since=45)
        world.gateway.refusals["Query"] = "AccessDeniedException"
        with pytest.raises(TableUnreadableError, match="stopped, without the table"):
            invoke()
        assert world.state() == "stopped"
        (alert,) = world.messages(inbox)
        assert "rule D" in alert["Subject"]

    def test_an_outage_of_the_launch_before_does_not_count(self, world: World) -> None:
        world.note_unreadable(since=300)
        world.launched(5)
        world.gateway.refusals["Query"] = "InternalServerError"
        with pytest.raises(TableUnreadableError, match="left"):
            invoke()
        assert world.state() == "running"

    def test_where_no_outage_can_be_noted_one_failed_look_stops_nothing(self, world: World) -> None:
        world.processing(created=10, claimed=10)
        world.gateway.refusals |= {"Query": "InternalServerError", "CreateTags": "UnauthorizedOperation"}
        for _ in range(2):
            with pytest.raises(TableUnreadableError, match="left"):
                invoke()
        assert world.state() == "running"

    def test_a_stopped_instance_needs_no_table(self, world: World) -> None:
        world.ec2.stop_instances(InstanceIds=[world.instance_id])
        world.gateway.refusals["Query"] = "InternalServerError"
        assert invoke()["decision"] == "leave"

    def test_a_wrong_environment_raises_until_it_is_right(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("DYNAMODB_TABLE")
        for _ in range(2):
            with pytest.raises(SettingError, match=r"^DYNAMODB_TABLE: is not set$"):
                invoke()
        monkeypatch.setenv("DYNAMODB_TABLE", world.table)
        assert invoke()["outcome"] == "stopped"


class TestRecords:
    def test_what_others_wrote_wrong_does_not_stop_the_stopping(self, world: World) -> None:
        world.put(f"worker#{world.instance_id}", beat_at="soon", upstream_ok_at="never", last_claim_at="x")
        world.put(f"instance#{world.instance_id}", hold_until="x", updated_at="y")
        world.processing(created=40, claimed=31, attempt="first", lease_until="later")
        assert invoke()["outcome"] == "stopped"

    def test_worker_and_hold_are_read_consistently(self, world: World) -> None:
        invoke()
        keys = {request["Key"]["task_id"]["S"]: request["ConsistentRead"] for request in world.gateway.sent("GetItem")}
        assert keys == {f"worker#{world.instance_id}": True, f"instance#{world.instance_id}": True}

    @pytest.mark.parametrize("backlog", [0, 1, 150, 250])
    def test_a_look_does_not_grow_with_the_backlog(self, world: World, backlog: int) -> None:
        waiting = {f"w{n:04d}": {"status": "pending", "created_at": world.ago(20 - n / 100)} for n in range(backlog)}
        over = {"status": "completed", "created_at": world.ago(60), "claimed_at": world.ago(50)}
        world.put_all({**waiting, **{f"c{n:04d}": over for n in range(backlog)}})
        world.worker(claim=1)
        answer = invoke()
        assert world.gateway.calls.count("Query") <= 5
        assert len(world.gateway.calls) <= 10
        assert all(request["Limit"] == 100 for request in world.gateway.sent("Query"))
        assert answer["facts"]["waiting"] == min(backlog, 200 if backlog > 150 else backlog)
        # Of the newest as much as of the oldest: the last submission is what rule A counts from.
        if backlog:
            assert answer["facts"]["last_activity_at"] >= world.ago(20 - (backlog - 1) / 100)

    def test_what_ended_in_the_future_hides_no_activity(self, world: World) -> None:
        future = {f"f{n}": {"status": "completed", "created_at": (world.born_at + n) * 1000} for n in range(120)}
        world.put_all(future)
        world.put("claimed", status="completed", created_at=world.ago(40), claimed_at=world.born_at * 1000)
        world.finished(created=5, claimed=5)
        assert invoke()["decision"] == "leave"

    def test_with_a_backlog_the_one_that_waits_longest_is_seen(self, world: World) -> None:
        world.pending(created=40)
        world.put_all({f"{n:04d}": {"status": "pending", "created_at": world.ago(1)} for n in range(220)})
        world.worker()
        answer = invoke()
        assert (answer["rule"], answer["outcome"]) == ("C", "stopped")
        assert answer["reason"].startswith("200 tasks or more waiting, but the worker claimed nothing")

    @pytest.mark.parametrize("attempt", [None, "first"])
    def test_a_stuck_task_without_an_attempt_is_failed_all_the_same(self, world: World, attempt: str | None) -> None:
        odd = {} if attempt is None else {"attempt": attempt}
        task = uuid4().hex
        times = {"created_at": world.ago(40), "claimed_at": world.ago(31), "lease_until": world.ago(-3)}
        world.put(task, status="processing", **times, **odd)
        assert invoke()["outcome"] == "stopped"
        record = world.record(task) or {}
        assert (record["status"], record["error_code"]) == ("failed", "rule_b")
        assert "lease_until" not in record

    def test_what_an_earlier_adapter_left_when_it_was_killed_keeps_nothing_on(self, world: World) -> None:
        """It knew neither leases nor attempts. Its task waits like any other, for a worker to take it over."""
        world.put("left", status="processing", created_at=world.ago(40), updated_at=world.ago(40))
        assert (invoke()["rule"], world.state()) == ("C", "stopped")

    def test_a_task_that_moves_on_during_the_look_is_counted_once(self, world: World) -> None:
        task = world.pending(created=5)
        world.worker()
        times = {"created_at": world.ago(5), "claimed_at": world.ago(0), "lease_until": world.ago(-5), "attempt": 1}

        def claim_before_the_second_query() -> None:
            world.gateway.before["Query"] = lambda: world.put(task, status="processing", **times)

        world.gateway.before["Query"] = claim_before_the_second_query
        facts = invoke()["facts"]
        assert (facts["waiting"], facts["processing"]) == (0, 1)


class TestLog:
    def test_each_invocation_writes_one_canonical_line(self, world: World, lines: Lines) -> None:
        world.processing(created=10, claimed=10)
        invoke(events.ALARM)
        (line,) = lines()
        assert line["event"] == "shutdown.decided"
        assert line["request_id"] == "6f2a"
        assert line["trigger"] == {"kind": "alarm", "name": "QueueEmptyFor30Min", "state": "ALARM"}
        assert (line["decision"], line["rule"], line["level"]) == ("leave", None, "info")
        assert line["reason"] == "0 tasks waiting, 1 task processing"
        assert line["facts"]["state"] == "running"
        assert line["facts"]["processing"] == 1

    def test_each_effect_has_a_line_of_its_own(self, world: World, lines: Lines) -> None:
        world.processing(created=40, claimed=31)
        invoke()
        assert [line["event"] for line in lines()] == ["shutdown.decided", "task.failed", "instance.stopped"]

    def test_a_cold_start_does_not_double_the_lines(self, world: World, lines: Lines) -> None:
        invoke()
        compose.cache_clear()
        invoke()
        assert [line["event"] for line in lines()] == ["shutdown.decided", "instance.stopped", "shutdown.decided"]

    def test_the_level_is_a_setting(self, world: World, lines: Lines, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("LOG_LEVEL", "WARNING")
        world.pending(created=40)
        invoke()
        assert [line["event"] for line in lines()] == ["instance.held"]


def test_a_cold_start_builds_everything_once(world: World) -> None:
    assert compose() is compose()
