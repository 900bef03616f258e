"""A deployment and what is seen of it when all is well; tests change one thing each."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from lib.gputask.schema import STATUS_INDEX, STATUS_INDEX_ATTRIBUTES, STATUS_INDEX_KEY
from services.doctor.deployment import Deployment
from services.doctor.facts import (
    Absent,
    Alarm,
    Facts,
    Function,
    Grant,
    Identity,
    Index,
    Instance,
    Invocations,
    Metric,
    Queue,
    Rule,
    Service,
    Table,
    Tasks,
    Worker,
)
from services.doctor.judgement.function import ALARM_PRINCIPAL, HANDLER, RULE_PRINCIPAL
from services.doctor.judgement.idle_alarm import EXPRESSION, ROLES

NOW = 1_800_000_000.0
MINUTE = 60.0
HOUR = 3600.0

QUEUE_URL = "https://sqs.us-east-1.amazonaws.com/123456789012/gpu_tasks_queue"
DLQ_URL = "https://sqs.us-east-1.amazonaws.com/123456789012/gpu_tasks_dlq"
QUEUE_ARN = "arn:aws:sqs:us-east-1:123456789012:gpu_tasks_queue"
DLQ_ARN = "arn:aws:sqs:us-east-1:123456789012:gpu_tasks_dlq"
INSTANCE_ID = "i-0fedcba9876543210"
FUNCTION_ARN = "arn:aws:lambda:us-east-1:123456789012:function:shutdown-gpu-lambda"
ALARM_ARN = "arn:aws:cloudwatch:us-east-1:123456789012:alarm:QueueEmptyFor30Min"
RULE_ARN = "arn:aws:events:us-east-1:123456789012:rule/"
EVERY_MINUTE, STOPPED = "shutdown-gpu-lambda-every-minute", "shutdown-gpu-lambda-stopped"

VARIABLES = {
    "AWS_REGION": "us-east-1",
    "SQS_QUEUE_URL": QUEUE_URL,
    "SQS_DLQ_URL": DLQ_URL,
    "DYNAMODB_TABLE": "task_store",
    "GPU_INSTANCE_ID": INSTANCE_ID,
    "IDLE_ALARM_NAME": "QueueEmptyFor30Min",
    "SHUTDOWN_FUNCTION_NAME": "shutdown-gpu-lambda",
    "API_URL": "https://gpu.example.com",
}
DEPLOYMENT = Deployment.from_variables(VARIABLES)

IDENTITY = Identity("123456789012", "arn:aws:iam::123456789012:user/operator")
INDEX = Index(STATUS_INDEX_KEY, "INCLUDE", frozenset(STATUS_INDEX_ATTRIBUTES))
TABLE = Table(
    arn="arn:aws:dynamodb:us-east-1:123456789012:table/task_store",
    key=("task_id",),
    indexes={STATUS_INDEX: INDEX},
    is_protected=True,
)
QUEUE = Queue(
    arn=QUEUE_ARN,
    visibility_s=300,
    receive_wait_s=20,
    retention_s=345_600,
    is_encrypted=True,
    visible=0,
    dead_letter_arn=DLQ_ARN,
    max_receive_count=10,
)
DEAD_LETTERS = Queue(
    arn=DLQ_ARN,
    visibility_s=30,
    receive_wait_s=0,
    retention_s=1_209_600,
    is_encrypted=True,
    visible=0,
    redrive_permission="byQueue",
    redrive_sources=(QUEUE_ARN,),
)
METRICS = tuple(
    Metric(
        id=role,
        namespace=namespace,
        name=name,
        statistic=statistic,
        period_s=300,
        dimensions={"QueueName": "gpu_tasks_queue"} if namespace == "AWS/SQS" else {"InstanceId": INSTANCE_ID},
    )
    for (namespace, name, statistic), role in ROLES.items()
)
ALARM = Alarm(
    arn=ALARM_ARN,
    metrics=METRICS,
    expression=EXPRESSION,
    comparison="LessThanOrEqualToThreshold",
    threshold=0,
    evaluation_periods=6,
    datapoints_to_alarm=6,
    missing_data="notBreaching",
    has_actions_enabled=True,
    actions=(FUNCTION_ARN,),
    state="OK",
)
FUNCTION = Function(
    arn=FUNCTION_ARN,
    handler=HANDLER,
    state="Active",
    update="Successful",
    variables={
        "GPU_INSTANCE_ID": INSTANCE_ID,
        "DYNAMODB_TABLE": "task_store",
        "SQS_QUEUE_URL": QUEUE_URL,
        "IDLE_S": "1800",
    },
    modified_at=NOW - 24 * HOUR,
)
GRANTS = (
    Grant(ALARM_PRINCIPAL, ALARM_ARN, "123456789012"),
    Grant(RULE_PRINCIPAL, RULE_ARN + EVERY_MINUTE, None),
    Grant(RULE_PRINCIPAL, RULE_ARN + STOPPED, None),
)
PATTERN = {
    "source": ["aws.ec2"],
    "detail-type": ["EC2 Instance State-change Notification"],
    "detail": {"instance-id": [INSTANCE_ID], "state": ["stopped"]},
}
SCHEDULE = Rule(EVERY_MINUTE, RULE_ARN + EVERY_MINUTE, True, "rate(1 minute)", None)
STOP_EVENT = Rule(STOPPED, RULE_ARN + STOPPED, True, None, json.dumps(PATTERN))
INSTANCE = Instance(
    state="running",
    launched_at=NOW - 20 * MINUTE,
    tags={"Purpose": "GPU-ComfyUI"},
    profile_arn="arn:aws:iam::123456789012:instance-profile/gpu-adapter",
    needs_token=True,
    hop_limit=1,
)
WORKER = Worker(
    beat_at=NOW - 10, last_claim_at=NOW - 2 * MINUTE, upstream="busy", upstream_ok_at=NOW - 10, upstream_remark=""
)
TASKS = Tasks(oldest_unfinished_at=NOW - 3 * MINUTE, newest_at=NOW - MINUTE)

FACTS = Facts(
    now=NOW,
    skew_s=0.3,
    identity=IDENTITY,
    table=TABLE,
    ttl="expires_at",
    recovery=True,
    queue=QUEUE,
    dead_letters=DEAD_LETTERS,
    alarm=ALARM,
    function=FUNCTION,
    concurrency=None,
    grants=GRANTS,
    rules=(SCHEDULE, STOP_EVENT),
    invocations=Invocations(15, 0, 900),
    instance=INSTANCE,
    hold=Absent(),
    worker=WORKER,
    tasks=TASKS,
    service=Service(health=200, ready=200),
)


def facts(**changes: Any) -> Facts:
    """All is well but for `changes`; a mapping as a change changes fields of what is there."""
    whole = {
        name: replace(getattr(FACTS, name), **change) if isinstance(change, dict) else change
        for name, change in changes.items()
    }
    return replace(FACTS, **whole)
