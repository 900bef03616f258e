"""`python -m services.orchestrator`: REST to tasks, and the GPU's alarm clock. Composition root of the service."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import structlog

from lib.asyncaws.instance import Instance
from lib.asyncaws.queue import Queue
from lib.asyncaws.reporter import Reporter, reporting
from lib.asyncaws.session import BACKGROUND, CONTROL, REQUEST, AwsSession
from lib.asyncaws.table import Table
from lib.daemon.command_line import DISTRIBUTION, read_command_line
from lib.daemon.configuration import changed, load_settings
from lib.daemon.logs import configure_logging
from lib.daemon.notification import Notifier
from lib.daemon.supervision import cut_off, run, supervise, unless_stopped
from lib.gputask.schema import TABLE_KEY
from lib.gputask.store import TaskStore
from services.orchestrator.admission import Admission, AdmissionLimits
from services.orchestrator.app import build_app
from services.orchestrator.authentication import Authenticator
from services.orchestrator.connections import ConnectionLimits
from services.orchestrator.dependencies import Dependencies
from services.orchestrator.janitor import Janitor
from services.orchestrator.lag import LoopLag
from services.orchestrator.meter import Meter
from services.orchestrator.quota import Quota
from services.orchestrator.readiness import ReadinessCheck
from services.orchestrator.server import HttpServer, spare_the_garbage_collector
from services.orchestrator.settings import OrchestratorSettings
from services.orchestrator.submission import Submission
from services.orchestrator.tidying import Limits
from services.orchestrator.waker import Waker
from services.orchestrator.walk import Walk
from services.orchestrator.withdrawal import Withdrawals

# For what the last requests left to take back.
_WITHDRAWALS_S = 5.0

log = structlog.stdlib.get_logger(__name__)


def main() -> None:
    """Exit codes: 0 stopped as asked, 1 failed, 78 wrong configuration."""
    read_command_line(
        "gpu-orchestrator", "REST API in front of the task queue; wakes the GPU instance.", OrchestratorSettings
    )
    settings = load_settings(OrchestratorSettings)
    configure_logging("orchestrator", form=settings.log_format, level=settings.log_level)

    async def serve(stop: asyncio.Event) -> None:
        await _serve(settings, Notifier.from_environment(), stop)

    sys.exit(run(serve))


@dataclass(frozen=True, slots=True)
class _Aws:
    """What is needed on the request path, and the same for work in the background with more patience."""

    request_table: Table
    request_queue: Queue
    table: Table
    queue: Queue
    dead_letters: Queue
    instance: Instance
    reporter: Reporter


async def _serve(settings: OrchestratorSettings, notifier: Notifier, stop: asyncio.Event) -> None:
    async with AsyncExitStack() as resources:
        aws = await unless_stopped(stop, _open_aws(settings, resources))
        meter = Meter(aws.reporter.metrics)
        store = TaskStore(aws.table, time.time)
        waker = Waker(
            store=store,
            table=aws.table,
            instance=aws.instance,
            interval_s=settings.waker_interval_s,
            meter=meter,
        )
        quota = Quota(settings.max_unfinished_per_client)
        janitor = Janitor(
            store=store,
            walk=Walk(store),
            quota=quota,
            queue=aws.queue,
            dead_letters=aws.dead_letters,
            limits=Limits(resend_after_s=settings.resend_after_s, max_age_s=settings.task_max_age_s),
            interval_s=settings.janitor_interval_s,
            meter=meter,
        )
        # The background has clients of its own; without them nothing wakes, and nothing that was lost is sent again.
        tables, queues = (aws.request_table, aws.table), (aws.request_queue, aws.queue, aws.dead_letters)
        check = Dependencies({"table": tables, "queue": queues}).check
        # The first call of a client loads its endpoint rules; better now than in somebody's first POST.
        await check()
        withdrawals, lag, served = Withdrawals(store), LoopLag(), asyncio.Event()
        submission = Submission(
            store=TaskStore(aws.request_table, time.time),
            queue=aws.request_queue,
            nudge=waker.nudge,
            retention_s=settings.task_retention_s,
            quota=quota,
            withdrawals=withdrawals,
            meter=meter,
        )
        server = _server(settings, submission, waker, check, lag, meter)

        def on_ready() -> None:
            spare_the_garbage_collector()
            notifier.ready(f"serving on {settings.host}:{settings.port}")
            log.info(
                "orchestrator.started",
                version=version(DISTRIBUTION),
                host=settings.host,
                port=settings.port,
                table=settings.dynamodb_table,
                queue=str(settings.sqs_queue_url),
                instance_id=settings.gpu_instance_id,
                settings=changed(settings) or None,
            )

        await supervise(
            stop,
            {
                "server": _tell_when_done(server.run(stop, on_ready), served),
                "withdrawals": cut_off(served, withdrawals.run(served), after_s=_WITHDRAWALS_S),
                "lag": lag.run(stop),
                "waker": cut_off(stop, _wake(waker, stop), after_s=settings.drain_s),
                "dead-letters": cut_off(stop, janitor.watch_dead_letters(stop), after_s=settings.drain_s),
                "tidying": cut_off(stop, janitor.watch_tasks(stop), after_s=settings.drain_s),
                "metrics": aws.reporter.run(stop),
                "watchdog": notifier.feed_watchdog(stop),
                "farewell": _say_farewell(stop, notifier),
            },
        )
        log.info("orchestrator.stopped")


async def _tell_when_done(part: Coroutine[Any, Any, None], done: asyncio.Event) -> None:
    try:
        await part
    finally:
        done.set()


async def _wake(waker: Waker, stop: asyncio.Event) -> None:
    await waker.examine()
    await waker.run(stop)


async def _say_farewell(stop: asyncio.Event, notifier: Notifier) -> None:
    await stop.wait()
    notifier.stopping("finishing open requests")


async def _open_aws(settings: OrchestratorSettings, resources: AsyncExitStack) -> _Aws:
    session = await resources.enter_async_context(
        AwsSession(region=settings.aws_region, endpoint_url=settings.aws_endpoint_url)
    )
    reporter = await resources.enter_async_context(
        reporting(settings.metrics, namespace=settings.metrics_namespace, session=session)
    )
    name, url = settings.dynamodb_table, str(settings.sqs_queue_url)
    background_queue = await session.sqs(BACKGROUND)
    return _Aws(
        request_table=Table(await session.dynamodb(REQUEST), name=name, key=TABLE_KEY, policy=REQUEST),
        request_queue=Queue(await session.sqs(REQUEST), url=url, policy=REQUEST),
        table=Table(await session.dynamodb(BACKGROUND), name=name, key=TABLE_KEY, policy=BACKGROUND),
        queue=Queue(background_queue, url=url, policy=BACKGROUND),
        dead_letters=Queue(background_queue, url=str(settings.sqs_dlq_url), policy=BACKGROUND),
        instance=Instance(client=await session.ec2(CONTROL), id=settings.gpu_instance_id, policy=CONTROL),
        reporter=reporter,
    )


def _server(
    settings: OrchestratorSettings,
    submission: Submission,
    waker: Waker,
    check: ReadinessCheck,
    lag: LoopLag,
    meter: Meter,
) -> HttpServer:
    authenticator = Authenticator(settings.keys)
    admission = AdmissionLimits(places=settings.max_submissions, is_shared=authenticator.clients > 1)
    app = build_app(
        submission=submission,
        tasks=submission.store,
        stage_of=waker.stage_of,
        readiness_check=check,
        gpu_problem=lambda: waker.problem,
        authenticator=authenticator,
        rules=settings.rules,
        cors_origins=settings.origins,
        admission=Admission(admission, lag_s=lambda: lag.seconds),
        meter=meter,
    )
    limits = ConnectionLimits(connections=settings.max_connections, per_address=settings.max_connections_per_address)
    return HttpServer(app=app, host=settings.host, port=settings.port, drain_s=settings.drain_s, limits=limits)


if __name__ == "__main__":
    main()
