"""Adapters at work, one call at a time in any order: they crash, stall and stop, and every task comes to one end."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import ClientSession
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule
from structlog.testing import capture_logs

from lib.asyncaws.session import AwsSession
from lib.gputask.kinds import QWEN_IMAGE_EDIT
from lib.gputask.message import TaskMessage, task_id_in
from lib.gputask.record import ErrorCode, Status, TaskRecord
from services.adapter.upstream import UnifiedApi as UnifiedApiClient
from services.adapter.upstream import open_session
from services.devstack.ports import ReservedPort
from services.orchestrator.submission import message_of
from tests.adapter.unified_api import UnifiedApi
from tests.conftest import REGION
from tests.properties.adapters import (
    DEADLINE_S,
    ENDLESS,
    HEARTBEAT_S,
    LEASE_S,
    MAX_ATTEMPTS,
    Adapter,
    Place,
    open_place,
)
from tests.properties.effort import play
from tests.properties.hours import Hours, settle
from tests.properties.turnstile import Fate, Ticket

TASKS = 3
ADAPTERS = 2
# Rounds of a minute after which a day's backlog has long been dealt with.
DRAINED_AFTER = 200
CALLS_A_ROUND = 60

STRAY = TaskMessage("nobody", QWEN_IMAGE_EDIT.api_path, "{}").to_json()
WHICH = st.integers(0, 5)
# What costs GPU time without an end that a client sees, or an end without GPU time, has one of these names.
NAMES = frozenset(ErrorCode)


@dataclass(eq=False)
class Witness:
    """The SDK's client of the table, who remembers what must not change.

    Attributes:
        ends: task id to its terminal item.
        last: task id to its item as it was written last.
        owners: task and attempt to the worker that was given it.
        claimed: called with the id of each task that was claimed.
        complaints: not raised, because an adapter survives whatever a handler raises.
    """

    client: Any
    clock: Callable[[], float]
    claimed: Callable[[str], None]
    last: dict[str, dict[str, Any]] = field(default_factory=dict)
    ends: dict[str, dict[str, Any]] = field(default_factory=dict)
    owners: dict[tuple[str, str], str] = field(default_factory=dict)
    complaints: list[str] = field(default_factory=list)

    def __getattr__(self, operation: str) -> Any:
        return getattr(self.client, operation)

    async def update_item(self, **arguments: Any) -> Any:
        """Every write after a creation is one of these."""
        answer = await self.client.update_item(**arguments)
        item = answer["Attributes"]
        task_id, status = item["task_id"]["S"], item["status"]["S"]
        if task_id in self.ends:
            self.complaints.append(f"a terminal record was written again: {item}")
        if Status(status).is_terminal:
            self.ends[task_id] = item
        if status == Status.PROCESSING:
            self._note_owner(task_id, item)
        self.last[task_id] = item
        return answer

    def has_noted_run(self, task_id: str) -> bool:
        """Whether whoever comes next finds a run to adopt."""
        return "comfy_job_id" in self.last.get(task_id, {})

    def _note_owner(self, task_id: str, item: dict[str, Any]) -> None:
        attempt, worker = item["attempt"]["N"], item["worker"]["S"]
        if int(attempt) > MAX_ATTEMPTS:
            self.complaints.append(f"claimed too often: {item}")
        if (task_id, attempt) not in self.owners:
            lease_until = self.last.get(task_id, {}).get("lease_until", {"N": "0"})["N"]
            if float(lease_until) > self.clock():
                self.complaints.append(f"claimed under a lease until {lease_until}: {item}")
            self.claimed(task_id)
        if self.owners.setdefault((task_id, attempt), worker) != worker:
            self.complaints.append(f"two workers have one attempt: {item}")


@dataclass(frozen=True, slots=True)
class World:
    """What all examples share."""

    runner: asyncio.Runner
    dynamodb: Any
    sqs: Any
    table_name: str
    api_port: ReservedPort
    client: UnifiedApiClient
    numbers: Iterator[int]


class ProcessingMachine(RuleBasedStateMachine):
    """Up to two adapters, three tasks.

    Attributes:
        disturbed: tasks of which a second run, or none, has a cause: the upstream was restarted, or their
            worker died or stalled before it had noted the run.
        has_failed_one: whether a job has failed upstream.
        strays: whole messages of a task that the table does not know. They are kept.
        is_calm: whether nothing has happened that could fail a task for other reasons than the upstream's.
    """

    def __init__(self, world: World) -> None:
        super().__init__()
        self.world = world
        self.witness = Witness(world.dynamodb, self._clock, self._note_takeover)
        self.api = UnifiedApi(world.api_port)
        self.place: Place = self._run(open_place(self.witness, world.sqs, world.table_name, self.api, world.client))
        self.tasks: list[TaskRecord] = []
        self.disturbed: set[str] = set()
        self.over: set[str] = set()
        self.is_calm = True
        self.has_failed_one = False
        self.strays = 0
        self.is_sound = True

    # clients

    @initialize(
        messages=st.sampled_from([1, 2]),
        slots=st.lists(st.sampled_from([1, 2]), min_size=1, max_size=ADAPTERS),
        calls=st.integers(0, 9),
    )
    def begin_in_the_middle(self, messages: int, slots: list[int], calls: int) -> None:
        """A task, adapters, and the first of them anywhere between its start and its first look at the run."""
        self._do(self._submit(messages=messages))
        for count in slots:
            self.place.hire(count)
        self._do(settle())
        self.work(which=0, calls=calls)

    @rule(messages=st.sampled_from([1, 1, 2, 0]))
    def submit(self, messages: int) -> None:
        """A task with its message; with a duplicate; without any, its orchestrator having died."""
        if len(self.tasks) < TASKS:
            self._do(self._submit(messages=messages))

    @rule(which=WHICH)
    def deliver_again(self, which: int) -> None:
        self._do(self.place.queue.send(message_of(self.tasks[which % len(self.tasks)]), {}))

    @rule(body=st.sampled_from(["junk", '{"task_id": "nobody"}', STRAY]))
    def deliver_junk(self, body: str) -> None:
        self.strays += body == STRAY
        self._do(self.place.queue.send(body, {}))

    @rule(which=WHICH)
    def deliver_broken(self, which: int) -> None:
        """A message that names a task and cannot be read."""
        self.is_calm = False
        self._do(self.place.queue.send(json.dumps({"task_id": self.tasks[which % len(self.tasks)].task_id}), {}))

    # adapters

    @rule(slots=st.sampled_from([1, 2]))
    def start(self, slots: int) -> None:
        if len(self.place.adapters) < ADAPTERS:
            self.place.hire(slots)
            self._do(settle())

    @rule(which=WHICH, calls=st.integers(1, 12))
    def work(self, which: int, calls: int) -> None:
        """One adapter gets on."""
        for _ in range(calls):
            if ticket := self._ticket(which):
                self._do(self.place.let_through(ticket, Fate.DONE))

    @rule(which=WHICH, turn=WHICH, fate=st.sampled_from(Fate))
    def meet(self, which: int, turn: int, fate: Fate) -> None:
        """Any one of the calls that an adapter makes at the same time is next, and meets its fate."""
        ticket = self._ticket(which, turn)
        if ticket is None:
            return
        if fate is not Fate.DONE:
            self.is_calm = False
            if ticket.operation == "submit":
                self.disturbed.update(self._adapter(which).tasks)  # type: ignore[union-attr]
        self._do(self.place.let_through(ticket, fate))

    @rule(which=WHICH, arrives=st.booleans())
    def crash(self, which: int, arrives: bool) -> None:
        """An adapter dies; its last call may yet arrive."""
        adapter = self._adapter(which)
        if adapter is None:
            return
        self.is_calm = False
        self._disturb(*(task_id for task_id in adapter.tasks if not self.witness.has_noted_run(task_id)))
        self.place.adapters.remove(adapter)
        self._do(self._die(adapter, arrives=arrives))

    @rule(which=WHICH)
    def stop(self, which: int) -> None:
        if adapter := self._adapter(which):
            adapter.stop.set()
            self._do(settle())

    @rule(which=WHICH)
    def abandon(self, which: int) -> None:
        """A stop cannot wait any longer."""
        if adapter := self._adapter(which):
            self.is_calm = False
            adapter.stop.set()
            adapter.abandon.set()
            self._do(settle())

    # the upstream

    @rule(which=WHICH, succeeds=st.booleans())
    def end_job(self, which: int, succeeds: bool) -> None:
        running = self._running()
        if running:
            self._end(running[which % len(running)], succeeds=succeeds)

    @rule()
    def restart_upstream(self) -> None:
        self._disturb(*(task.task_id for task in self.tasks))
        self.over.update(self.api.runs)
        self._do(self.place.restart_upstream())

    @rule()
    def hang_or_wake_upstream(self) -> None:
        self.is_calm = False
        if self.place.mood.awake.is_set():
            self.place.mood.awake.clear()
        else:
            self._do(self.place.wake_upstream())

    @rule(refuses=st.booleans())
    def choose_mood(self, refuses: bool) -> None:
        self.place.mood.refuses = refuses

    @rule(status=st.sampled_from(["healthy", "unhealthy"]))
    def change_health(self, status: str) -> None:
        self.api.comfyui_status = status

    # time

    @rule(seconds=st.sampled_from([2.0, 5.0, HEARTBEAT_S, LEASE_S + 1.0, DEADLINE_S]))
    def wait(self, seconds: float) -> None:
        if seconds > HEARTBEAT_S:
            self.is_calm = False
        self._do(self.place.wait(seconds))

    @rule()
    def tidy(self) -> None:
        self._do(self.place.tidy())

    def teardown(self) -> None:
        try:
            if self.is_sound:
                self._run(self._drain())
                self._run(self._check_books())
        finally:
            self._run(self.place.close())

    # the end

    async def _drain(self) -> None:
        """The upstream is well, and one more adapter, too; those that are there go on."""
        self.place.mood.refuses, self.api.comfyui_status = False, "healthy"
        await self.place.wake_upstream()
        self.place.hire(slots=1)
        await settle()
        for _ in range(DRAINED_AFTER):
            for job_id in self._running():
                self._end(job_id, succeeds=True)
            await self._play_round()
            if len(self.witness.ends) == len(self.tasks) and await self.place.depth() == self.strays:
                break
            await self.place.wait(60.0)
            await self.place.tidy()
        for adapter in self.place.adapters:
            adapter.stop.set()
        for _ in range(CALLS_A_ROUND):
            await self._play_round()
            await self.place.wait(60.0)
            if not self.place.adapters:
                return

    async def _play_round(self) -> None:
        """Everybody makes the calls that need no time; whoever finds the queue empty rests."""
        resting: set[Adapter] = set()
        for _ in range(CALLS_A_ROUND):
            tickets = [
                (adapter, adapter.turnstile.waiting[0])
                for adapter in self.place.adapters
                if adapter.turnstile.waiting and adapter not in resting
            ]
            if not tickets:
                return
            for adapter, ticket in tickets:
                hidden = len(self.place.sqs.hidden)
                await self.place.let_through(ticket, Fate.DONE)
                if ticket.operation == "receive_message" and len(self.place.sqs.hidden) == hidden:
                    resting.add(adapter)

    async def _check_books(self) -> None:
        self._check_steps()
        assert not self.place.adapters, "an adapter does not end"
        assert await self.place.depth() == self.strays, "messages are left"
        for task in self.tasks:
            record = await self.place.store.get(task.task_id)
            assert record is not None
            self._check_end(record)

    def _check_end(self, record: TaskRecord) -> None:
        runs = self._runs_of(record.task_id)
        assert record.status.is_terminal, record
        assert len(runs) <= record.attempt, (runs, record)
        if record.status is Status.COMPLETED:
            assert record.error_code is None
            assert record.result_s3_uri in {_result_of(run) for run in runs}
            assert record.result_s3_uri == _result_of(record.comfy_job_id or "")
        else:
            assert record.error_code in NAMES
            assert record.result_s3_uri is None
        if record.task_id in self.disturbed:
            return
        if record.status is Status.COMPLETED or record.error_code == ErrorCode.UPSTREAM_FAILED:
            assert len(runs) == 1, record
        if self.is_calm:
            assert record.error_code in (None, ErrorCode.UPSTREAM_FAILED, ErrorCode.UPSTREAM_REJECTED), record
            assert record.attempt == 1, record

    # doing

    def _do(self, work: Coroutine[Any, Any, Any]) -> None:
        self.is_sound = False
        self._run(work)
        self._check_steps()
        self.is_sound = True

    def _check_steps(self) -> None:
        assert not self.witness.complaints
        for body in self.place.sqs.deleted:
            task_id = task_id_in(body)
            is_ours = any(task.task_id == task_id for task in self.tasks)
            assert not is_ours or task_id in self.witness.ends, "a message was deleted before its task had ended"
        self.place.sqs.deleted.clear()

    def _run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.world.runner.run(work)

    async def _submit(self, *, messages: int) -> None:
        now = self.place.store.now()
        task_id = f"task-{next(self.world.numbers)}"
        task = TaskRecord(
            task_id=task_id,
            status=Status.PENDING,
            job_type=QWEN_IMAGE_EDIT.api_path,
            request_body=json.dumps({"prompt": task_id}),
            created_at=now,
            updated_at=now,
            queued_at=now,
            sends=1,
            expires_at=now + 604_800,
        )
        await self.place.store.create(task)
        self.tasks.append(task)
        for _ in range(messages):
            await self.place.queue.send(message_of(task), {})

    async def _die(self, adapter: Adapter, *, arrives: bool) -> None:
        if arrives and adapter.turnstile.waiting and self.place.mood.awake.is_set():
            ticket = adapter.turnstile.waiting[0]
            self._disturb(ticket.task_id or "")
            ticket.decided.set_result(Fate.LOST)
            await ticket.over.wait()
        await adapter.die()

    def _clock(self) -> float:
        return self.place.clock()

    def _running(self) -> list[str]:
        return [run for run in self.api.runs if run not in self.over]

    def _end(self, job_id: str, *, succeeds: bool) -> None:
        self.over.add(job_id)
        if succeeds:
            self.api.end(job_id, result_s3_uri=_result_of(job_id))
        else:
            self._doubt(job_id)
            self.api.fail(job_id, "no")

    def _doubt(self, job_id: str) -> None:
        """A second job that fails in the same way may be run again: its upstream is suspected."""
        if self.has_failed_one:
            self._disturb(self.api.prompts[self.api.runs.index(job_id)])
        self.has_failed_one = True

    def _adapter(self, which: int) -> Adapter | None:
        adapters = self.place.adapters
        return adapters[which % len(adapters)] if adapters else None

    def _ticket(self, which: int, turn: int = 0) -> Ticket | None:
        adapter = self._adapter(which)
        waiting = adapter.turnstile.waiting if adapter else []
        return waiting[turn % len(waiting)] if waiting else None

    def _disturb(self, *task_ids: str) -> None:
        self.is_calm = False
        self.disturbed.update(task_ids)

    def _note_takeover(self, task_id: str) -> None:
        """Claimed while another still works on it: its lease ran out, as if it had died."""
        if any(task_id in adapter.tasks for adapter in self.place.adapters):
            self.is_calm = False
            if not self.witness.has_noted_run(task_id):
                self._disturb(task_id)

    def _runs_of(self, task_id: str) -> list[str]:
        return [run for run, prompt in zip(self.api.runs, self.api.prompts, strict=True) if prompt == task_id]


def _result_of(job_id: str) -> str:
    return f"s3://results/{job_id}.png"


@pytest.fixture
def world(aws_endpoint: str, aws_environment: None, task_table: str) -> Iterator[World]:
    with asyncio.Runner(loop_factory=Hours) as runner, ReservedPort() as api_port:
        aws = AwsSession(region=REGION, endpoint_url=aws_endpoint)
        dynamodb, sqs = runner.run(aws.dynamodb(ENDLESS)), runner.run(aws.sqs(ENDLESS))
        session = runner.run(_open_session(f"http://127.0.0.1:{api_port.number}"))
        client = UnifiedApiClient(session)
        yield World(runner, dynamodb, sqs, task_table, api_port, client, itertools.count(1))
        runner.run(session.close())
        runner.run(aws.__aexit__(None, None, None))


async def _open_session(url: str) -> ClientSession:
    return open_session(url)


def test_every_task_comes_to_one_end(world: World) -> None:
    with capture_logs():
        play(lambda: ProcessingMachine(world), examples=15, steps=30)


def test_a_stop_before_the_run_is_noted_costs_no_second_run(world: World) -> None:
    """Found by the machine: the adapter had the upstream's id, and gave the task back without it."""
    machine = ProcessingMachine(world)
    with capture_logs():
        machine.begin_in_the_middle(messages=1, slots=[2], calls=7)
        machine.work(which=0, calls=2)
        machine.abandon(which=0)
        machine.teardown()
    assert len(machine.api.runs) == 1
