"""The metrics of a whole system, each read where CloudWatch would read it."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from lib.gputask.measures import JOBS_FAILED, MEASURES
from services.devstack.power import State
from services.devstack.resources import aws_session, client_config
from services.devstack.stack import Stack
from tests.system.client import CAMERA, LIMIT_S
from tests.system.conftest import System

NAMESPACE = "gpu-on-demand-test"
PENDING_S = 1.0
BOOT_S = 1.5
LOG = {"METRICS": "log", "METRICS_NAMESPACE": NAMESPACE}
CALL = {"METRICS": "cloudwatch", "METRICS_NAMESPACE": NAMESPACE}

Published = dict[str, list[float]]


async def test_every_metric_of_a_done_and_a_failed_job_comes_out_with_the_right_numbers(system: System) -> None:
    options: dict[str, Any] = {"orchestrator_env": LOG, "adapter_env": CALL, "lambda_env": LOG}
    async with system(scale=180, pending_s=PENDING_S, boot_s=BOOT_S, **options) as (stack, client):
        done = await client.submit(steps=2)
        answer = await client.accepted(CAMERA, {"image_url": f"s3://{stack.resources.bucket}/no-such.png"})
        assert (await client.ended(done))["status"] == "completed"
        assert (await client.ended(answer.body["job_id"]))["status"] == "failed"
        await stack.wait_for_instance(State.STOPPED, limit_s=LIMIT_S)
        assert await stack.kill_orchestrator(signal.SIGTERM) == 0

        by_orchestrator = in_lines(stack.log_dir / "orchestrator.log")
        by_lambda = in_lines(stack.log_dir / "lambda.log")
        by_adapter = in_cloudwatch(stack)

    assert by_orchestrator.keys() == {"JobsAccepted", "TimeTo202", "WakeTime", "GpuState", "GpuBlocked"}
    assert sum(by_orchestrator["JobsAccepted"]) == 2
    assert len(by_orchestrator["TimeTo202"]) == 2
    assert all(0 < milliseconds < 1000 * LIMIT_S for milliseconds in by_orchestrator["TimeTo202"])
    (wake_s,) = by_orchestrator["WakeTime"]
    assert PENDING_S <= wake_s < LIMIT_S
    assert set(by_orchestrator["GpuState"]) <= {0, 1}
    assert set(by_orchestrator["GpuBlocked"]) == {0}

    assert by_adapter.keys() == {
        *("JobsClaimed", "JobsCompleted", "WaitTime", "RunTime", "ResultTime", "BootTime"),
        *("JobsFailed", "JobsFailed Cause=upstream_failed"),
    }
    assert sum(by_adapter["JobsClaimed"]) == 2
    assert by_adapter["JobsCompleted"] == by_adapter["JobsFailed Cause=upstream_failed"] == [1]
    assert by_adapter["JobsFailed"] == [1]
    assert [len(by_adapter[name]) for name in ("WaitTime", "RunTime", "ResultTime", "BootTime")] == [2, 2, 1, 1]
    assert max(by_adapter["WaitTime"]) > PENDING_S + BOOT_S
    assert by_adapter["ResultTime"][0] > min(by_adapter["WaitTime"])
    assert max(by_adapter["RunTime"]) >= 0.4  # two steps of 0.2 s

    assert by_lambda == {"GpuStopped Rule=A": [1]}

    everything = {name.partition(" ")[0] for name in (*by_orchestrator, *by_adapter)}
    assert everything == {measure.name for measure in MEASURES}


async def test_a_cloudwatch_that_fails_all_the_time_costs_no_job(system: System) -> None:
    async with system(scale=180, orchestrator_env=CALL, adapter_env=CALL) as (stack, client):
        await stack.fail("monitoring", "error")
        assert (await client.ended(await client.submit()))["status"] == "completed"
        await stack.wait_for_instance(State.STOPPED, limit_s=LIMIT_S)
        assert await stack.kill_orchestrator(signal.SIGTERM) == 0
        for log in ("orchestrator", "adapter"):
            assert "metrics.not_published" in (stack.log_dir / f"{log}.log").read_text()


def in_lines(log: Path) -> Published:
    """What CloudWatch Logs would extract from a log: each value of each metric."""
    found: Published = {}
    for line in log.read_text().splitlines():
        if not line.startswith('{"_aws"'):
            continue
        event = json.loads(line)
        for directive in event["_aws"]["CloudWatchMetrics"]:
            assert directive["Namespace"] == NAMESPACE
            for name, values in _targets(event, directive):
                found.setdefault(name, []).extend(values)
    return found


def _targets(event: dict[str, Any], directive: dict[str, Any]) -> Iterator[tuple[str, list[float]]]:
    for dimensions in directive["Dimensions"]:
        for metric in directive["Metrics"]:
            value = event[metric["Name"]]
            name = " ".join([metric["Name"], *(f"{key}={event[key]}" for key in dimensions)])
            yield name, value if isinstance(value, list) else [value]


def in_cloudwatch(stack: Stack) -> Published:
    """Each value of each metric that was put into the namespace."""
    client: Any = aws_session().client("cloudwatch", endpoint_url=stack.endpoint_url, config=client_config())
    found: Published = {}
    for metric in client.list_metrics(Namespace=NAMESPACE)["Metrics"]:
        name = " ".join([metric["MetricName"], *(f"{d['Name']}={d['Value']}" for d in metric["Dimensions"])])
        found[name] = _values(client, metric["MetricName"], metric["Dimensions"])
    # Where no dimension is asked for the emulator, unlike CloudWatch, adds those with dimensions.
    for name in list(found):
        plain, _, dimensions = name.partition(" ")
        if dimensions:
            for value in found[name]:
                found[plain].remove(value)
    assert JOBS_FAILED.name in found
    return found


def _values(client: Any, name: str, dimensions: list[dict[str, str]]) -> list[float]:
    """By the number of their samples: a second statistic tells them apart where there are two."""
    now = datetime.now(UTC)
    (point,) = client.get_metric_statistics(
        Namespace=NAMESPACE,
        MetricName=name,
        Dimensions=dimensions,
        StartTime=now - timedelta(hours=1),
        EndTime=now + timedelta(hours=1),
        Period=86_400,
        Statistics=["Minimum", "Maximum", "SampleCount"],
    )["Datapoints"]
    if point["SampleCount"] == 1:
        return [point["Minimum"]]
    assert point["SampleCount"] == 2
    return [point["Minimum"], point["Maximum"]]
