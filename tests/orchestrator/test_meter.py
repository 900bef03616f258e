"""What the orchestrator measures, by the things that happen to it."""

from __future__ import annotations

import asyncio
import json
import signal
from pathlib import Path
from typing import Any

import pytest

from lib.asyncaws.metrics import Metrics
from lib.asyncaws.queue import Queue
from lib.asyncaws.session import AwsSession, CallPolicy
from lib.asyncaws.table import Table
from lib.gputask.kinds import CAMERA_ANGLE
from lib.gputask.message import TaskMessage
from lib.gputask.record import ErrorCode
from lib.gputask.schema import TABLE_KEY
from lib.gputask.store import TaskStore
from services.devstack.emulator.faults import Mode
from services.orchestrator.errors import Unavailable
from services.orchestrator.janitor import Janitor
from services.orchestrator.meter import Meter
from services.orchestrator.quota import Quota
from services.orchestrator.submission import Submission
from services.orchestrator.tidying import Limits
from services.orchestrator.waker import Waker
from services.orchestrator.walk import Walk
from services.orchestrator.withdrawal import Withdrawals
from tests.asyncaws.readings import readings
from tests.orchestrator.aws_world import BODY, AwsWorld, Gpu, eventually
from tests.orchestrator.http_world import CAMERA_ANGLE_BODY, CAMERA_ANGLE_PATH, World
from tests.orchestrator.orchestrator_process import Orchestrator, site

_PATIENT = CallPolicy(total_s=20.0, read_timeout_s=10.0)


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


async def submission_of(aws: AwsSession, world: AwsWorld, metrics: Metrics) -> Submission:
    table = Table(await aws.dynamodb(_PATIENT), name=world.table_name, key=TABLE_KEY, policy=_PATIENT)
    store = TaskStore(table, world.clock)
    return Submission(
        store=store,
        withdrawals=Withdrawals(store),
        queue=Queue(await aws.sqs(_PATIENT), url=world.queue_url, policy=_PATIENT),
        nudge=lambda: None,
        retention_s=3600,
        quota=Quota(1000),
        budget_s=10,
        take_back_s=10,
        meter=Meter(metrics),
    )


def janitor_of(world: AwsWorld, metrics: Metrics) -> Janitor:
    return Janitor(
        store=world.tasks,
        walk=Walk(world.tasks),
        quota=Quota(1000),
        queue=world.queue,
        dead_letters=world.dead_letters,
        limits=Limits(resend_after_s=600, max_age_s=86_400),
        interval_s=60,
        meter=Meter(metrics),
    )


async def submit(submission: Submission, *, key: str | None = None) -> None:
    await submission.submit(kind=CAMERA_ANGLE, body=BODY, client_id="web", idempotency_key=key, request_id="request-1")


async def test_a_new_job_counts_and_its_repetition_does_not(aws: AwsSession, world: AwsWorld, metrics: Metrics) -> None:
    submission = await submission_of(aws, world, metrics)
    await submit(submission, key="k")
    await submit(submission, key="k")
    await submit(submission)
    assert readings(metrics) == {"JobsAccepted": {2: 1}}


async def test_what_was_not_promised_does_not_count(aws: AwsSession, world: AwsWorld, metrics: Metrics) -> None:
    submission = await submission_of(aws, world, metrics)
    await world.fail("sqs", Mode.ERROR, "SendMessage")
    with pytest.raises(Unavailable):
        await submit(submission)
    assert readings(metrics) == {}


async def test_the_time_to_202_is_that_of_whole_answers_to_submissions_only(metrics: Metrics) -> None:
    async with World(meter=Meter(metrics)) as world:
        for _ in range(3):
            assert (await world.client.post(CAMERA_ANGLE_PATH, json=CAMERA_ANGLE_BODY)).status_code == 202
        await world.client.post(CAMERA_ANGLE_PATH, json={})
        await world.client.get("/health")
    found = readings(metrics)
    assert found.keys() == {"TimeTo202"}
    assert sum(found["TimeTo202"].values()) == 3
    assert all(0 < milliseconds < 1000 for milliseconds in found["TimeTo202"])


async def test_a_job_that_is_given_up_counts_by_its_cause(world: AwsWorld, metrics: Metrics) -> None:
    janitor = janitor_of(world, metrics)
    buried = await world.add_task()
    poison = json.dumps({"task_id": buried.task_id})
    await world.dead_letters.send(poison, {})
    await janitor.drain_dead_letters(asyncio.Event())
    await world.add_task()
    world.clock.advance(86_400)
    await janitor.tidy(asyncio.Event())
    assert readings(metrics) == {
        "JobsFailed": {2: 1},
        "JobsFailed Cause=dead_letter": {1: 1},
        "JobsFailed Cause=expired": {1: 1},
    }


async def test_a_job_that_somebody_else_has_ended_counts_there(world: AwsWorld, metrics: Metrics) -> None:
    task = await world.add_task()
    await world.tasks.give_up(task.task_id, code=ErrorCode.EXPIRED, message="by another replica")
    await world.dead_letters.send(TaskMessage(task.task_id, task.job_type, task.request_body).to_json(), {})
    await janitor_of(world, metrics).drain_dead_letters(asyncio.Event())
    assert readings(metrics) == {}


async def test_a_wake_is_timed_from_its_order_until_the_gpu_is_seen_running(
    world: AwsWorld, gpu: Gpu, metrics: Metrics
) -> None:
    await world.add_task()
    found: dict[str, dict[float, int]] = {}
    states: set[float] = set()

    async def is_timed() -> bool:
        world.clock.advance(10)
        news = readings(metrics)
        states.update(news.get("GpuState", {}))
        found.update(news)
        return "WakeTime" in found and states == {0, 1}

    waker = Waker(
        store=world.tasks,
        table=world.table,
        instance=gpu.instance,
        interval_s=0.05,
        spacing_s=0.05,
        meter=Meter(metrics),
    )
    stop = asyncio.Event()
    looking = asyncio.create_task(waker.run(stop))
    await eventually(is_timed)
    stop.set()
    await looking
    ((wake_s, times),) = found["WakeTime"].items()
    assert wake_s >= 10
    assert times == 1


async def test_a_gpu_that_runs_already_was_not_woken(world: AwsWorld, gpu: Gpu, metrics: Metrics) -> None:
    await gpu.start()
    await world.add_task()
    waker = Waker(store=world.tasks, table=world.table, instance=gpu.instance, interval_s=300, meter=Meter(metrics))
    stop = asyncio.Event()
    calls = await world.calls()
    looking = asyncio.create_task(waker.run(stop))
    await calls.reach("ec2", "DescribeInstances", 1)
    stop.set()
    await looking
    assert readings(metrics) == {"GpuState": {1: 1}, "GpuBlocked": {0: 1}}


def lines_of(orchestrator: Orchestrator) -> list[dict[str, Any]]:
    """Every line that the process wrote is JSON, events and metrics."""
    return [json.loads(line) for line in orchestrator.process.log_path.read_text().splitlines()]


async def test_the_process_writes_its_metrics_as_lines_of_their_own(world: AwsWorld, gpu: Gpu, tmp_path: Path) -> None:
    async with site(world, gpu, tmp_path) as here, here.running(METRICS="log", METRICS_NAMESPACE="ns") as orchestrator:
        await orchestrator.submit()
        orchestrator.process.send(signal.SIGTERM)
        assert await orchestrator.ended() == 0
        lines = [line for line in lines_of(orchestrator) if "_aws" in line]
        published = {
            metric["Name"]: line[metric["Name"]]
            for line in lines
            for directive in line["_aws"]["CloudWatchMetrics"]
            for metric in directive["Metrics"]
        }
        assert published["JobsAccepted"] == 1
        assert published["TimeTo202"] > 0
        assert {d["Namespace"] for line in lines for d in line["_aws"]["CloudWatchMetrics"]} == {"ns"}
        assert all("event" not in line for line in lines)


async def test_unless_asked_the_process_writes_none(world: AwsWorld, gpu: Gpu, tmp_path: Path) -> None:
    async with site(world, gpu, tmp_path) as here, here.running() as orchestrator:
        await orchestrator.submit()
        orchestrator.process.send(signal.SIGTERM)
        assert await orchestrator.ended() == 0
        assert [line for line in lines_of(orchestrator) if "event" not in line] == []


async def test_a_cloudwatch_that_hangs_delays_no_answer_and_a_stop_by_seconds(
    world: AwsWorld, gpu: Gpu, tmp_path: Path
) -> None:
    await world.fail("monitoring", Mode.HANG)
    async with site(world, gpu, tmp_path) as here, here.running(METRICS="cloudwatch") as orchestrator:
        await orchestrator.submit()
        orchestrator.process.send(signal.SIGTERM)
        assert await orchestrator.ended() == 0
        (line,) = orchestrator.events("metrics.not_published")
        assert line["level"] == "warning"
