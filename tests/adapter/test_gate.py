"""When the adapter receives, and when it submits."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

import pytest

from lib.asyncaws.session import AwsSession
from lib.asyncaws.table import Table
from lib.daemon.notification import Notifier
from lib.gputask.gpu import UpstreamHealth
from lib.gputask.kinds import QWEN_IMAGE_EDIT
from lib.gputask.record import Status, TaskRecord
from lib.gputask.schema import TABLE_KEY
from services.adapter.gate import UpstreamGate
from services.adapter.upstream import UnifiedApi as UnifiedApiClient
from services.adapter.worker import Worker
from tests.adapter.unified_api import UnifiedApi, answering, hang
from tests.adapter.workplace import INSTANCE_ID, QUICK, patient

TASK = TaskRecord(
    task_id="task-1", status=Status.PROCESSING, job_type=QWEN_IMAGE_EDIT.api_path, created_at=0, updated_at=0
)
UNHEALTHY = answering(200, {"status": "healthy", "comfyui_status": "unhealthy"})


@dataclass
class Watched:
    """A gate, and the worker it informs."""

    gate: UpstreamGate
    worker: Worker
    stop: asyncio.Event

    @property
    def upstream(self) -> UpstreamHealth:
        return self.worker.record().upstream


@pytest.fixture
async def watched(aws: AwsSession, client: UnifiedApiClient) -> Watched:
    table = Table(await aws.dynamodb(QUICK), name="none", key=TABLE_KEY, policy=QUICK)
    worker = Worker(instance_id=INSTANCE_ID, table=table, notifier=Notifier(None), clock=time.time, beat_s=1)
    stop = asyncio.Event()
    return Watched(UpstreamGate(api=client, worker=worker, silence=patient(), stop=stop, interval_s=0.1), worker, stop)


async def test_it_is_open_while_comfyui_is_healthy(api: UnifiedApi, watched: Watched) -> None:
    assert await watched.gate.is_open()
    assert await watched.gate.is_still_open()
    assert watched.upstream is UpstreamHealth.HEALTHY
    assert watched.worker.record().upstream_ok_at is not None


async def test_it_is_shut_while_comfyui_is_not_healthy(api: UnifiedApi, watched: Watched) -> None:
    api.on_health = UNHEALTHY
    assert not await watched.gate.is_open()
    assert not await watched.gate.is_still_open()
    assert watched.upstream is UpstreamHealth.UNHEALTHY
    assert watched.worker.record().upstream_ok_at is None


async def test_it_is_shut_while_nobody_listens(api: UnifiedApi, watched: Watched) -> None:
    await api.stop()
    assert not await watched.gate.is_open()
    assert not await watched.gate.is_still_open()


async def test_silence_without_work_shuts_it(api: UnifiedApi, watched: Watched) -> None:
    """The Unified API hangs, or works for somebody we do not know."""
    api.on_health = hang
    assert not await watched.gate.is_open()
    assert not await watched.gate.is_still_open()
    assert watched.upstream is UpstreamHealth.UNHEALTHY


async def test_silence_over_a_job_is_business(api: UnifiedApi, watched: Watched) -> None:
    api.on_health = hang
    with watched.worker.working_on(TASK):
        assert not await watched.gate.is_open()
        assert await watched.gate.is_still_open()
        assert watched.upstream is UpstreamHealth.BUSY


async def test_it_opens_again_when_comfyui_is_back(api: UnifiedApi, watched: Watched) -> None:
    api.on_health = UNHEALTHY
    assert not await watched.gate.is_open()
    api.on_health = api.say_health
    assert await watched.gate.is_open()
    assert watched.upstream is UpstreamHealth.HEALTHY


async def test_after_a_deadline_the_upstream_is_unhealthy_until_it_answers(api: UnifiedApi, watched: Watched) -> None:
    with watched.worker.working_on(TASK):
        api.on_health = hang
        await watched.gate.is_open()
    assert not await watched.gate.is_open()
    assert watched.upstream is UpstreamHealth.UNHEALTHY
    api.on_health = api.say_health
    assert await watched.gate.is_open()


async def test_a_stop_does_not_wait_at_a_shut_gate(api: UnifiedApi, client: UnifiedApiClient, watched: Watched) -> None:
    api.on_health = UNHEALTHY
    watched.stop.set()
    gate = UpstreamGate(api=client, worker=watched.worker, silence=patient(), stop=watched.stop, interval_s=1000)
    async with asyncio.timeout(10):
        assert not await gate.is_open()
