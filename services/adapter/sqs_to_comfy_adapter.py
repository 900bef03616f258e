"""The adapter: takes tasks from SQS and drives the ComfyUI Unified API. Composition root of the service.

Runs for ever on the GPU instance under systemd. It has no say in when the instance stops.
"""

from __future__ import annotations

import asyncio
import sys
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass
from importlib.metadata import version

import structlog

from lib.asyncaws.consumer import Consumer
from lib.asyncaws.instance import own_instance_id
from lib.asyncaws.queue import Queue
from lib.asyncaws.reporter import Reporter, reporting
from lib.asyncaws.session import BACKGROUND, HEARTBEAT, AwsSession, long_poll
from lib.asyncaws.table import Table
from lib.daemon.command_line import DISTRIBUTION, read_command_line
from lib.daemon.configuration import changed, load_settings
from lib.daemon.logs import configure_logging
from lib.daemon.notification import Notifier
from lib.daemon.supervision import run, supervise, unless_stopped
from lib.daemon.waiting import wait_for
from lib.gputask.schema import TABLE_KEY
from lib.gputask.store import TaskStore
from services.adapter.comfyui import ComfyUi, Wedges
from services.adapter.gate import UpstreamGate
from services.adapter.lease import Lease
from services.adapter.meter import Meter
from services.adapter.processing import Processor
from services.adapter.restart import Restart
from services.adapter.retrying import silence_stamina
from services.adapter.run import Runner
from services.adapter.settings import AdapterSettings
from services.adapter.silence import Silence
from services.adapter.suspicion import Suspicion
from services.adapter.upstream import UnifiedApi, open_session
from services.adapter.worker import Worker

log = structlog.stdlib.get_logger(__name__)


def main() -> None:
    """The command `sqs-to-comfy-adapter`. Exit codes: 0 stopped as asked, 1 failed, 78 wrong configuration."""
    read_command_line(
        "sqs-to-comfy-adapter", "Takes tasks from the queue and drives the ComfyUI Unified API.", AdapterSettings
    )
    settings = load_settings(AdapterSettings)
    configure_logging("adapter", form=settings.log_format, level=settings.log_level)
    silence_stamina()

    async def serve(stop: asyncio.Event) -> None:
        await _serve(settings, Notifier.from_environment(), stop)

    sys.exit(run(serve))


@dataclass(frozen=True, slots=True)
class _Aws:
    """The same table and queue over clients that differ in their patience."""

    records: Table
    leases: Table
    messages: Queue
    answers: Queue
    reporter: Reporter


async def _serve(settings: AdapterSettings, notifier: Notifier, stop: asyncio.Event) -> None:
    async with AsyncExitStack() as resources:
        instance_id = settings.gpu_instance_id or await unless_stopped(stop, own_instance_id())
        aws = await unless_stopped(stop, _open_aws(settings, resources))
        api = UnifiedApi(await resources.enter_async_context(open_session(str(settings.comfyui_api_url))))
        comfyui = await _open_comfyui(settings, resources)
        meter = Meter(aws.reporter.metrics)
        abandon, ended = asyncio.Event(), asyncio.Event()
        worker = Worker(
            instance_id=instance_id,
            table=aws.leases,
            notifier=notifier,
            clock=time.time,
            beat_s=settings.worker_beat_s,
            meter=meter,
        )
        consumer = _consumer(settings, aws, api, comfyui, worker, meter, stop, abandon)
        await worker.announce()
        notifier.ready(worker.status())
        log.info(
            "adapter.started",
            version=version(DISTRIBUTION),
            worker=worker.name,
            concurrency=settings.concurrency,
            table=settings.dynamodb_table,
            queue=str(settings.sqs_queue_url),
            upstream=str(settings.comfyui_api_url),
            comfyui=str(settings.comfyui_url) if settings.comfyui_url else None,
            settings=changed(settings) or None,
        )
        await supervise(
            stop,
            {
                "consumer": _consume(consumer, stop, ended),
                "drain": _drain(stop, ended, abandon, notifier, settings.drain_s),
                "worker-record": worker.report(ended),
                "watchdog": notifier.feed_watchdog(ended),
                "metrics": aws.reporter.run(ended),
            },
        )
        log.info("adapter.stopped", worker=worker.name)


async def _open_aws(settings: AdapterSettings, resources: AsyncExitStack) -> _Aws:
    session = await resources.enter_async_context(
        AwsSession(region=settings.aws_region, endpoint_url=settings.aws_endpoint_url)
    )
    reporter = await resources.enter_async_context(
        reporting(settings.metrics, namespace=settings.metrics_namespace, session=session)
    )
    patient, quick = await session.dynamodb(BACKGROUND), await session.dynamodb(HEARTBEAT)
    poll = long_poll(settings.receive_wait_s)
    table, url = settings.dynamodb_table, str(settings.sqs_queue_url)
    return _Aws(
        records=Table(patient, name=table, key=TABLE_KEY, policy=BACKGROUND),
        leases=Table(quick, name=table, key=TABLE_KEY, policy=HEARTBEAT),
        messages=Queue(await session.sqs(poll), url=url, policy=poll),
        answers=Queue(await session.sqs(HEARTBEAT), url=url, policy=HEARTBEAT),
        reporter=reporter,
    )


async def _open_comfyui(settings: AdapterSettings, resources: AsyncExitStack) -> ComfyUi | None:
    if settings.comfyui_url is None:
        return None
    return ComfyUi(await resources.enter_async_context(open_session(str(settings.comfyui_url))))


def _consumer(
    settings: AdapterSettings,
    aws: _Aws,
    api: UnifiedApi,
    comfyui: ComfyUi | None,
    worker: Worker,
    meter: Meter,
    stop: asyncio.Event,
    abandon: asyncio.Event,
) -> Consumer:
    restart, wedged_s = Restart(settings.upstream_restart_file), settings.comfyui_wedged_s
    gate = UpstreamGate(
        api=api,
        worker=worker,
        silence=Silence(limit_s=settings.job_deadline_s, idle_limit_s=wedged_s, restart=restart, clock=time.monotonic),
        suspicion=Suspicion(restart=restart, clock=time.monotonic),
        stop=stop,
        interval_s=settings.health_interval_s,
        comfyui=comfyui,
    )
    wedges = Wedges(comfyui=comfyui, restart=restart, after_s=wedged_s, clock=time.monotonic) if comfyui else None
    processor = Processor(
        store=TaskStore(aws.records, time.time),
        runner=Runner(
            api=api, deadline_s=settings.job_deadline_s, poll_interval_s=settings.poll_interval_s, wedges=wedges
        ),
        lease=Lease(
            store=TaskStore(aws.leases, time.time),
            lease_s=settings.visibility_timeout_s,
            heartbeat_s=settings.heartbeat_s,
        ),
        gate=gate,
        worker=worker,
        max_attempts=settings.max_attempts,
        stop=stop,
        abandon=abandon,
        meter=meter,
    )
    return Consumer(
        source=aws.messages,
        answers=aws.answers,
        handler=processor.handle,
        gate=gate.is_open,
        slots=settings.concurrency,
        wait_s=settings.receive_wait_s,
        visibility_s=settings.visibility_timeout_s,
    )


async def _consume(consumer: Consumer, stop: asyncio.Event, ended: asyncio.Event) -> None:
    try:
        await consumer.run(stop)
    finally:
        ended.set()


async def _drain(
    stop: asyncio.Event, ended: asyncio.Event, abandon: asyncio.Event, notifier: Notifier, drain_s: float
) -> None:
    """After a stop, work has `drain_s` to end; then it is given back."""
    await stop.wait()
    notifier.stopping("draining")
    if not await wait_for(ended, drain_s):
        log.warning("drain.over", drain_s=drain_s)
        abandon.set()
        await ended.wait()


if __name__ == "__main__":
    main()
