"""The store against a ledger kept by hand: any actors, any order, any time, answers lost, requests that race."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from lib.asyncaws.conditions import Missing
from lib.asyncaws.session import AwsSession, CallPolicy
from lib.asyncaws.table import Table
from lib.gputask.record import ErrorCode, TaskRecord
from lib.gputask.schema import TABLE_KEY
from lib.gputask.store import AlreadyExists, LeaseLost, NotClaimable, Overtaken, TaskStore
from tests.conftest import REGION
from tests.devstack.emulated import Emulated
from tests.gputask.records import NOW, live_tasks, record_of
from tests.properties.effort import play
from tests.properties.ledger import Answer, Ledger, is_done

LEASE_S = 300.0
RETENTION_S = 604_800
MAX_ATTEMPTS = 3
# As in production a lost answer is followed by one more try; two in a row are an error, which proves nothing.
TWICE = CallPolicy(total_s=60.0, read_timeout_s=30.0, attempts=2)
ACTIONS = {"create": "PutItem"}

TASKS = st.sampled_from(["t-1", "t-2"])
LOST = st.booleans()
REPLICAS = st.sampled_from([0, 1])
BACK = st.sampled_from([0, 0, 1])
RUNS = st.sampled_from(["run-1", "run-2"])
CONTENDERS = st.sampled_from(["claim", "claim", "create", "finish", "give_up", "hold", "release", "resend", "withdraw"])
# To the millisecond before a lease ends, its very end, and the end of the record.
PAUSES = st.sampled_from([0.001, 100.0, LEASE_S - 0.001, LEASE_S, LEASE_S + 0.001, float(RETENTION_S)])


@dataclass(frozen=True, slots=True)
class Request:
    """A verb of the store with everything it is told, the time included."""

    verb: str
    arguments: dict[str, Any]
    at: float

    async def put_to(self, table: Table) -> Answer:
        """Ask the store."""
        try:
            answer = await getattr(TaskStore(table, lambda: self.at), self.verb)(**self.arguments)
        except (AlreadyExists, NotClaimable) as refusal:
            return Answer(type(refusal).__name__, refusal.record.to_item() if refusal.record else None)
        except (LeaseLost, Overtaken) as refusal:
            return Answer(type(refusal).__name__)
        return Answer("ok", None if answer is None else answer.to_item())

    def enter_in(self, ledger: Ledger) -> Answer:
        """Ask the ledger."""
        answer: Answer = getattr(ledger, self.verb)(**self.arguments, now=self.at)
        return answer


@dataclass(frozen=True, slots=True)
class World:
    """What all examples share: a table that each leaves empty."""

    runner: asyncio.Runner
    emulated: Emulated
    table: Table


class StoreMachine(RuleBasedStateMachine):
    """Two replicas of the orchestrator, any number of workers, two tasks.

    Every rule may be played at any time, and does nothing if there is nothing to do: who wins a race is not ours to
    say, and hypothesis must find the same choices when it plays the same steps again.
    """

    def __init__(self, world: World) -> None:
        super().__init__()
        self.world = world
        self.ledger = Ledger()
        self.now = NOW
        self.asked: list[Request] = []
        self.seen: dict[tuple[int, str], TaskRecord] = {}
        self.made: dict[tuple[int, str], TaskRecord] = {}
        self.ended: dict[str, dict[str, Any]] = {}
        self.owners: dict[tuple[str, float, int], str] = {}
        self.ends: dict[tuple[str, float, int], Request] = {}
        self.numbers = itertools.count(1)
        self.is_sound = True  # or the first failure would hide behind the one it causes at the end

    # the orchestrator

    @initialize(attempts=st.tuples(st.integers(0, MAX_ATTEMPTS), st.integers(0, MAX_ATTEMPTS)))
    def begin_in_the_middle(self, attempts: tuple[int, int]) -> None:
        """Tasks of which some have had workers that went silent: where the rules are hard, steps are not wasted."""
        for task_id, claims in zip(("t-1", "t-2"), attempts, strict=True):
            self._ask(self._creation(0, task_id, "{}"), lost=False)
            for number in range(claims):
                self.now += LEASE_S if number else 0.0
                self._ask(self._claim(task_id), lost=False)

    @rule(replica=REPLICAS, task_id=TASKS, body=st.sampled_from(["{}", '{"other": 1}']), lost=LOST)
    def create(self, replica: int, task_id: str, body: str, lost: bool) -> None:
        self._ask(self._creation(replica, task_id, body), lost=lost)

    @rule(replica=REPLICAS, task_id=TASKS, lost=LOST)
    def withdraw(self, replica: int, task_id: str, lost: bool) -> None:
        if (replica, task_id) in self.made:
            self._ask(self._withdrawal(replica, task_id), lost=lost)

    @rule(replica=REPLICAS, task_id=TASKS)
    def look(self, replica: int, task_id: str) -> None:
        """A janitor's view may be old by the time it acts on it."""
        if task_id in self.ledger.items:
            self.seen[replica, task_id] = TaskRecord.from_item(self.ledger.items[task_id])

    @rule(replica=REPLICAS, task_id=TASKS, lost=LOST)
    def resend(self, replica: int, task_id: str, lost: bool) -> None:
        if (replica, task_id) in self.seen:
            self._ask(self._resending(replica, task_id), lost=lost)

    @rule(task_id=TASKS, lost=LOST)
    def give_up(self, task_id: str, lost: bool) -> None:
        self._ask(self._giving_up(task_id), lost=lost)

    # workers

    @rule(task_id=TASKS, lost=LOST)
    def claim(self, task_id: str, lost: bool) -> None:
        self._ask(self._claim(task_id), lost=lost)

    @rule(task_id=TASKS, back=BACK, lost=LOST)
    def hold(self, task_id: str, back: int, lost: bool) -> None:
        self._ask_as_worker("hold", task_id, back, lost=lost, lease_s=LEASE_S)

    @rule(task_id=TASKS, back=BACK, run=RUNS, lost=LOST)
    def note_upstream_job(self, task_id: str, back: int, run: str, lost: bool) -> None:
        self._ask_as_worker("note_upstream_job", task_id, back, lost=lost, comfy_job_id=run)

    @rule(task_id=TASKS, back=BACK, run=RUNS, lost=LOST)
    def finish(self, task_id: str, back: int, run: str, lost: bool) -> None:
        self._ask_as_worker("finish", task_id, back, lost=lost, result_s3_uri=f"s3://results/{run}")

    @rule(task_id=TASKS, back=BACK, message=st.sampled_from(["no", "never"]), lost=LOST)
    def fail(self, task_id: str, back: int, message: str, lost: bool) -> None:
        self._ask_as_worker("fail", task_id, back, lost=lost, code=ErrorCode.UPSTREAM_FAILED, message=message)

    @rule(task_id=TASKS, back=BACK, keep=st.booleans(), lost=LOST)
    def release(self, task_id: str, back: int, keep: bool, lost: bool) -> None:
        self._ask_as_worker("release", task_id, back, lost=lost, keep_upstream_job=keep)

    # time and the wire

    @rule(seconds=PAUSES)
    def wait(self, seconds: float) -> None:
        self.now = round(self.now + seconds, 3)

    @rule(ago=st.integers(1, 5))
    def repeat_late(self, ago: int) -> None:
        """The try whose answer was lost is followed by another one, as it was, after others had their say."""
        if len(self.asked) >= ago and self._is_of_this_life(self.asked[-ago]):
            self._ask(self.asked[-ago], lost=False)

    @rule(task_id=TASKS, verbs=st.tuples(CONTENDERS, CONTENDERS))
    def race(self, task_id: str, verbs: tuple[str, str]) -> None:
        """Two requests at once must come out as one after the other would, in one order or the other."""
        runners = self._contenders(task_id)
        if not runners.keys() >= set(verbs):
            return
        first, second = (runners[verb]() for verb in verbs)
        self.is_sound = False
        answers = self.world.runner.run(_both(first, second, self.world.table))
        item = self._item(task_id)
        for one, other, heard in ((first, second, answers), (second, first, answers[::-1])):
            ledger = deepcopy(self.ledger)
            if (one.enter_in(ledger), other.enter_in(ledger)) == heard and ledger.items.get(task_id) == item:
                self.ledger = ledger
                self._audit(one, heard[0], item)
                self._audit(other, heard[1], item)
                self.is_sound = True
                return
        pytest.fail(f"{first} and {second} at once: {answers}, {item}")

    def teardown(self) -> None:
        try:
            if self.is_sound:
                self.world.runner.run(self._check_index())
        finally:
            self.world.runner.run(self._clear())

    # making requests

    def _creation(self, replica: int, task_id: str, body: str) -> Request:
        times = dict.fromkeys(("created_at", "updated_at", "queued_at"), self.now)
        record = record_of(task_id=task_id, request_body=body, expires_at=self.now + RETENTION_S, **times)
        self.made[replica, task_id] = record
        return Request("create", {"record": record}, self.now)

    def _withdrawal(self, replica: int, task_id: str) -> Request:
        return Request("withdraw", {"record": self.made[replica, task_id]}, self.now)

    def _resending(self, replica: int, task_id: str) -> Request:
        return Request("resend", {"record": self.seen[replica, task_id]}, self.now)

    def _giving_up(self, task_id: str) -> Request:
        arguments = {"task_id": task_id, "code": ErrorCode.EXPIRED, "message": "too old"}
        return Request("give_up", arguments, self.now)

    def _claim(self, task_id: str) -> Request:
        terms = {"worker": f"worker-{next(self.numbers)}", "lease_s": LEASE_S, "max_attempts": MAX_ATTEMPTS}
        return Request("claim", {"task_id": task_id, **terms}, self.now)

    def _as_worker(self, verb: str, task_id: str, attempt: int, **arguments: Any) -> Request:
        item = self.ledger.items[task_id]
        task = replace(TaskRecord.from_item(item), attempt=attempt)
        return Request(verb, {"task": task, **arguments}, self.now)

    def _contenders(self, task_id: str) -> dict[str, Callable[[], Request]]:
        found: dict[str, Callable[[], Request]] = {
            "claim": lambda: self._claim(task_id),
            "create": lambda: self._creation(0, task_id, "{}"),
            "give_up": lambda: self._giving_up(task_id),
        }
        if (0, task_id) in self.made:
            found["withdraw"] = lambda: self._withdrawal(0, task_id)
        if (0, task_id) in self.seen:
            found["resend"] = lambda: self._resending(0, task_id)
        if attempt := self._attempts().get(task_id):
            found["finish"] = lambda: self._as_worker("finish", task_id, attempt, result_s3_uri="s3://results/run-3")
            found["hold"] = lambda: self._as_worker("hold", task_id, attempt, lease_s=LEASE_S)
            found["release"] = lambda: self._as_worker("release", task_id, attempt, keep_upstream_job=True)
        return found

    def _attempts(self) -> dict[str, int]:
        """The newest attempt at each task that was claimed."""
        return {task_id: item["attempt"] for task_id, item in self.ledger.items.items() if item["attempt"]}

    def _is_of_this_life(self, request: Request) -> bool:
        """A record lives for days, a worker's claim and its requests for minutes: none outlives its record."""
        task = request.arguments.get("task")
        item = self.ledger.items.get(task.task_id) if task else None
        return task is None or (item is not None and item.get("created_at") == task.created_at)

    # asking and auditing

    def _ask_as_worker(self, verb: str, task_id: str, back: int, *, lost: bool, **arguments: Any) -> None:
        newest = self._attempts().get(task_id)
        if newest is not None:
            self._ask(self._as_worker(verb, task_id, max(newest - back, 1), **arguments), lost=lost)

    def _ask(self, request: Request, *, lost: bool) -> None:
        expected = request.enter_in(self.ledger)
        if lost:
            self.world.emulated.order(
                service="dynamodb", action=ACTIONS.get(request.verb, "UpdateItem"), mode="drop", times=1
            )
            expected = request.enter_in(self.ledger)
        self.is_sound = False
        answer = self.world.runner.run(request.put_to(self.world.table))
        item = self._item(_task_id(request))
        assert answer == expected, request
        assert item == self.ledger.items.get(_task_id(request)), request
        self._audit(request, answer, item)
        self.is_sound = True
        self.asked.append(request)

    def _item(self, task_id: str) -> dict[str, Any] | None:
        return self.world.runner.run(self.world.table.get(task_id))

    def _audit(self, request: Request, answer: Answer, item: dict[str, Any] | None) -> None:
        """What must hold whatever the ledger says."""
        task_id = _task_id(request)
        if answer.name == "ok" and request.verb == "claim":
            assert answer.item is not None
            attempt = answer.item["attempt"]
            assert 1 <= attempt <= MAX_ATTEMPTS
            owner = self.owners.setdefault((task_id, answer.item["created_at"], attempt), answer.item["worker"])
            assert owner == request.arguments["worker"], "two workers were given the same attempt"
        if answer.name == "ok" and request.verb in ("finish", "fail"):
            task = request.arguments["task"]
            end = self.ends.setdefault((task_id, task.created_at, task.attempt), request)
            assert _said(end) == _said(request), "an attempt ended in two ways"
        before = self.ended.get(task_id)
        if before is not None and before["expires_at"] > self.now and before.get("error_code") != "withdrawn":
            assert item == before, "a terminal record changed"
        if item is not None and is_done(item):
            self.ended[task_id] = item

    async def _check_index(self) -> None:
        store = TaskStore(self.world.table, lambda: self.now)
        live = [record.task_id for record in await live_tasks(store)]
        assert sorted(live) == sorted(task_id for task_id, item in self.ledger.items.items() if not is_done(item))
        assert await store.has_live() is bool(live)

    async def _clear(self) -> None:
        for task_id in ("t-1", "t-2"):
            await self.world.table.delete(task_id, Missing("nothing"))


async def _both(first: Request, second: Request, table: Table) -> tuple[Answer, Answer]:
    one, other = await asyncio.gather(first.put_to(table), second.put_to(table))
    return one, other


def _task_id(request: Request) -> str:
    named = request.arguments.get("record") or request.arguments.get("task")
    return str(named.task_id if named else request.arguments["task_id"])


def _said(request: Request) -> tuple[Any, ...]:
    return request.verb, *(value for name, value in request.arguments.items() if name != "task")


@pytest.fixture
def world(emulated: Emulated, aws_environment: None, task_table: str) -> Iterator[World]:
    with asyncio.Runner() as runner:
        session = AwsSession(region=REGION, endpoint_url=emulated.endpoint_url)
        client = runner.run(session.dynamodb(TWICE))
        table = Table(client, name=task_table, key=TABLE_KEY, policy=TWICE)
        yield World(runner, emulated, table)
        runner.run(session.__aexit__(None, None, None))


def test_the_store_keeps_the_ledger_whatever_happens(world: World) -> None:
    play(lambda: StoreMachine(world), examples=18, steps=25)
