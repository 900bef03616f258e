"""What the adapter measures, by the things that happen to it."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from lib.asyncaws.metrics import Metrics
from lib.daemon.notification import Notifier
from lib.gputask.gpu import UpstreamHealth
from lib.gputask.record import Status
from services.adapter.meter import Meter
from services.adapter.upstream import UnifiedApi as UnifiedApiClient
from services.adapter.worker import Worker
from tests.adapter.adapter_process import AdapterProcess, Employer
from tests.adapter.unified_api import UnifiedApi, answering
from tests.adapter.waiting import until
from tests.adapter.wire import Fate, Wire
from tests.adapter.workplace import INSTANCE_ID, Adapter, Workplace, open_adapter
from tests.asyncaws.readings import readings

OpenAdapter = Callable[..., Adapter]
JUST_NOW_S = 15.0


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def hire(place: Workplace, client: UnifiedApiClient, metrics: Metrics) -> OpenAdapter:
    return partial(open_adapter, place, client, meter=Meter(metrics))


async def test_a_completed_job_is_counted_and_timed(
    api: UnifiedApi, place: Workplace, hire: OpenAdapter, metrics: Metrics
) -> None:
    api.ends_at_once = True
    await place.submit(created_at=round(time.time() - 100, 3))
    await hire().take_next()
    found = readings(metrics)
    assert {name: found.pop(name) for name in ("JobsClaimed", "JobsCompleted")} == {
        "JobsClaimed": {1: 1},
        "JobsCompleted": {1: 1},
    }
    spans = {name: only_value(values) for name, values in found.items()}
    assert spans == {
        "WaitTime": pytest.approx(100 + JUST_NOW_S / 2, abs=JUST_NOW_S / 2 + 1),
        "RunTime": pytest.approx(JUST_NOW_S / 2, abs=JUST_NOW_S / 2),
        "ResultTime": pytest.approx(100 + JUST_NOW_S / 2, abs=JUST_NOW_S / 2 + 1),
    }
    assert spans["WaitTime"] <= spans["ResultTime"]


async def test_a_failed_job_is_counted_in_all_and_by_its_cause(
    api: UnifiedApi, place: Workplace, hire: OpenAdapter, metrics: Metrics
) -> None:
    api.on_submit = answering(422, {"detail": "no such sampler"})
    await place.submit()
    await hire().take_next()
    found = readings(metrics)
    assert found["JobsFailed"] == found["JobsFailed Cause=upstream_rejected"] == {1: 1}
    assert found.keys() == {"JobsClaimed", "WaitTime", "RunTime", "JobsFailed", "JobsFailed Cause=upstream_rejected"}


async def test_an_attempt_that_is_given_back_is_no_outcome_and_the_next_no_wait(
    api: UnifiedApi, place: Workplace, hire: OpenAdapter, metrics: Metrics
) -> None:
    api.on_look = answering(404, {"detail": "Job not found"})
    adapter = hire(max_attempts=2)
    task_id = await place.submit()
    await adapter.take_next()
    assert readings(metrics).keys() == {"JobsClaimed", "WaitTime"}
    await adapter.take_next()
    assert readings(metrics).keys() == {"JobsClaimed"}
    await adapter.take_next()
    assert await place.status(task_id) is Status.FAILED
    assert readings(metrics) == {"JobsFailed": {1: 1}, "JobsFailed Cause=attempts_exhausted": {1: 1}}


async def test_a_result_that_is_not_ours_to_publish_does_not_count(
    api: UnifiedApi, place: Workplace, hire: OpenAdapter, metrics: Metrics, wire: Wire
) -> None:
    """The attempt was taken over while it ran, so its result is refused."""
    api.ends_at_once = True
    await place.submit()
    held = wire.order("UpdateItem", Fate.UNAVAILABLE, part="result_s3_uri", times=1)
    adapter = hire(heartbeat_s=29)
    task_ids = [call.task_id for call in wire.calls if call.operation == "PutItem"]

    async def take_over() -> bool:
        if held.met.is_set():
            await place.overwrite(str(task_ids[-1]), attempt=7, worker="another")
        return held.met.is_set()

    working = asyncio.create_task(adapter.take_next())
    await until(take_over)
    await working
    assert "JobsCompleted" not in readings(metrics)


async def test_a_clock_that_is_behind_makes_no_negative_time(
    api: UnifiedApi, place: Workplace, hire: OpenAdapter, metrics: Metrics
) -> None:
    api.ends_at_once = True
    await place.submit(created_at=round(time.time() + 1000, 3))
    await hire().take_next()
    assert readings(metrics)["WaitTime"] == {0: 1}


def test_a_boot_is_timed_until_the_upstream_is_healthy_for_the_first_time(place: Workplace, metrics: Metrics) -> None:
    now = 1000.0
    worker = Worker(
        instance_id=INSTANCE_ID,
        table=place.table,
        notifier=Notifier(None),
        clock=lambda: now,
        beat_s=1,
        meter=Meter(metrics),
    )
    now = 1090.0
    worker.note_upstream(UpstreamHealth.UNHEALTHY)
    now = 1120.0
    worker.note_upstream(UpstreamHealth.HEALTHY)
    now = 2000.0
    worker.note_upstream(UpstreamHealth.UNHEALTHY)
    worker.note_upstream(UpstreamHealth.HEALTHY)
    assert readings(metrics) == {"BootTime": {120: 1}}


def published(wire: Wire) -> dict[str, list[dict[str, Any]]]:
    """What was put into each namespace."""
    found: dict[str, list[dict[str, Any]]] = {}
    for call in wire.calls:
        if call.operation == "PutMetricData":
            request = json.loads(call.text)
            found.setdefault(request["Namespace"], []).extend(request["MetricData"])
    return found


async def end(adapter: AdapterProcess) -> None:
    adapter.process.send(signal.SIGTERM)
    assert await adapter.ends() == 0


async def run_one(api: UnifiedApi, place: Workplace) -> str:
    api.ends_at_once = True
    task_id = await place.submit()
    await until(lambda: place.is_done(task_id))
    await until(place.has_no_message)
    return task_id


async def test_the_process_publishes_its_last_metrics_when_it_stops(
    api: UnifiedApi, place: Workplace, employment: Employer, wire: Wire
) -> None:
    adapter = await employment.start_ready(METRICS="cloudwatch", METRICS_NAMESPACE="ns")
    await run_one(api, place)
    await end(adapter)
    names = {datum["MetricName"]: datum for datum in published(wire)["ns"]}
    assert names.keys() == {"BootTime", "JobsClaimed", "JobsCompleted", "WaitTime", "RunTime", "ResultTime"}
    assert (names["JobsCompleted"]["Values"], names["JobsCompleted"]["Unit"]) == ([1], "Count")


async def test_unless_asked_the_process_publishes_none(
    api: UnifiedApi, place: Workplace, employment: Employer, wire: Wire
) -> None:
    adapter = await employment.start_ready()
    await run_one(api, place)
    await end(adapter)
    assert published(wire) == {}
    assert "_aws" not in adapter.log()


async def test_a_cloudwatch_that_hangs_costs_no_task_and_a_stop_seconds(
    api: UnifiedApi, place: Workplace, employment: Employer, wire: Wire
) -> None:
    wire.order("PutMetricData", Fate.HELD_BEFORE)
    adapter = await employment.start_ready(METRICS="cloudwatch")
    task_id = await run_one(api, place)
    assert await place.status(task_id) is Status.COMPLETED
    await end(adapter)
    assert len(adapter.events("metrics.not_published")) == 1


def only_value(values: dict[float, int]) -> float:
    ((value, times),) = values.items()
    assert times == 1
    return value
