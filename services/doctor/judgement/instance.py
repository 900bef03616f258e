"""The GPU instance: what may be done with it, what it costs just now, and what its adapter says."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from lib.gputask.gpu import InstanceHold, UpstreamHealth
from services.doctor.deployment import Deployment
from services.doctor.facts import Absent, Instance, Seen, Tasks, Unseen, Worker
from services.doctor.finding import Finding, broken, fine, span, warning

TAG: Final = ("Purpose", "GPU-ComfyUI")

# A boot takes 2-3 minutes; the adapter beats every 30 s and may be told to do so every 300.
_BOOT_S = 300
_SILENT_S = 300
# The Lambda takes a beat that is further ahead for no evidence.
_AHEAD_S = 300
# From the moment the rules say stop to the latest moment the schedule has seen to it.
_STOP_MARGIN_S = 300

_ADAPTER_LOG = "journalctl -u sqs-adapter -n 50"


def judge_instance(instance: Instance, deployment: Deployment, *, now: float) -> Iterator[Finding]:
    """State, tag, profile and metadata service."""
    yield _judge_state(instance, deployment, now)
    yield _judge_tag(instance, deployment)
    if instance.profile_arn:
        yield fine("instance profile", instance.profile_arn.rpartition("/")[2])
    else:
        fix = "run what `terraform output gpu_profile_command` prints"
        yield broken("instance profile", "none: the adapter may do nothing", fix=fix)
    yield _judge_metadata(instance, deployment)


def _judge_state(instance: Instance, deployment: Deployment, now: float) -> Finding:
    if instance.state in ("shutting-down", "terminated"):
        fix = "set gpu_instance_id (or let gpu_mode `new` make one) and `terraform apply`"
        return broken("instance", f"{deployment.instance_id} is {instance.state}", fix=fix)
    since = f" for {span(now - instance.launched_at)}" if instance.state == "running" else ""
    return fine("instance", f"{deployment.instance_id} is {instance.state}{since}")


def _judge_tag(instance: Instance, deployment: Deployment) -> Finding:
    name, value = TAG
    if instance.tags.get(name) == value:
        return fine("instance tag", f"{name}={value}")
    words = ("--resources", deployment.instance_id, "--tags", f"Key={name},Value={value}")
    text = f"{name} is {instance.tags.get(name) or 'not set'}, not {value}: it may be neither started nor stopped"
    return broken("instance tag", text, fix=deployment.aws("ec2", "create-tags", *words))


def _judge_metadata(instance: Instance, deployment: Deployment) -> Finding:
    if instance.needs_token and instance.hop_limit == 1:
        return fine("instance metadata", "IMDSv2 only, one hop")
    words = ("--instance-id", deployment.instance_id, "--http-tokens", "required", "--http-put-response-hop-limit", "1")
    fix = deployment.aws("ec2", "modify-instance-metadata-options", *words)
    ways = [] if instance.needs_token else ["without a token (IMDSv1)"]
    ways += [] if instance.hop_limit == 1 else [f"over {instance.hop_limit} hops"]
    text = f"answers {' and '.join(ways)}: an image's address may lead to the credentials"
    return warning("instance metadata", text, fix=fix)


def judge_cost(
    instance: Instance, worker: Seen[Worker], tasks: Seen[Tasks], deployment: Deployment, *, idle_s: float, now: float
) -> Iterator[Finding]:
    """Whether it runs for nothing: longer than the rules allow since the last launch, submission or claim."""
    if instance.state != "running" or isinstance(worker, Unseen) or not isinstance(tasks, Tasks):
        return
    claimed_at = worker.last_claim_at if isinstance(worker, Worker) else 0.0
    quiet_s = now - max(instance.launched_at, tasks.newest_at or 0.0, claimed_at)
    if quiet_s <= idle_s + _STOP_MARGIN_S:
        yield fine("instance cost", f"running, the last work or launch was {span(quiet_s)} ago")
        return
    text = f"runs for nothing: no task was created or claimed for {span(quiet_s)}, and nobody stopped it"
    fix = deployment.aws("ec2", "stop-instances", "--instance-ids", deployment.instance_id)
    yield broken("instance cost", text, fix=f"{fix}; then see what the function says")


def judge_hold(
    hold: Seen[InstanceHold], tasks: Seen[Tasks], deployment: Deployment, *, now: float
) -> Iterator[Finding]:
    """Rule C's: no start before its end."""
    if isinstance(hold, Unseen):
        return
    if isinstance(hold, Absent) or hold.until <= now:
        yield fine("hold", "none")
        return
    fix = deployment.aws("ec2", "start-instances", "--instance-ids", deployment.instance_id)
    text = f"not started for another {span(hold.until - now)}: {hold.reason or 'no reason given'}"
    waiting = isinstance(tasks, Tasks) and tasks.oldest_unfinished_at is not None
    mark = broken if waiting else warning
    yield mark("hold", f"{text}{', while tasks wait' if waiting else ''}", fix=f"repair the adapter, then: {fix}")


def judge_worker(worker: Seen[Worker], instance: Instance, deployment: Deployment, *, now: float) -> Iterator[Finding]:
    """The adapter's last beat, and the Unified API's health, against the time the instance has been up."""
    if isinstance(worker, Unseen):
        return
    if isinstance(worker, Absent):
        worker = Worker()
    if instance.state != "running":
        yield _judge_absence(worker, now)
        return
    yield _judge_beat(worker, instance, deployment, now)
    if worker.beat_at >= instance.launched_at:
        yield _judge_upstream(worker, instance, deployment, now)


def _judge_absence(worker: Worker, now: float) -> Finding:
    if worker.beat_at:
        return fine("adapter", f"last beat {span(now - worker.beat_at)} ago; the instance does not run")
    fix = "install it (docs/deploying.md) and start the instance once"
    return warning("adapter", "has never reported from this instance", fix=fix)


def _judge_beat(worker: Worker, instance: Instance, deployment: Deployment, now: float) -> Finding:
    up_s, silent_s = now - instance.launched_at, now - worker.beat_at
    fix = f"{_enter(deployment)}, then: {_ADAPTER_LOG}"
    if silent_s < -_AHEAD_S:
        text = f"its clock is {span(-silent_s)} ahead, so that its beats prove nothing"
        return broken("adapter", text, fix=f"{_enter(deployment)}, then: sudo timedatectl set-ntp true")
    if worker.beat_at < instance.launched_at:
        if up_s < _BOOT_S:
            return fine("adapter", f"booting for {span(up_s)}")
        return broken("adapter", f"no beat since the launch {span(up_s)} ago", fix=fix)
    if silent_s > _SILENT_S:
        return broken("adapter", f"last beat {span(silent_s)} ago, although the instance runs", fix=fix)
    return fine("adapter", f"last beat {span(silent_s)} ago")


def _judge_upstream(worker: Worker, instance: Instance, deployment: Deployment, now: float) -> Finding:
    if worker.upstream != UpstreamHealth.UNHEALTHY:
        return fine("upstream", worker.upstream or "not told")
    ok_at = max(worker.upstream_ok_at, instance.launched_at)
    if now - ok_at < _BOOT_S:
        return fine("upstream", f"not healthy for {span(now - ok_at)}, which a start may take")
    remark = f" ({worker.upstream_remark})" if worker.upstream_remark else ""
    text = f"the Unified API has not been healthy for {span(now - ok_at)}{remark}: no task is taken"
    fix = f"{_enter(deployment)}, then: journalctl -u comfyui-unified-api -n 50"
    return broken("upstream", text, fix=fix)


def _enter(deployment: Deployment) -> str:
    return deployment.aws("ssm", "start-session", "--target", deployment.instance_id)
