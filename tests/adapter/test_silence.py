"""When silence is business, when it is a hang, and who hears of it."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from lib.asyncaws.session import AwsSession
from lib.asyncaws.table import Table
from lib.daemon.notification import Notifier
from lib.gputask.gpu import UpstreamHealth
from lib.gputask.schema import TABLE_KEY
from services.adapter.gate import UpstreamGate
from services.adapter.restart import Restart
from services.adapter.silence import Silence
from services.adapter.upstream import UnifiedApi as UnifiedApiClient
from services.adapter.worker import Worker
from tests.adapter.unified_api import UnifiedApi, hang
from tests.adapter.workplace import INSTANCE_ID, QUICK, trustful

LIMIT_S = 1500.0
IDLE_LIMIT_S = 90.0


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def restart_file(tmp_path: Path) -> Path:
    return tmp_path / "restart"


@pytest.fixture
def silence(clock: Clock, restart_file: Path) -> Silence:
    return Silence(limit_s=LIMIT_S, idle_limit_s=IDLE_LIMIT_S, restart=Restart(restart_file), clock=clock)


def test_silence_within_the_longest_job_is_business(silence: Silence, clock: Clock, restart_file: Path) -> None:
    clock.now = LIMIT_S - 1
    silence.goes_on()
    assert not restart_file.exists()
    assert silence.remark == ""


def test_silence_beyond_it_asks_for_a_restart(silence: Silence, clock: Clock, restart_file: Path) -> None:
    clock.now = LIMIT_S
    silence.goes_on()
    assert restart_file.exists()
    assert "1500 s" in silence.remark
    assert "restart was asked for" in silence.remark


def test_it_is_asked_again_only_after_the_same_time(silence: Silence, clock: Clock, restart_file: Path) -> None:
    clock.now = LIMIT_S
    silence.goes_on()
    restart_file.unlink()
    clock.now = 2 * LIMIT_S - 1
    silence.goes_on()
    assert not restart_file.exists()
    clock.now = 2 * LIMIT_S
    silence.goes_on()
    assert restart_file.exists()


def test_an_answer_of_any_kind_ends_it(silence: Silence, clock: Clock, restart_file: Path) -> None:
    clock.now = LIMIT_S
    silence.goes_on()
    restart_file.unlink()
    silence.end()
    assert silence.remark == ""
    clock.now = 2 * LIMIT_S - 1
    silence.goes_on()
    assert not restart_file.exists()


def test_silence_while_comfyui_has_nothing_to_do_is_a_hang_far_sooner(
    silence: Silence, clock: Clock, restart_file: Path
) -> None:
    silence.goes_on(comfyui_is_idle=True)
    clock.now = IDLE_LIMIT_S - 1
    silence.goes_on(comfyui_is_idle=True)
    assert not restart_file.exists()
    clock.now = IDLE_LIMIT_S
    silence.goes_on(comfyui_is_idle=True)
    assert restart_file.exists()
    assert "while ComfyUI has nothing to do; its restart was asked for" in silence.remark


def test_a_comfyui_at_work_begins_that_time_anew(silence: Silence, clock: Clock, restart_file: Path) -> None:
    silence.goes_on(comfyui_is_idle=True)
    clock.now = IDLE_LIMIT_S - 1
    silence.goes_on(comfyui_is_idle=False)
    clock.now = IDLE_LIMIT_S
    silence.goes_on(comfyui_is_idle=True)
    assert not restart_file.exists()


def test_without_a_hook_a_person_is_told_what_to_do(clock: Clock) -> None:
    silence = Silence(limit_s=LIMIT_S, idle_limit_s=IDLE_LIMIT_S, restart=Restart(None), clock=clock)
    clock.now = LIMIT_S
    silence.goes_on()
    assert "UPSTREAM_RESTART_FILE" in silence.remark


def test_a_hook_that_cannot_be_touched_does_not_stop_the_adapter(clock: Clock, tmp_path: Path) -> None:
    restart = Restart(tmp_path / "missing" / "restart")
    silence = Silence(limit_s=LIMIT_S, idle_limit_s=IDLE_LIMIT_S, restart=restart, clock=clock)
    clock.now = LIMIT_S
    silence.goes_on()
    assert silence.remark


async def test_a_hung_upstream_is_told_to_systemd_and_the_table_and_nothing_is_received(
    api: UnifiedApi, client: UnifiedApiClient, aws: AwsSession, silence: Silence, clock: Clock
) -> None:
    table = Table(await aws.dynamodb(QUICK), name="none", key=TABLE_KEY, policy=QUICK)
    worker = Worker(instance_id=INSTANCE_ID, table=table, notifier=Notifier(None), clock=time.time, beat_s=1)
    gate = UpstreamGate(
        api=client, worker=worker, silence=silence, suspicion=trustful(), stop=asyncio.Event(), interval_s=0.1
    )
    assert await gate.is_open()
    api.on_health = hang
    clock.now = LIMIT_S + 1
    assert not await gate.is_open()
    assert worker.record().upstream is UpstreamHealth.UNHEALTHY
    assert "restart was asked for" in worker.record().upstream_remark
    assert worker.status().startswith("receiving nothing: the Unified API is silent for 1501 s")
    api.on_health = api.say_health
    assert await gate.is_open()
    assert worker.record().upstream_remark == ""
