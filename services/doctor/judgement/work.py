"""Whether tasks get anywhere, and whether the orchestrator answers."""

from __future__ import annotations

from collections.abc import Iterator

from lib.gputask.gpu import InstanceHold
from services.doctor.deployment import Deployment
from services.doctor.facts import Facts, Instance, Service, Tasks
from services.doctor.finding import Finding, broken, fine, span, warning

# Waking takes a look every 30 s, and five minutes between two tries where EC2 refuses.
_WAKING_S = 600
# Ten rounds of the janitor.
_BURIAL_S = 600
# Longer than a boot, a queue of some jobs, and the alarm of Terraform's alert_message_age_s.
_LONG_S = 3600


def judge_tasks(tasks: Tasks, facts: Facts, deployment: Deployment) -> Iterator[Finding]:
    """The age of the oldest task that is not finished."""
    if tasks.oldest_unfinished_at is None:
        yield fine("tasks", "none is unfinished")
        return
    age_s = facts.now - tasks.oldest_unfinished_at
    said = f"the oldest unfinished one is {span(age_s)} old"
    if age_s > deployment.task_max_age_s + _BURIAL_S:
        text = f"{said}, and {span(deployment.task_max_age_s)} is the limit: nobody fails it"
        yield broken("tasks", text, fix="is the orchestrator running? See its log for janitor events")
    elif age_s > _WAKING_S and _sleeps_on(facts):
        text = f"{said}, but the instance is stopped, and nobody starts it"
        fix = "is the orchestrator running, or does EC2 refuse? See its log for waker events"
        yield broken("tasks", text, fix=fix)
    elif age_s > _LONG_S:
        yield warning("tasks", said, fix="does the GPU start, and is it fast enough? See adapter and upstream")
    else:
        yield fine("tasks", said)


def _sleeps_on(facts: Facts) -> bool:
    held = isinstance(facts.hold, InstanceHold) and facts.hold.until > facts.now
    return isinstance(facts.instance, Instance) and facts.instance.state == "stopped" and not held


def judge_service(service: Service, deployment: Deployment) -> Iterator[Finding]:
    """What the orchestrator says of itself."""
    if service.health != 200:
        text = f"{deployment.api_url}/health answers {service.health}"
        yield broken("orchestrator", text, fix="no process is behind that address, or it has just ended: see its log")
    elif service.ready != 200:
        text = f"alive, but {deployment.api_url}/ready answers {service.ready}"
        fix = "it cannot reach table or queue, or cannot wake the GPU: the answer and the log say which"
        yield broken("orchestrator", text, fix=fix)
    else:
        yield fine("orchestrator", f"{deployment.api_url} is healthy and ready")
