"""The task queue and its dead-letter queue, against each other and against the settings of those who use them."""

from __future__ import annotations

import json
from collections.abc import Iterator

from services.doctor.deployment import Deployment, QueueAddress
from services.doctor.facts import Queue
from services.doctor.finding import Finding, broken, fine, span, warning

_LONG_POLL_S = 20
_LONGEST_RETENTION_S = 1_209_600
# The adapter takes a task three times at most; messages that it gives back untouched count as well.
_FEWEST_RECEIVES = 5
_STANDARD = "make a standard queue and name it, here, to the orchestrator, to the adapter and to the Lambda"


def judge_queue(queue: Queue, deployment: Deployment) -> Iterator[Finding]:
    """What can be judged of the task queue alone."""
    if _is_fifo(deployment.queue):
        yield broken("queue", f"{deployment.queue.name} is a FIFO queue: it refuses every task", fix=_STANDARD)
    else:
        yield fine("queue", f"{deployment.queue.name}, {queue.visible} visible")
    yield _judge_visibility(queue, deployment)
    if queue.receive_wait_s >= _LONG_POLL_S:
        yield fine("queue long poll", f"{queue.receive_wait_s:g} s")
    else:
        fix = _set(deployment, deployment.queue, "ReceiveMessageWaitTimeSeconds", _LONG_POLL_S)
        text = f"{queue.receive_wait_s:g} s: a receive that does not say {_LONG_POLL_S} itself comes back empty at once"
        yield warning("queue long poll", text, fix=fix)
    yield _judge_encryption("queue encryption", queue, deployment, deployment.queue)


def _is_fifo(address: QueueAddress) -> bool:
    return address.name.endswith(".fifo")


def _judge_visibility(queue: Queue, deployment: Deployment) -> Finding:
    wanted_s, heartbeat_s = deployment.visibility_timeout_s, deployment.heartbeat_s
    fix = _set(deployment, deployment.queue, "VisibilityTimeout", round(wanted_s))
    if heartbeat_s >= wanted_s / 2:
        text = f"the adapter renews every {heartbeat_s:g} s what holds for {wanted_s:g} s: none may be missed"
        return broken("queue visibility", text, fix="make HEARTBEAT_S less than half of VISIBILITY_TIMEOUT_S")
    if heartbeat_s >= queue.visibility_s / 2:
        text = f"{queue.visibility_s:g} s, not over twice the heartbeat of {heartbeat_s:g} s: tasks are delivered twice"
        return broken("queue visibility", text, fix=fix)
    if queue.visibility_s != wanted_s:
        text = f"{queue.visibility_s:g} s, but the adapter's VISIBILITY_TIMEOUT_S is {wanted_s:g}"
        return warning("queue visibility", text, fix=fix)
    return fine("queue visibility", f"{queue.visibility_s:g} s, renewed every {heartbeat_s:g} s")


def judge_retention(queue: Queue, deployment: Deployment) -> Iterator[Finding]:
    """A message must outlive its task."""
    if queue.retention_s > deployment.task_max_age_s:
        text = f"{span(queue.retention_s)}, a task lives {span(deployment.task_max_age_s)} at most"
        yield fine("queue retention", text)
        return
    text = f"messages are forgotten after {span(queue.retention_s)}, tasks live {span(deployment.task_max_age_s)}"
    fix = _set(deployment, deployment.queue, "MessageRetentionPeriod", _retention_s(deployment))
    yield broken("queue retention", text, fix=fix)


def judge_redrive(queue: Queue, dead_letters: Queue, deployment: Deployment) -> Iterator[Finding]:
    """Whether what nobody can process ends where the orchestrator buries it."""
    policy = {"deadLetterTargetArn": dead_letters.arn, "maxReceiveCount": "10"}
    fix = _set(deployment, deployment.queue, "RedrivePolicy", json.dumps(policy))
    if queue.dead_letter_arn is None:
        text = "none: a message that nobody can process is delivered again until it expires"
        yield broken("queue redrive", text, fix=fix)
    elif queue.dead_letter_arn != dead_letters.arn:
        text = f"to {queue.dead_letter_arn}, but the orchestrator buries {dead_letters.arn}"
        yield broken("queue redrive", text, fix=fix)
    elif queue.max_receive_count < _FEWEST_RECEIVES:
        text = f"after {queue.max_receive_count} receives, below {_FEWEST_RECEIVES}: before three attempts are used up"
        yield broken("queue redrive", text, fix=fix)
    else:
        yield fine("queue redrive", f"to {deployment.dead_letters.name} after {queue.max_receive_count} receives")
    yield _judge_permission(queue, dead_letters, deployment)
    yield _judge_dead_retention(queue, dead_letters, deployment)


def _judge_permission(queue: Queue, dead_letters: Queue, deployment: Deployment) -> Finding:
    policy = {"redrivePermission": "byQueue", "sourceQueueArns": [queue.arn]}
    fix = _set(deployment, deployment.dead_letters, "RedriveAllowPolicy", json.dumps(policy))
    if dead_letters.redrive_permission == "allowAll":
        return warning("redrive permission", "any queue may bury its messages here", fix=fix)
    if queue.arn not in dead_letters.redrive_sources:
        text = f"{deployment.dead_letters.name} takes nothing from {deployment.queue.name}"
        return broken("redrive permission", text, fix=fix)
    return fine("redrive permission", f"{deployment.queue.name} may")


def _judge_dead_retention(queue: Queue, dead_letters: Queue, deployment: Deployment) -> Finding:
    """A dead letter of a standard queue keeps the time it was first sent, so its age counts on.

    https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-dead-letter-queues.html
    """
    kept = f"{span(dead_letters.retention_s)} from the first send, the queue's own {span(queue.retention_s)}"
    if dead_letters.retention_s > queue.retention_s:
        return fine("dead letter retention", kept)
    if queue.retention_s < _LONGEST_RETENTION_S:
        fix = _set(deployment, deployment.dead_letters, "MessageRetentionPeriod", _LONGEST_RETENTION_S)
    else:
        fix = _set(deployment, deployment.queue, "MessageRetentionPeriod", _retention_s(deployment))
    return broken("dead letter retention", f"{kept}: a dead letter may vanish unseen", fix=fix)


def _retention_s(deployment: Deployment) -> int:
    """For the queue: well beyond any task, and a day below what a dead-letter queue can have."""
    return min(round(4 * deployment.task_max_age_s), _LONGEST_RETENTION_S - 86_400)


def judge_dead_letters(dead_letters: Queue, deployment: Deployment) -> Iterator[Finding]:
    """The dead-letter queue alone."""
    if _is_fifo(deployment.dead_letters):
        yield broken("dead letters", f"{deployment.dead_letters.name} is a FIFO queue", fix=_STANDARD)
    elif dead_letters.visible:
        text = f"{dead_letters.visible} in {deployment.dead_letters.name}; their tasks are not failed yet"
        fix = "the orchestrator empties it within minutes: if they stay, it does not run; see its log"
        yield broken("dead letters", text, fix=fix)
    else:
        yield fine("dead letters", f"{deployment.dead_letters.name} is empty")
    yield _judge_encryption("dead letter encryption", dead_letters, deployment, deployment.dead_letters)


def _judge_encryption(check: str, queue: Queue, deployment: Deployment, address: QueueAddress) -> Finding:
    if queue.is_encrypted:
        return fine(check, "on")
    return warning(check, "off", fix=_set(deployment, address, "SqsManagedSseEnabled", "true"))


def _set(deployment: Deployment, address: QueueAddress, name: str, value: object) -> str:
    attributes = json.dumps({name: str(value)})
    return deployment.aws("sqs", "set-queue-attributes", "--queue-url", address.url, "--attributes", attributes)
