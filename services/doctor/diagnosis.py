"""Facts -> findings, in the order in which one would ask. Pure: no I/O, no clock."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from services.doctor.deployment import Deployment
from services.doctor.facts import Absent, Alarm, Facts, Function, Instance, Queue, Seen, Unseen
from services.doctor.finding import Finding, Mark, broken
from services.doctor.judgement import function as lambda_function
from services.doctor.judgement import idle_alarm, instance, queues, surroundings, task_table, work

T = TypeVar("T")

_APPLY = "is the name right? `terraform apply` makes it"


def diagnose(facts: Facts, deployment: Deployment) -> list[Finding]:
    """One finding, good or bad, for each thing that could be judged; a look that failed is one as well."""
    return [
        *surroundings.judge_identity(facts.identity, deployment),
        *surroundings.judge_clock(facts.skew_s),
        *_table(facts, deployment),
        *_queues(facts, deployment),
        *_alarm(facts, deployment),
        *_function(facts, deployment),
        *_rules(facts, deployment),
        *_instance(facts, deployment),
        *_work(facts, deployment),
    ]


def _table(facts: Facts, deployment: Deployment) -> Iterator[Finding]:
    absent = broken("table", f"there is no table {deployment.table}", fix=_APPLY)
    yield from _on("table", facts.table, lambda table: task_table.judge_table(table, deployment), absent=absent)
    if isinstance(facts.table, Absent):
        return
    yield from _unseen("table ttl", facts.ttl)
    yield from task_table.judge_ttl(facts.ttl, deployment)
    yield from _on("table recovery", facts.recovery, lambda is_on: task_table.judge_recovery(is_on, deployment))


def _queues(facts: Facts, deployment: Deployment) -> Iterator[Finding]:
    queue, dead_letters = facts.queue, facts.dead_letters
    absent = broken("queue", f"there is no queue {deployment.queue.url}", fix=_APPLY)
    yield from _on("queue", queue, lambda queue: queues.judge_queue(queue, deployment), absent=absent)
    if isinstance(queue, Queue):
        yield from queues.judge_retention(queue, deployment)
    absent = broken("dead letters", f"there is no queue {deployment.dead_letters.url}", fix=_APPLY)
    yield from _on(
        "dead letters", dead_letters, lambda queue: queues.judge_dead_letters(queue, deployment), absent=absent
    )
    if isinstance(queue, Queue) and isinstance(dead_letters, Queue):
        yield from queues.judge_redrive(queue, dead_letters, deployment)


def _alarm(facts: Facts, deployment: Deployment) -> Iterator[Finding]:
    alarm, function, idle_s = facts.alarm, facts.function, _idle_s(facts)
    absent = broken("alarm", f"there is no alarm {deployment.alarm}", fix=_APPLY)
    yield from _on("alarm", alarm, lambda it: idle_alarm.judge_alarm(it, deployment, idle_s=idle_s), absent=absent)
    if not isinstance(alarm, Alarm):
        return
    if isinstance(function, Function):
        yield from idle_alarm.judge_action(alarm, function.arn, deployment)
    if isinstance(facts.grants, tuple):
        yield from lambda_function.judge_alarm_permission(facts.grants, alarm.arn, deployment)


def _function(facts: Facts, deployment: Deployment) -> Iterator[Finding]:
    function = facts.function
    absent = broken("function", f"there is no function {deployment.function}: nobody stops the GPU", fix=_APPLY)
    yield from _on("function", function, lambda it: lambda_function.judge_function(it, deployment), absent=absent)
    if isinstance(function, Absent):
        return
    yield from _on(
        "function concurrency",
        facts.concurrency,
        lambda reserved: lambda_function.judge_concurrency(reserved, deployment),
    )
    yield from _unseen("function calls", facts.invocations)
    if isinstance(function, Function) and not isinstance(facts.invocations, Absent | Unseen):
        yield from lambda_function.judge_invocations(facts.invocations, function, deployment, now=facts.now)


def _rules(facts: Facts, deployment: Deployment) -> Iterator[Finding]:
    rules, grants = facts.rules, facts.grants
    yield from _unseen("function permissions", grants)
    if not isinstance(facts.function, Function):
        return
    yield from _on("schedule", rules, lambda found: lambda_function.judge_rules(found, deployment))
    if isinstance(rules, tuple) and isinstance(grants, tuple):
        yield from lambda_function.judge_rule_permissions(rules, grants, deployment)


def _instance(facts: Facts, deployment: Deployment) -> Iterator[Finding]:
    found, now = facts.instance, facts.now
    fix = "is it in another region or account, or terminated?"
    absent = broken("instance", f"there is no instance {deployment.instance_id}", fix=fix)
    yield from _on("instance", found, lambda it: instance.judge_instance(it, deployment, now=now), absent=absent)
    yield from _unseen("hold", facts.hold)
    yield from instance.judge_hold(facts.hold, facts.tasks, deployment, now=now)
    yield from _unseen("adapter", facts.worker)
    if not isinstance(found, Instance):
        return
    yield from instance.judge_worker(facts.worker, found, deployment, now=now)
    yield from instance.judge_cost(found, facts.worker, facts.tasks, deployment, idle_s=_idle_s(facts), now=now)


def _idle_s(facts: Facts) -> float:
    """The function's patience; its default where the function was not seen."""
    return lambda_function.idle_s(facts.function) if isinstance(facts.function, Function) else lambda_function.IDLE_S


def _work(facts: Facts, deployment: Deployment) -> Iterator[Finding]:
    yield from _on("tasks", facts.tasks, lambda tasks: work.judge_tasks(tasks, facts, deployment))
    if facts.service is not None:
        yield from _on("orchestrator", facts.service, lambda service: work.judge_service(service, deployment))


def _on(
    check: str, seen: Seen[T], judge: Callable[[T], Iterable[Finding]], *, absent: Finding | None = None
) -> Iterator[Finding]:
    """What `judge` says of it if it was seen. Without `absent` its absence is said elsewhere."""
    if isinstance(seen, Unseen):
        yield from _unseen(check, seen)
    elif not isinstance(seen, Absent):
        yield from judge(seen)
    elif absent is not None:
        yield absent


def _unseen(check: str, seen: object) -> Iterator[Finding]:
    if isinstance(seen, Unseen):
        yield Finding(Mark.UNSEEN, check, f"could not look: {seen.problem}", seen.fix)
