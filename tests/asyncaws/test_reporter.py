from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence

import pytest
from structlog.testing import capture_logs

from lib.asyncaws.errors import PermanentAwsError, TransientAwsError
from lib.asyncaws.metrics import Destination, Kind, Metric, Metrics, NoMetrics, Series, Unit
from lib.asyncaws.reporter import Reporter, reporting
from lib.asyncaws.session import AwsSession
from tests.asyncaws.unreliable import Refusal, unreliable_aws
from tests.conftest import REGION

DONE = Metric("Done", Unit.COUNT, Kind.SUM)
TIME = Metric("Time", Unit.SECONDS, Kind.EACH)


class Paper:
    """Takes what is published, or fails as told.

    Attributes:
        printed: the values of every publication, by name of their metric.
        failures: raised by the next publications, None for a success.
    """

    def __init__(self, *failures: Exception | None) -> None:
        self.printed: list[dict[str, dict[float, int]]] = []
        self.failures = list(failures)
        self.asked = asyncio.Event()

    async def publish(self, series: Sequence[Series]) -> None:
        self.asked.set()
        if self.failures and (failure := self.failures.pop(0)):
            raise failure
        self.printed.append({one.metric.name: dict(one.values) for one in series})


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


async def test_it_publishes_again_and_again_and_nothing_twice(metrics: Metrics) -> None:
    paper, stop = Paper(), asyncio.Event()
    running = asyncio.create_task(Reporter(metrics=metrics, sink=paper, interval_s=0.01).run(stop))
    for _ in range(2):
        metrics.add(DONE)
        paper.asked.clear()
        async with asyncio.timeout(5):
            await paper.asked.wait()
    stop.set()
    await running
    assert paper.printed == [{"Done": {1: 1}}] * 2


async def test_without_news_it_publishes_nothing(metrics: Metrics) -> None:
    paper = Paper()
    await Reporter(metrics=metrics, sink=paper).flush()
    assert paper.printed == []


@pytest.mark.parametrize(
    ("failure", "level"),
    [
        (TransientAwsError("PutMetricData", "Throttling", "slow down"), "warning"),
        (PermanentAwsError("PutMetricData", "AccessDenied", "not you"), "error"),
        (BrokenPipeError("nobody reads"), "warning"),
        (ZeroDivisionError("a mistake of ours"), "warning"),
    ],
)
async def test_what_fails_is_logged_ends_nothing_and_goes_with_the_next(
    metrics: Metrics, failure: Exception, level: str
) -> None:
    paper = Paper(failure, None)
    reporter = Reporter(metrics=metrics, sink=paper)
    metrics.add(DONE, 2)
    metrics.add(TIME, 1.5)
    with capture_logs() as logs:
        await reporter.flush()
    assert [(line["event"], line["log_level"], line["metrics"]) for line in logs] == [
        ("metrics.not_published", level, 2)
    ]
    metrics.add(DONE)
    await reporter.flush()
    assert paper.printed == [{"Done": {3: 1}, "Time": {1.5: 1}}]


async def test_of_several_batches_only_the_unpublished_are_repeated(metrics: Metrics) -> None:
    paper = Paper(None, TransientAwsError("PutMetricData", "Throttling", ""))
    reporter = Reporter(metrics=metrics, sink=paper)
    for name in ("A", "B", "C"):
        for number in range(3000):
            metrics.add(Metric(name, Unit.SECONDS, Kind.EACH), 1.001**number)
    await reporter.flush()
    await reporter.flush()
    names = [set(publication) for publication in paper.printed]
    assert sorted(name for publication in names for name in publication) == ["A", "B", "C"]
    assert all(sum(values.values()) == 3000 for publication in paper.printed for values in publication.values())


async def test_what_was_refused_is_told(metrics: Metrics) -> None:
    metrics.add(DONE, float("nan"))
    with capture_logs() as logs:
        await Reporter(metrics=metrics, sink=Paper()).flush()
    assert logs == [{"event": "metrics.refused", "log_level": "warning", "values": 1}]


async def test_a_flush_that_is_cancelled_loses_nothing(metrics: Metrics) -> None:
    class Hanging(Paper):
        async def publish(self, series: Sequence[Series]) -> None:
            self.asked.set()
            await asyncio.Event().wait()

    paper = Hanging()
    metrics.add(DONE)
    flushing = asyncio.create_task(Reporter(metrics=metrics, sink=paper).flush())
    await paper.asked.wait()
    flushing.cancel()
    await asyncio.gather(flushing, return_exceptions=True)
    assert [dict(one.values) for one in metrics.take()] == [{1: 1}]


async def test_the_last_ones_are_published_at_the_end_even_of_a_failure(
    aws: AwsSession, capfd: pytest.CaptureFixture[str]
) -> None:
    async def work() -> None:
        async with reporting(Destination.LOG, namespace="test", session=aws) as reporter:
            reporter.metrics.add(DONE, 3)
            raise RuntimeError("the process fails")

    with pytest.raises(RuntimeError, match="the process fails"):
        await work()
    (line,) = capfd.readouterr().out.splitlines()
    assert json.loads(line)["Done"] == 3


async def test_off_collects_nothing_writes_nothing_and_calls_nobody(
    aws_endpoint: str, aws_environment: None, capfd: pytest.CaptureFixture[str]
) -> None:
    async with unreliable_aws(aws_endpoint) as wire, AwsSession(region=REGION, endpoint_url=wire.url) as session:
        async with reporting(Destination.OFF, namespace="test", session=session) as reporter:
            assert isinstance(reporter.metrics, NoMetrics)
            reporter.metrics.add(DONE)
            await reporter.flush()
        assert wire.calls == []
    assert capfd.readouterr().out == ""


async def test_by_call_they_reach_cloudwatch_once_it_takes_them(aws_endpoint: str, aws_environment: None) -> None:
    async with unreliable_aws(aws_endpoint) as wire, AwsSession(region=REGION, endpoint_url=wire.url) as session:
        wire.fates.append(Refusal(503, "ServiceUnavailable"))
        async with reporting(Destination.CLOUDWATCH, namespace="test", session=session) as reporter:
            reporter.metrics.add(DONE)
            await reporter.flush()
        assert wire.calls == ["PutMetricData"] * 2, "the second at the end"
