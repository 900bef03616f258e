"""The shutdown Lambda: what was deployed, who may call it, who does, and how that went."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from typing import Any, Final

from services.doctor.deployment import Deployment
from services.doctor.facts import Function, Grant, Invocations, Rule
from services.doctor.finding import Finding, broken, fine, span, warning

HANDLER: Final = "services.shutdown.handler.handler"
IDLE_S: Final = 1800.0
"""The Lambda's own default."""
ALARM_PRINCIPAL: Final = "lambda.alarms.cloudwatch.amazonaws.com"
RULE_PRINCIPAL: Final = "events.amazonaws.com"
EVERY_MINUTE: Final = ("rate(1 minute)", "cron(* * * * ? *)")

_APPLY = "`terraform apply` deploys it again"


def idle_s(function: Function) -> float:
    """The Lambda's `IDLE_S` as deployed; its own default where it is not set, or no number."""
    try:
        return float(function.variables["IDLE_S"])
    except (KeyError, ValueError):
        return IDLE_S


def judge_function(function: Function, deployment: Deployment) -> Iterator[Finding]:
    """Code and environment."""
    if "Failed" in (function.state, function.update):
        yield broken("function", f"{deployment.function}: {function.state}, update {function.update}", fix=_APPLY)
    elif function.handler != HANDLER:
        yield broken("function", f"its handler is {function.handler}, not {HANDLER}", fix=_APPLY)
    else:
        yield fine("function", f"{deployment.function} is {function.state or 'deployed'}")
    yield _judge_environment(function, deployment)


def _judge_environment(function: Function, deployment: Deployment) -> Finding:
    wanted = {
        "GPU_INSTANCE_ID": deployment.instance_id,
        "DYNAMODB_TABLE": deployment.table,
        "SQS_QUEUE_URL": deployment.queue.url,
    }
    wrong = [
        f"{name} is {function.variables.get(name) or 'not set'}, not {value}"
        for name, value in wanted.items()
        if function.variables.get(name) != value
    ]
    if wrong:
        return broken("function environment", "; ".join(wrong), fix=_APPLY)
    return fine("function environment", "names this instance, table and queue")


def judge_concurrency(reserved: int | None, deployment: Deployment) -> Iterator[Finding]:
    """Reserved concurrency 0 is how people switch a function off.

    https://docs.aws.amazon.com/lambda/latest/dg/configuration-concurrency.html
    """
    if reserved == 0:
        fix = deployment.aws("lambda", "delete-function-concurrency", "--function-name", deployment.function)
        yield broken("function concurrency", "reserved concurrency is 0: every call is refused", fix=fix)
    else:
        yield fine("function concurrency", "not throttled" if reserved is None else f"{reserved} reserved")


def judge_invocations(
    invocations: Invocations, function: Function, deployment: Deployment, *, now: float
) -> Iterator[Finding]:
    """That somebody calls it, and that it does not raise."""
    within = span(invocations.within_s)
    fix = deployment.aws("logs", "tail", f"/aws/lambda/{deployment.function}", "--since", "15m")
    if invocations.count == 0:
        if now - function.modified_at < invocations.within_s:
            yield fine("function calls", "none counted yet; it was deployed just now")
            return
        text = f"none within {within}, and there should be one a minute"
        yield broken("function calls", text, fix="see schedule and its permission")
    elif invocations.errors >= invocations.count:
        yield broken("function calls", f"all {invocations.count} within {within} failed: nobody stops the GPU", fix=fix)
    elif invocations.errors:
        text = f"{invocations.errors} of {invocations.count} within {within} failed"
        yield warning("function calls", text, fix=fix)
    else:
        yield fine("function calls", f"{invocations.count} within {within}, none failed")


def judge_alarm_permission(grants: Sequence[Grant], alarm_arn: str, deployment: Deployment) -> Iterator[Finding]:
    """An alarm's action is refused in silence where the function does not allow it."""
    if _is_granted(grants, ALARM_PRINCIPAL, alarm_arn):
        yield fine("alarm permission", f"{deployment.alarm} may call {deployment.function}")
    else:
        text = f"{deployment.alarm} may not call {deployment.function}: it fires and nothing happens"
        yield broken("alarm permission", text, fix=_grant(deployment, "IdleAlarm", ALARM_PRINCIPAL, alarm_arn))


def judge_rules(rules: Sequence[Rule], deployment: Deployment) -> Iterator[Finding]:
    """The schedule, which makes up for whatever event was lost, and the event of a stopped instance."""
    yield _judge_schedule(rules, deployment)
    yield _judge_stop_event(rules, deployment)


def _judge_schedule(rules: Sequence[Rule], deployment: Deployment) -> Finding:
    scheduled = [rule for rule in rules if rule.schedule]
    at_work = [rule for rule in scheduled if rule.is_enabled]
    for rule in at_work:
        if rule.schedule in EVERY_MINUTE:
            return fine("schedule", f"{rule.name}, {rule.schedule}")
    if at_work:
        schedules = ", ".join(str(rule.schedule) for rule in at_work)
        fix = deployment.aws("events", "put-rule", "--name", at_work[0].name, "--schedule-expression", EVERY_MINUTE[0])
        return warning("schedule", f"{schedules}: the GPU is stopped that much later", fix=fix)
    if scheduled:
        fix = deployment.aws("events", "enable-rule", "--name", scheduled[0].name)
        return broken("schedule", f"{scheduled[0].name} is disabled: a lost event is never made good", fix=fix)
    text = f"no scheduled rule calls {deployment.function}: a lost event is never made good"
    return broken("schedule", text, fix="let `terraform apply` make rule and target")


def _judge_stop_event(rules: Sequence[Rule], deployment: Deployment) -> Finding:
    matching = [rule for rule in rules if _notices_stop(rule.pattern, deployment.instance_id)]
    for rule in matching:
        if rule.is_enabled:
            return fine("stop event", rule.name)
    if matching:
        fix = deployment.aws("events", "enable-rule", "--name", matching[0].name)
        return warning("stop event", f"{matching[0].name} is disabled", fix=fix)
    text = f"no rule tells {deployment.function} that {deployment.instance_id} is stopped"
    return warning("stop event", text, fix="let `terraform apply` make rule and target")


def _notices_stop(pattern: str | None, instance_id: str) -> bool:
    """Plain values only: that is all our rule has, and what EventBridge's other matchers mean is not ours to tell."""
    try:
        wanted: Any = json.loads(pattern or "{}")
        detail = wanted["detail"]
        return (
            "aws.ec2" in wanted["source"]
            and "stopped" in detail["state"]
            and instance_id in detail.get("instance-id", [instance_id])
        )
    except (ValueError, KeyError, TypeError):
        return False


def judge_rule_permissions(rules: Sequence[Rule], grants: Sequence[Grant], deployment: Deployment) -> Iterator[Finding]:
    """A rule whose calls are refused looks healthy everywhere else."""
    for rule in rules:
        check = "schedule permission" if rule.schedule else "stop event permission"
        if _is_granted(grants, RULE_PRINCIPAL, rule.arn):
            yield fine(check, f"{rule.name} may call {deployment.function}")
            continue
        text = f"{rule.name} may not call {deployment.function}"
        fix = _grant(deployment, rule.name, RULE_PRINCIPAL, rule.arn)
        yield (broken if rule.schedule else warning)(check, text, fix=fix)


def _is_granted(grants: Sequence[Grant], principal: str, source_arn: str) -> bool:
    account = source_arn.split(":")[4]
    return any(
        grant.principal == principal
        and (grant.source_arn is None or fnmatchcase(source_arn, grant.source_arn))
        and grant.source_account in (None, account)
        for grant in grants
    )


def _grant(deployment: Deployment, statement_id: str, principal: str, source_arn: str) -> str:
    words = ("--function-name", deployment.function, "--statement-id", statement_id, "--principal", principal)
    return deployment.aws(
        "lambda", "add-permission", *words, "--action", "lambda:InvokeFunction", "--source-arn", source_arn
    )
