"""Publishes once a minute what was collected, beside the work and never in its way."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack, asynccontextmanager, closing
from typing import Protocol

import structlog

from lib.asyncaws.cloudwatch import CloudWatch
from lib.asyncaws.embedded_metrics import EmbeddedMetrics
from lib.asyncaws.errors import PermanentAwsError
from lib.asyncaws.metrics import Destination, Metrics, NoMetrics, Series, batches
from lib.asyncaws.session import METERING, AwsSession
from lib.daemon.outlet import Outlet, to_descriptor
from lib.daemon.waiting import wait_for

# CloudWatch's own resolution: more often would cost more and show no more.
_INTERVAL_S = 60.0
_STANDARD_OUTPUT = 1

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
            log.error("metrics.not_published", error=str(error), metrics=len(pending))  # noqa: TRY400  no bug of ours
        except Exception as error:
            # A side matter must not end the process, whatever is wrong with it.
            log.warning("metrics.not_published", error=str(error), kind=type(error).__name__, metrics=len(pending))
        finally:
            self.metrics.put_back(pending)


@asynccontextmanager
async def reporting(destination: Destination, *, namespace: str, session: AwsSession) -> AsyncIterator[Reporter]:
    """A reporter for the life of the process, which publishes a last time at its end."""
    with ExitStack() as resources:
        reporter = await _open(destination, namespace, session, resources)
        try:
            yield reporter
        finally:
            await reporter.flush()


async def _open(destination: Destination, namespace: str, session: AwsSession, resources: ExitStack) -> Reporter:
    match destination:
        case Destination.OFF:
            return Reporter(metrics=NoMetrics(), sink=_Nowhere())
        case Destination.LOG:
            outlet = resources.enter_context(closing(Outlet(to_descriptor(_STANDARD_OUTPUT), notice=_say_dropped)))
            return Reporter(
                metrics=Metrics(), sink=EmbeddedMetrics(namespace=namespace, write=outlet.put, clock=time.time)
            )
        case Destination.CLOUDWATCH:
            client = await session.cloudwatch(METERING)
            return Reporter(metrics=Metrics(), sink=CloudWatch(client, namespace=namespace, policy=METERING))


def _say_dropped(dropped: int) -> bytes:
    log.warning("metrics.dropped", lines=dropped)
    return b""


class _Nowhere:
    async def publish(self, series: Sequence[Series]) -> None:
        pass
