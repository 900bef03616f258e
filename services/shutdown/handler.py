"""Entry of the Lambda ``shutdown-gpu-lambda``: look, decide, act.

Invoked by the alarm, a one-minute schedule and instance state changes. An alarm acts on transitions only, and its event
may be lost or come twice, so none of them means anything here but: look now.
"""

import os
import time
from dataclasses import asdict
from functools import cache
from typing import TYPE_CHECKING, Any

import boto3
from botocore.config import Config

from services.shutdown import log
from services.shutdown.action import Alert, Executor, Outcome
from services.shutdown.decision import Decision, ForceStop, Leave, Policy, decide, decide_blind
from services.shutdown.errors import QueueUnseenError, TableUnreadableError
from services.shutdown.facts import Facts
from services.shutdown.hanging import StopWatch
from services.shutdown.meter import Meter, write_line, write_nothing
from services.shutdown.observer import Observer, launched_at
from services.shutdown.outage import OutageTag
from services.shutdown.settings import Settings
from services.shutdown.trigger import name_trigger

if TYPE_CHECKING:
    from types_boto3_dynamodb import DynamoDBClient
    from types_boto3_ec2 import EC2Client
    from types_boto3_sqs import SQSClient

# Three attempts of at most 7 s: one slow call must not use up the invocation, and the next minute tries again anyway.
_CALLS = Config(connect_timeout=2, read_timeout=5, retries={"mode": "standard", "total_max_attempts": 3})


class Shutdown:
    """One deployment's eyes, judgement and hands."""

    def __init__(self, *, observer: Observer, outage: OutageTag, policy: Policy, executor: Executor) -> None:
        self._observer = observer
        self._outage = outage
        self._policy = policy
        self._executor = executor
        self._stop_watch = StopWatch()

    def run(self, event: object) -> dict[str, Any]:
        """Look once and do what is right; returns what was seen, decided and done, as JSON can carry it.

        Raises:
            QueueUnseenError: it is done, but the queue did not answer, and that must be counted.
            TableUnreadableError: likewise, for the table.
            HoldNotWrittenError: it is stopped, but may be started again at once.
        """
        now = time.time()
        instance = self._observer.describe()
        launched = launched_at(instance) or 0.0
        stopping_since = self._stop_watch.since(instance, now=now, launched_at=launched)
        try:
            facts = self._observer.look(instance, now, stopping_since=stopping_since)
        except TableUnreadableError as exc:
            since = self._outage.since(instance, now=now, launched_at=launched)
            decision = decide_blind(since, now, self._policy)
            answer = self._do(event, decision, Facts(now=now, state="running", launched_at=launched))
            raise TableUnreadableError(f"{answer['outcome']}, without the table: {exc}") from exc
        self._outage.end(instance)
        answer = self._do(event, decide(facts, self._policy), facts)
        if facts.state == "running" and facts.visible is None:
            raise QueueUnseenError(f"{answer['outcome']}, without having seen the queue")
        return answer

    def _do(self, event: object, decision: Decision, facts: Facts) -> dict[str, Any]:
        decided = {"trigger": asdict(name_trigger(event)), **_summary(decision), "facts": _digest(facts)}
        log.info("shutdown.decided", **decided)
        outcome = self._executor.carry_out(decision, facts)
        if outcome is Outcome.FORCED:
            self._stop_watch.forced(facts.now)
        return {**decided, "outcome": outcome.value}


def handler(event: object, context: object) -> dict[str, Any]:
    """What AWS calls.

    Raises:
        SettingError: the environment is wrong.
        QueueUnseenError: see ``Shutdown.run``.
        InstanceNotFoundError, botocore's errors: see ``Observer.look`` and ``Executor.carry_out``. Raised on purpose:
            an asynchronous invocation is retried and counted as an error only if it raises.
    """
    shutdown = compose()
    log.bind(request_id=getattr(context, "aws_request_id", None))
    return shutdown.run(event)


@cache
def compose() -> Shutdown:
    """Build everything from the environment, once per cold start; ``compose.cache_clear()`` makes the next call one.

    Raises:
        SettingError: a variable is missing or wrong. Not cached: each invocation fails until it is set.
    """
    settings = Settings.from_env(os.environ)
    log.configure(settings.log_level)
    session = boto3.Session(region_name=settings.region)
    ec2: EC2Client = session.client("ec2", config=_CALLS)
    dynamodb: DynamoDBClient = session.client("dynamodb", config=_CALLS)
    sqs: SQSClient = session.client("sqs", config=_CALLS)
    alert = _alert(session, settings.alert_topic_arn) if settings.alert_topic_arn else None
    observer = Observer(
        ec2=ec2,
        dynamodb=dynamodb,
        sqs=sqs,
        instance_id=settings.instance_id,
        table=settings.table,
        queue_url=settings.queue_url,
    )
    meter = Meter(namespace=settings.metrics_namespace, write=write_line if settings.metrics else write_nothing)
    executor = Executor(
        ec2=ec2,
        dynamodb=dynamodb,
        instance_id=settings.instance_id,
        table=settings.table,
        alert=alert,
        meter=meter,
        patience_s=settings.policy.worker_grace_s,
    )
    outage = OutageTag(ec2=ec2, instance_id=settings.instance_id)
    return Shutdown(observer=observer, outage=outage, policy=settings.policy, executor=executor)


def _alert(session: boto3.Session, topic_arn: str) -> Alert:
    sns = session.client("sns", config=_CALLS)

    def send(subject: str, message: str) -> None:
        sns.publish(TopicArn=topic_arn, Subject=subject, Message=message)

    return send


def _summary(decision: Decision) -> dict[str, Any]:
    if isinstance(decision, Leave):
        return {"decision": "leave", "rule": None, "reason": decision.reason, "stops_at": decision.stops_at}
    if isinstance(decision, ForceStop):
        return {"decision": "force_stop", "rule": None, "reason": decision.reason, "stops_at": None}
    return {"decision": "stop", "rule": decision.rule.value, "reason": decision.reason, "stops_at": None}


def _digest(facts: Facts) -> dict[str, Any]:
    if facts.state == "stopping":
        return {"state": facts.state, "stopping_since": facts.stopping_since}
    if facts.state != "running":
        return {"state": facts.state}
    return {
        "state": facts.state,
        "launched_at": facts.launched_at,
        "waiting": len(facts.waiting),
        "processing": len(facts.leased),
        "visible": facts.visible,
        "last_activity_at": facts.last_activity_at,
        "worker": facts.worker and asdict(facts.worker),
        "hold": facts.hold and asdict(facts.hold),
    }
