"""When the adapter receives, and when it submits."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from lib.asyncaws.session import AwsSession
from lib.asyncaws.table import Table
from lib.daemon.notification import Notifier
from lib.gputask.gpu import UpstreamHealth
from lib.gputask.kinds import QWEN_IMAGE_EDIT
from lib.gputask.record import Status, TaskRecord
from lib.gputask.schema import TABLE_KEY
from services.adapter.comfyui import ComfyUi
from services.adapter.gate import UpstreamGate
from services.adapter.restart import Restart
from services.adapter.silence import Silence
from services.adapter.suspicion import Suspicion
from services.adapter.upstream import UnifiedApi as UnifiedApiClient
from services.adapter.upstream import open_session
from services.adapter.worker import Worker
from tests.adapter.comfyui import comfyui
from tests.adapter.unified_api import UnifiedApi, answering, hang
from tests.adapter.workplace import INSTANCE_ID, QUICK, patient, trustful

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
    return Watched(open_gate(client, worker, stop), worker, stop)


def open_gate(
    api: UnifiedApiClient, worker: Worker, stop: asyncio.Event, *, interval_s: float = 0.1, **parts: Any
) -> UpstreamGate:
    parts.setdefault("silence", patient())
    parts.setdefault("suspicion", trustful())
    return UpstreamGate(api=api, worker=worker, stop=stop, interval_s=interval_s, **parts)


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
    gate = open_gate(client, watched.worker, watched.stop, interval_s=1000)
    async with asyncio.timeout(10):
        assert not await gate.is_open()


async def test_whatever_a_look_raises_the_gate_is_shut_and_does_not_raise(watched: Watched) -> None:
    """It is asked by a slot of the pool: the others' jobs would end with it."""

    class Broken(UnifiedApiClient):
        async def health(self, timeout_s: float) -> UpstreamHealth:
            raise LookupError("unknown encoding: hex")

    async with aiohttp.ClientSession() as session:
        gate = open_gate(Broken(session), watched.worker, watched.stop)
        assert not await gate.is_open()
        assert not await gate.is_still_open()


async def test_a_job_that_has_just_ended_well_vouches_for_the_upstream(api: UnifiedApi, watched: Watched) -> None:
    watched.gate.note_success()
    assert await watched.gate.is_open()
    assert await watched.gate.is_still_open()
    assert not api.healths


async def test_a_failure_after_it_takes_the_voucher_back(api: UnifiedApi, watched: Watched) -> None:
    watched.gate.note_success()
    watched.gate.doubts("out of memory", "{}")
    assert await watched.gate.is_open()
    assert api.healths == 1


async def test_a_row_of_failures_shuts_it_until_the_restart_and_then_one_job_is_tried(
    api: UnifiedApi, client: UnifiedApiClient, watched: Watched, tmp_path: Path
) -> None:
    suspicion = Suspicion(restart=Restart(tmp_path / "restart"), clock=time.monotonic)
    gate = open_gate(client, watched.worker, watched.stop, suspicion=suspicion)
    for number in range(3):
        assert await gate.is_open()
        gate.doubts(f"CUDA out of memory: {number} GiB", f"request {number}")
    assert (tmp_path / "restart").exists()
    assert not await gate.is_open()
    assert not await gate.is_still_open()
    assert watched.upstream is UpstreamHealth.UNHEALTHY
    assert "its restart was asked for" in watched.worker.status()

    api.on_health = UNHEALTHY
    assert not await gate.is_open()
    api.on_health = api.say_health
    assert await gate.is_open()
    with watched.worker.working_on(TASK):
        assert not await gate.is_open()
        assert not await gate.is_still_open()
    gate.note_success()
    with watched.worker.working_on(TASK):
        assert await gate.is_still_open()


async def test_failures_that_tell_of_their_input_are_no_row(watched: Watched) -> None:
    """Clients name pictures that do not exist; the upstream is well."""
    doubts = [watched.gate.doubts("HTTP Error 404: Not Found", f"request {number}") for number in range(4)]
    assert not any(doubts)
    assert await watched.gate.is_open()


async def test_a_silent_upstream_whose_comfyui_is_idle_hangs(
    api: UnifiedApi, client: UnifiedApiClient, watched: Watched, tmp_path: Path
) -> None:
    """Nobody needs to wait for the longest job to know it."""
    silence = Silence(limit_s=1e9, idle_limit_s=0.0, restart=Restart(tmp_path / "restart"), clock=time.monotonic)
    api.on_health = hang
    async with comfyui() as core, open_session(core.url) as session:
        gate = open_gate(client, watched.worker, watched.stop, silence=silence, comfyui=ComfyUi(session))
        core.running.append([1])
        assert not await gate.is_open()
        assert not (tmp_path / "restart").exists()
        core.running.clear()
        assert not await gate.is_open()
        assert (tmp_path / "restart").exists()
