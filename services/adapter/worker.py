"""The worker itself: who it is, what it works on, and telling so to the table, to systemd and to its log."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from uuid import uuid4

import structlog

from lib.asyncaws.errors import AwsError, TransientAwsError
from lib.asyncaws.table import Table
from lib.daemon.notification import Notifier
from lib.daemon.waiting import wait_for_any
from lib.gputask.gpu import UpstreamHealth, WorkerRecord, worker_key
from lib.gputask.record import TaskRecord
from services.adapter.meter import SILENT, Meter

log = structlog.stdlib.get_logger(__name__)


class Worker:
    """What the shutdown Lambda judges this instance by, and what an operator sees in `systemctl status`.

    Attributes:
        name: unique per process, so that a restarted adapter does not take its predecessor's leases for its own.
    """

    def __init__(
        self,
        *,
        instance_id: str,
        table: Table,
        notifier: Notifier,
        clock: Callable[[], float],
        beat_s: float,
        meter: Meter = SILENT,
    ) -> None:
        self.name = f"{instance_id}/{uuid4().hex[:8]}"
        self._instance_id = instance_id
        self._table = table
        self._notifier = notifier
        self._clock = clock
        self._beat_s = beat_s
        self._meter = meter
        self._started_at = clock()
        self._last_claim_at: float | None = None
        self._last_service_at: float | None = None
        self._upstream = UpstreamHealth.UNHEALTHY
        self._upstream_ok_at: float | None = None
        self._upstream_remark = ""
        self._active: list[TaskRecord] = []
        self._changed = asyncio.Event()

    @property
    def has_work(self) -> bool:
        return bool(self._active)

    @contextmanager
    def working_on(self, task: TaskRecord) -> Iterator[None]:
        """The task is in work for the time of the block."""
        self._last_claim_at = self._clock()
        self._active.append(task)
        self._tell()
        try:
            yield
        finally:
            self._active.remove(task)
            # Rightly busy until now. Without this a job of over 15 min would seem, once it is over, to have been
            # nothing but silence, and rule C might stop the instance before the next look at the upstream.
            self._upstream_ok_at = self._clock()
            self._tell()

    def note_service(self) -> None:
        """A message was deleted whose task had ended: behind many of these a task waits for long, and rightly."""
        self._last_service_at = round(self._clock(), 3)

    def note_upstream(self, health: UpstreamHealth, *, remark: str = "") -> None:
        """What was just found out about the Unified API, and a remark on it for people."""
        if health is not UpstreamHealth.UNHEALTHY:
            now = self._clock()
            if self._upstream_ok_at is None:
                self._meter.ready(now - self._started_at)
            self._upstream_ok_at = now
        news = bool(remark) != bool(self._upstream_remark)
        # The remark counts seconds: systemd hears of each, while the table's beat takes the latest with it.
        counted_on = remark != self._upstream_remark
        self._upstream_remark = remark
        if health is not self._upstream:
            log.info("upstream.changed", health=health, before=self._upstream)
            self._upstream = health
            news = True
        if news:
            self._tell()
        elif counted_on:
            self._notifier.status(self.status())

    def status(self) -> str:
        """One line for people."""
        if self._active:
            return f"working on {', '.join(self._task_ids())}"
        if self._upstream is UpstreamHealth.UNHEALTHY:
            return f"receiving nothing: the Unified API is {self._upstream_remark or 'not healthy'}"
        return "idle, waiting for tasks"

    def record(self) -> WorkerRecord:
        """What the table is told. A silent upstream with work within its deadline is rightly busy."""
        now = round(self._clock(), 3)
        return WorkerRecord(
            instance_id=self._instance_id,
            started_at=round(self._started_at, 3),
            beat_at=now,
            upstream=UpstreamHealth.BUSY if self._active else self._upstream,
            upstream_ok_at=now if self._active else self._upstream_ok_at,
            upstream_remark=self._upstream_remark,
            last_claim_at=self._last_claim_at,
            last_service_at=self._last_service_at,
            active=self._task_ids(),
        )

    async def announce(self) -> None:
        """The first beat, before any task is taken: who may not write to the table could only drop what it receives.

        Raises:
            PermanentAwsError: there is no such table, or it may not be written.
        """
        try:
            await self._write()
        except TransientAwsError as error:
            log.warning("worker.beat_failed", error=str(error))

    async def report(self, ended: asyncio.Event) -> None:
        """Beat now, at every change and every `beat_s`, until `ended`: a worker that drains is not silent."""
        while not ended.is_set():
            await self._beat()
            await wait_for_any((ended, self._changed), self._beat_s)
        if self._changed.is_set():
            await self._beat()  # or the last record would vouch for work that nobody does any more

    async def _beat(self) -> None:
        self._changed.clear()
        try:
            await self._write()
        except AwsError as error:
            log.warning("worker.beat_failed", error=str(error))

    async def _write(self) -> None:
        await self._table.update(worker_key(self._instance_id), self.record().to_change())

    def _task_ids(self) -> tuple[str, ...]:
        # A set: two attempts at one task may overlap, the first one trying to publish after its lease is over.
        return tuple(sorted({task.task_id for task in self._active}))

    def _tell(self) -> None:
        self._changed.set()
        self._notifier.status(self.status())
