"""What the worker tells of itself: to the table, to systemd, to people."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from lib.daemon.notification import Notifier
from lib.gputask.gpu import UpstreamHealth
from lib.gputask.kinds import QWEN_IMAGE_EDIT
from lib.gputask.record import Status, TaskRecord
from services.adapter.worker import Worker
from tests.adapter.waiting import until
from tests.adapter.wire import Fate, Wire
from tests.adapter.workplace import INSTANCE_ID, Workplace

TASK = TaskRecord(
    task_id="task-1", status=Status.PROCESSING, job_type=QWEN_IMAGE_EDIT.api_path, created_at=0, updated_at=0, attempt=1
)


@dataclass
class Clock:
    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Observed:
    """A worker under a clock of ours, and what it says."""

    worker: Worker
    clock: Clock
    manager: socket.socket
    said: list[str] = field(default_factory=list)

    def hears(self) -> list[str]:
        """Everything it told the service manager so far."""
        while True:
            try:
                self.said.append(self.manager.recv(4096).decode())
            except BlockingIOError:
                return self.said


@pytest.fixture
def observed(place: Workplace, tmp_path: Path) -> Iterator[Observed]:
    clock = Clock()
    address = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(address))
        manager.setblocking(False)
        notifier = Notifier(str(address))
        worker = Worker(instance_id=INSTANCE_ID, table=place.table, notifier=notifier, clock=clock, beat_s=1000)
        yield Observed(worker, clock, manager)


def test_names_differ_between_processes_on_one_instance(observed: Observed, place: Workplace) -> None:
    other = Worker(instance_id=INSTANCE_ID, table=place.table, notifier=Notifier(None), clock=Clock(), beat_s=1)
    assert observed.worker.name != other.name
    assert observed.worker.name.startswith(INSTANCE_ID)


def test_before_anything_is_known_nothing_is_claimed(observed: Observed) -> None:
    record = observed.worker.record()
    assert record.upstream is UpstreamHealth.UNHEALTHY
    assert record.upstream_ok_at is record.last_claim_at is None
    assert record.started_at == record.beat_at == 1000.0


def test_upstream_ok_at_is_when_it_was_last_healthy(observed: Observed) -> None:
    observed.worker.note_upstream(UpstreamHealth.HEALTHY)
    observed.clock.now = 1010.0
    observed.worker.note_upstream(UpstreamHealth.HEALTHY)
    observed.clock.now = 1020.0
    observed.worker.note_upstream(UpstreamHealth.UNHEALTHY)
    record = observed.worker.record()
    assert (record.upstream, record.upstream_ok_at, record.beat_at) == (UpstreamHealth.UNHEALTHY, 1010.0, 1020.0)


def test_a_silent_upstream_is_rightly_busy_while_there_is_work(observed: Observed) -> None:
    observed.worker.note_upstream(UpstreamHealth.HEALTHY)
    with observed.worker.working_on(TASK):
        observed.clock.now = 1100.0
        record = observed.worker.record()
        observed.clock.now = 3000.0
    assert (record.upstream, record.upstream_ok_at) == (UpstreamHealth.BUSY, 1100.0)
    assert (record.last_claim_at, record.active) == (1000.0, ("task-1",))
    observed.clock.now = 3001.0
    after = observed.worker.record()
    assert (after.upstream, after.last_claim_at, after.active) == (UpstreamHealth.HEALTHY, 1000.0, ())
    assert after.upstream_ok_at == 3000.0  # to the end of the work, however long it took


def test_two_attempts_at_one_task_may_overlap(observed: Observed) -> None:
    """One slot still tries to publish, its lease over, when another slot claims the task again."""
    with observed.worker.working_on(TASK):
        with observed.worker.working_on(replace(TASK, attempt=2)):
            assert observed.worker.record().active == ("task-1",)
        assert observed.worker.has_work
        assert observed.worker.record().active == ("task-1",)
    assert not observed.worker.has_work


def test_the_status_line_follows_the_work(observed: Observed) -> None:
    observed.worker.note_upstream(UpstreamHealth.HEALTHY)
    observed.worker.note_upstream(UpstreamHealth.HEALTHY)
    with observed.worker.working_on(TASK):
        pass
    observed.worker.note_upstream(UpstreamHealth.UNHEALTHY)
    assert observed.hears() == [
        "STATUS=idle, waiting for tasks",
        "STATUS=working on task-1",
        "STATUS=idle, waiting for tasks",
        "STATUS=receiving nothing: the Unified API is not healthy",
    ]


def test_a_manager_that_does_not_listen_holds_up_no_work(observed: Observed) -> None:
    """Its socket takes a few datagrams only; a blocking send would stop every heartbeat."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as filler, suppress(BlockingIOError):
        filler.setblocking(False)
        while True:
            filler.sendto(b"", observed.manager.getsockname())
    with observed.worker.working_on(TASK):
        assert observed.worker.has_work


async def test_it_beats_at_once_and_at_every_change(observed: Observed, place: Workplace) -> None:
    ended = asyncio.Event()
    reporting = asyncio.create_task(observed.worker.report(ended))

    async def says(**expected: object) -> None:
        async def agrees() -> bool:
            record = await place.worker_record()
            return all(record.get(name) == value for name, value in expected.items())

        await until(agrees)

    await says(upstream="unhealthy", active=[], beat_at=1000.0, updated_at=1000.0, started_at=1000.0)
    observed.worker.note_upstream(UpstreamHealth.HEALTHY)
    await says(upstream="healthy", upstream_ok_at=1000.0)
    with observed.worker.working_on(TASK):
        await says(upstream="busy", active=["task-1"], last_claim_at=1000.0)
    await says(upstream="healthy", active=[])
    ended.set()
    await reporting
    assert "status" not in await place.worker_record()  # so the index of tasks does not contain it


async def test_an_adapter_restarted_over_a_busy_upstream_does_not_unsay_that_it_was_healthy(
    observed: Observed, place: Workplace
) -> None:
    """The instance has been up for hours; its record is all that tells rule C to wait."""
    observed.worker.note_upstream(UpstreamHealth.HEALTHY)
    with observed.worker.working_on(TASK):
        await observed.worker.announce()
    later = Clock(1200.0)
    successor = Worker(instance_id=INSTANCE_ID, table=place.table, notifier=Notifier(None), clock=later, beat_s=1)
    await successor.announce()
    record = await place.worker_record()
    assert (record["beat_at"], record["upstream"], record["active"]) == (1200.0, "unhealthy", [])
    assert (record["upstream_ok_at"], record["last_claim_at"]) == (1000.0, 1000.0)


async def test_the_last_beat_says_that_the_work_is_over(observed: Observed, place: Workplace) -> None:
    """The work ends and the process with it: a record that stayed busy would vouch for work that nobody does."""
    ended = asyncio.Event()
    with observed.worker.working_on(TASK):
        reporting = asyncio.create_task(observed.worker.report(ended))
        await until(lambda: _is_active(place))
    ended.set()
    await reporting
    assert (await place.worker_record())["active"] == []


async def test_a_table_that_fails_does_not_end_the_beat(observed: Observed, place: Workplace, wire: Wire) -> None:
    outage = wire.order("UpdateItem", Fate.UNAVAILABLE, part="beat_at", times=1)
    ended = asyncio.Event()
    reporting = asyncio.create_task(observed.worker.report(ended))
    await outage.met.wait()
    observed.worker.note_upstream(UpstreamHealth.HEALTHY)
    await until(lambda: _has_beaten(place))
    ended.set()
    await reporting


async def _is_active(place: Workplace) -> bool:
    return bool((await place.worker_record()).get("active"))


async def _has_beaten(place: Workplace) -> bool:
    return bool(await place.worker_record())
