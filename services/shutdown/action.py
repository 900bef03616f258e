"""Carries a decision out. Every step may be repeated, and may be done by two Lambdas at once."""

from collections.abc import Callable
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError

from services.shutdown import log
from services.shutdown.attributes import Item, read_count, write_count, write_moment
from services.shutdown.decision import Decision, ForceStop, Leave, Rule, Stop
from services.shutdown.errors import HoldNotWrittenError
from services.shutdown.facts import MOST_HOLDS, Facts, Hold, Task
from services.shutdown.meter import Meter

if TYPE_CHECKING:
    from types_boto3_dynamodb import DynamoDBClient
    from types_boto3_ec2 import EC2Client

Alert = Callable[[str, str], None]
"""Tells an operator: subject (ASCII, below 100 characters, as SNS wants it) and message."""


class Outcome(StrEnum):
    """What became of a decision."""

    LEFT = "left"
    STOPPED = "stopped"
    ALREADY_STOPPING = "already_stopping"
    FORCED = "forced"
    OVERTAKEN = "overtaken"


class Executor:
    """Hands on one instance and its records.

    ``alert`` None: nobody is told. ``patience_s``: for so long a stop waits for a table that takes no writes.
    """

    def __init__(
        self,
        *,
        ec2: "EC2Client",
        dynamodb: "DynamoDBClient",
        instance_id: str,
        table: str,
        alert: Alert | None,
        meter: Meter,
        patience_s: float,
    ) -> None:
        self._ec2 = ec2
        self._dynamodb = dynamodb
        self._instance_id = instance_id
        self._table = table
        self._alert = alert
        self._meter = meter
        self._patience_s = patience_s

    def carry_out(self, decision: Decision, facts: Facts) -> Outcome:
        """Do what was decided on these facts.

        Raises:
            botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError: a call failed; the next invocation looks
                again and repeats what is still right.
        """
        if isinstance(decision, Leave):
            if decision.clear_hold and facts.hold:
                self._clear_hold(facts.hold)
            return Outcome.LEFT
        if isinstance(decision, ForceStop):
            return self._force(decision)
        return self._stop(decision, facts.now)

    def _stop(self, stop: Stop, now: float) -> Outcome:
        # Tasks first: failed, they are no demand any more. Stopped first, the waker would start the instance for them.
        if not self._settle(stop, now):
            return Outcome.OVERTAKEN
        # The hold before the stop as well: the waker may look the moment the instance is stopped.
        unwritten = self._try_hold(stop) if stop.hold else None
        outcome = self._stop_instance()
        if outcome is Outcome.STOPPED:
            self._meter.stopped(stop.rule.value)
        if outcome is Outcome.STOPPED and stop.rule is not Rule.IDLE and self._alert:
            self._alert(f"GPU instance {self._instance_id} stopped by rule {stop.rule}", _message(stop, now))
            log.info("alert.sent", rule=stop.rule)
        if unwritten is not None:
            raise HoldNotWrittenError(f"{outcome.value}, without a hold") from unwritten
        return outcome

    def _force(self, decision: ForceStop) -> Outcome:
        try:
            self._ec2.stop_instances(InstanceIds=[self._instance_id], Force=True)
        except ClientError as exc:
            if exc.response["Error"]["Code"] != "IncorrectInstanceState":
                raise
            return Outcome.ALREADY_STOPPING  # it has ended, and is being started
        self._meter.stopped("force")
        log.warning("instance.stop_forced", instance_id=self._instance_id, reason=decision.reason)
        if self._alert:
            self._alert(f"GPU instance {self._instance_id} is stopped by force", f"{decision.reason}.")
        return Outcome.FORCED

    def _settle(self, stop: Stop, now: float) -> bool:
        """Fail the tasks of rule B; whether the stop is still right.

        What the table refuses is tried again a minute later, but not for ever: then the instance is stopped with its
        tasks unfailed, since a table that takes no writes must not keep it on.
        """
        try:
            settled = [self._give_up(task, stop.reason, now) for task in stop.give_up]
        except (ClientError, BotoCoreError) as exc:
            if now < stop.due_at + self._patience_s:
                raise
            log.warning("task.give_up_failed", error=str(exc), overdue_s=round(now - stop.due_at))
            return True
        return all(settled)

    def _try_hold(self, stop: Stop) -> Exception | None:
        """Put the hold, or say why not: without it the instance may start again in vain, but it must stop now."""
        try:
            if stop.hold:
                self._put_hold(stop.hold, stop.reason)
        except (ClientError, BotoCoreError) as exc:
            log.warning("instance.hold_not_written", error=str(exc))
            return exc
        return None

    def _give_up(self, task: Task, reason: str, now: float) -> bool:
        """Fail a task as ``rule_b``; whether it is settled, by us or otherwise.

        A lost condition says that the facts were overtaken. If the task ended meanwhile, the stop is still right: the
        end of a task is no activity, so the instance is as idle as it was. If it was claimed anew or given back, it is
        new work: then nothing is stopped now, and the next look, a minute later, judges it on fresh facts. If it is
        what it was, its record is broken; waiting for it to become right would keep the instance on for ever.
        """
        try:
            self._dynamodb.update_item(
                TableName=self._table,
                Key={"task_id": {"S": task.task_id}},
                UpdateExpression="SET #status = :failed, error_code = :code, error_message = :message,"
                " finished_at = :now, updated_at = :now REMOVE lease_until",
                # An attempt that is missing or no number is read as 0.
                ConditionExpression="#status = :processing"
                " AND (attempt = :attempt OR (:attempt = :none AND NOT attribute_type(attempt, :number)))",
                ExpressionAttributeNames={"#status": "status"},
                ExpressionAttributeValues={
                    ":failed": {"S": "failed"},
                    ":processing": {"S": "processing"},
                    ":attempt": write_count(task.attempt),
                    ":none": write_count(0),
                    ":number": {"S": "N"},
                    ":code": {"S": "rule_b"},
                    ":message": {"S": f"Rule B stopped the GPU while this task was processing: {reason}."},
                    ":now": write_moment(now),
                },
                ReturnValuesOnConditionCheckFailure="ALL_OLD",
            )
        except ClientError as exc:
            winner = _winner(exc)
            status, attempt = winner.get("status", {}).get("S"), read_count(winner, "attempt")
            log.info("task.give_up_refused", task_id=task.task_id, status=status, attempt=attempt)
            return not (status == "pending" or (status == "processing" and attempt != task.attempt))
        self._meter.failed("rule_b")
        log.warning("task.failed", task_id=task.task_id, attempt=task.attempt, error_code="rule_b")
        return True

    def _put_hold(self, hold: Hold, reason: str) -> None:
        try:
            self._dynamodb.put_item(
                TableName=self._table,
                Item={
                    **self._record_key(),
                    "hold_until": write_moment(hold.until),
                    "hold_count": write_count(hold.count),
                    "hold_reason": {"S": reason},
                    "updated_at": write_moment(hold.put_at or 0.0),
                },
                # Whatever else is there, a count that makes no sense must not keep this hold out.
                ConditionExpression="NOT attribute_type(hold_count, :number)"
                " OR hold_count < :count OR hold_count > :most",
                ExpressionAttributeValues={
                    ":count": write_count(hold.count),
                    ":most": write_count(MOST_HOLDS),
                    ":number": {"S": "N"},
                },
            )
        except ClientError as exc:
            _winner(exc)
            log.info("instance.hold_found", hold_count=hold.count)  # put by another Lambda, or a minute ago
            return
        log.warning("instance.held", hold_until=hold.until, hold_count=hold.count, reason=reason)

    def _clear_hold(self, hold: Hold) -> None:
        try:
            self._dynamodb.delete_item(
                TableName=self._table,
                Key=self._record_key(),
                ConditionExpression="hold_count = :count",
                ExpressionAttributeValues={":count": write_count(hold.count)},
            )
        except ClientError as exc:
            _winner(exc)
            log.info("instance.hold_kept", hold_count=hold.count)  # removed, or put anew, by another Lambda
            return
        log.info("instance.hold_cleared", hold_count=hold.count)

    def _stop_instance(self) -> Outcome:
        """Idempotent in its target state. Who finds it ``running`` has stopped it, and is the one to tell."""
        try:
            answer = self._ec2.stop_instances(InstanceIds=[self._instance_id])
        except ClientError as exc:
            if exc.response["Error"]["Code"] != "IncorrectInstanceState":
                raise
            log.info("instance.stop_refused", instance_id=self._instance_id)
            return Outcome.ALREADY_STOPPING
        previous = answer["StoppingInstances"][0]["PreviousState"]["Name"]
        log.info("instance.stopped", instance_id=self._instance_id, previous_state=previous)
        return Outcome.STOPPED if previous == "running" else Outcome.ALREADY_STOPPING

    def _record_key(self) -> dict[str, Any]:
        return {"task_id": {"S": f"instance#{self._instance_id}"}}


def _winner(error: ClientError) -> Item:
    """The record that made a condition fail, empty where there is none; any other error is raised on."""
    response: Any = error.response
    if response["Error"]["Code"] != "ConditionalCheckFailedException":
        raise error
    item: Item = response.get("Item", {})
    return item


def _message(stop: Stop, now: float) -> str:
    hold = f"\nIt will not be started again for {stop.hold.until - now:.0f} s." if stop.hold else ""
    given_up = "".join(f"\nTask {task.task_id} was failed as rule_b." for task in stop.give_up)
    return f"{stop.reason}.{hold}{given_up}"
