"""Publishes once a minute what was collected, beside the work and never in its way."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Protocol

import structlog

from lib.asyncaws.cloudwatch import CloudWatch
from lib.asyncaws.embedded_metrics import EmbeddedMetrics
from lib.asyncaws.errors import PermanentAwsError
from lib.asyncaws.metrics import Destination, Metrics, NoMetrics, Series, batches
from lib.asyncaws.session import METERING, AwsSession
from lib.daemon.waiting import wait_for

# CloudWatch's own resolution: more often would cost more and show no more.
_INTERVAL_S = 60.0

log = structlog.stdlib.get_logger(__name__)


class Publishes(Protocol):
    """Takes series on their way."""

    async def publish(self, series: Sequence[Series]) -> None: ...


class Reporter:
    """Carries metrics to where they are published.

    Attributes:
        metrics: what the process adds to.
    """

    def __init__(self, *, metrics: Metrics, sink: Publishes, interval_s: float = _INTERVAL_S) -> None:
        self.metrics = metrics
        self._sink = sink
        self._interval_s = interval_s

    async def run(self, stop: asyncio.Event) -> None:
        """Publish every `interval_s` until `stop`."""
        while not await wait_for(stop, self._interval_s):
            await self.flush()

    async def flush(self) -> None:
        """Publish now. Whatever goes wrong is logged and costs no work; what was not published goes with the next."""
        if refused := self.metrics.take_refused():
            log.warning("metrics.refused", values=refused)
        pending = self.metrics.take()
        try:
            for batch in batches(tuple(pending)):
                await self._sink.publish(batch)
                del pending[: len(batch)]
        except PermanentAwsError as error:
            # What only the operator can mend.
            log.error("metrics.not_published", error=str(error), metrics=len(pending))  # noqa: TRY400
        except Exception as error:
            # A side matter must not end the process, whatever is wrong with it.
            log.warning("metrics.not_published", error=str(error), kind=type(error).__name__, metrics=len(pending))
        finally:
            self.metrics.put_back(pending)


@asynccontextmanager
async def reporting(destination: Destination, *, namespace: str, session: AwsSession) -> AsyncIterator[Reporter]:
    """A reporter for the life of the process, which publishes a last time at its end."""
    reporter = await _open(destination, namespace, session)
    try:
        yield reporter
    finally:
        await reporter.flush()


async def _open(destination: Destination, namespace: str, session: AwsSession) -> Reporter:
    match destination:
        case Destination.OFF:
            return Reporter(metrics=NoMetrics(), sink=_Nowhere())
        case Destination.LOG:
            sink = EmbeddedMetrics(namespace=namespace, stream=sys.stdout, clock=time.time)
            return Reporter(metrics=Metrics(), sink=sink)
        case Destination.CLOUDWATCH:
            client = await session.cloudwatch(METERING)
            return Reporter(metrics=Metrics(), sink=CloudWatch(client, namespace=namespace, policy=METERING))


class _Nowhere:
    async def publish(self, series: Sequence[Series]) -> None:
        pass
