"""Between the world's small numbers and the records, changes and facts of the real code; remembers every answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lib.asyncaws.conditions import Change
from lib.asyncaws.instance import InstanceState
from lib.gputask.record import TaskRecord
from services.adapter.refusal import Refusal
from services.orchestrator.tidying import Verdict
from services.orchestrator.waking import Action, WakeFacts
from services.shutdown import facts as shutdown_facts
from services.shutdown.decision import ForceStop, Leave
from tests.model.rules import MOST_SENDS, Rules, Scope
from tests.model.world import (
    HANGING,
    LIVE,
    NO_RECORD,
    NOBODY,
    NOW_S,
    TERMINAL,
    TICK_S,
    WITHDRAWN,
    Hold,
    Look,
    Task,
    World,
)

_STATES = {state.value: state for state in InstanceState} | {HANGING: InstanceState.STOPPING}


def moment(age: int) -> int:
    """Epoch seconds of something so many ticks ago."""
    return NOW_S - age * TICK_S


def item_of(task: Task) -> dict[str, Any]:
    """The table's item."""
    item = {
        "task_id": "task",
        "job_type": "/",
        "status": "failed" if task.status == WITHDRAWN else task.status,
        "error_code": "withdrawn" if task.status == WITHDRAWN else None,
        "created_at": moment(task.created),
        "updated_at": moment(task.created),
        "queued_at": moment(task.queued) if task.sends else None,
        "sends": task.sends or None,
        "creation": "this one" if task.sends else None,
        "attempt": task.attempt if task.sends else task.attempt or None,
        "claimed_at": None if task.claimed is None else moment(task.claimed),
        "lease_until": None if task.left is None else moment(-task.left),
        "comfy_job_id": str(task.job) if task.job else None,
    }
    return {name: value for name, value in item.items() if value is not None}


def record_of(task: Task) -> TaskRecord | None:
    return None if task.status == NO_RECORD else TaskRecord.from_item(item_of(task))


class Table:
    """Asks the real rules about small worlds. The same question has the same answer, so each is asked once."""

    def __init__(self, rules: Rules, scope: Scope) -> None:
        self._rules = rules
        self._scope = scope
        self._policy = scope.policy
        self._limits = scope.limits
        self._changed: dict[Any, Task | None] = {}
        self._verdicts: dict[tuple[Task, bool], Verdict] = {}
        self._refusals: dict[Task, Refusal] = {}
        self._looks: dict[Any, Look | None] = {}
        self._wakes: dict[Any, Action] = {}

    def change(self, task: Task, verb: Callable[..., Change], **arguments: Any) -> Task | None:
        """The task after a conditional write made now; None if the condition does not hold."""
        key = (task, verb, *arguments.items())
        if key not in self._changed:
            self._changed[key] = self._change(task, verb(now=NOW_S, **arguments))
        return self._changed[key]

    def resend(self, task: Task, queued: int, sends: int) -> Task | None:
        """The announcement of another send, by somebody who read the record as it was then."""
        key = (task, queued, sends)
        if key not in self._changed:
            seen = record_of(task._replace(status="pending", queued=queued, sends=sends))
            self._changed[key] = self._change(task, self._rules.verbs.resend(seen, now=NOW_S))
        return self._changed[key]

    def verdict(self, world: World, number: int) -> Verdict:
        """The janitor's."""
        is_covered = len(world.queue) >= sum(task.is_live for task in world.tasks)
        key = task, _ = world.tasks[number], is_covered
        if key not in self._verdicts:
            record = TaskRecord.from_item(item_of(task))
            self._verdicts[key] = self._rules.tidy(record, now=NOW_S, limits=self._limits, is_covered=is_covered)
        return self._verdicts[key]

    def refusal(self, task: Task) -> Refusal:
        """What becomes of a message whose task could not be claimed."""
        if task not in self._refusals:
            record, most = record_of(task), self._scope.max_attempts
            self._refusals[task] = self._rules.refuse(record, now=NOW_S, max_attempts=most)
        return self._refusals[task]

    def waking(self, world: World) -> Action:
        """The waker's decision."""
        demand = any(task.status in LIVE for task in world.tasks)
        left = world.hold.left if world.hold else 0
        key = (demand, world.power, left, world.refused)
        if key not in self._wakes:
            facts = WakeFacts(
                now=NOW_S,
                demand=demand,
                state=_STATES[world.power],
                hold_until=moment(-left),
                refusals=int(world.refused),
                refused_at=NOW_S if world.refused else 0.0,
            )
            self._wakes[key] = self._rules.wake(facts).action
        return self._wakes[key]

    def look(self, world: World) -> Look | None:
        """What a Lambda that looks now is going to do; None if nothing."""
        visible = any(message.hidden == 0 for message in world.queue)
        key = (world.power, world.launched, world.tasks, visible, world.report, world.hold)
        if key not in self._looks:
            self._looks[key] = self._decide(self._facts(world, visible=visible))
        return self._looks[key]

    def _change(self, task: Task, change: Change) -> Task | None:
        if task.status in NOBODY:
            return None
        item = change.applied_to(item_of(task))
        if item is None:
            return None
        if item["status"] in TERMINAL:
            return task._replace(status=str(item["status"]), left=None)
        return task._replace(
            status=str(item["status"]),
            queued=(NOW_S - item["queued_at"]) // TICK_S if "queued_at" in item else task.queued,
            sends=min(item.get("sends", 0), MOST_SENDS),
            attempt=item.get("attempt", 0),
            claimed=(NOW_S - item["claimed_at"]) // TICK_S if "claimed_at" in item else None,
            left=(item["lease_until"] - NOW_S) // TICK_S if "lease_until" in item else None,
            job=int(item.get("comfy_job_id", 0)),
        )

    def _facts(self, world: World, *, visible: bool) -> shutdown_facts.Facts:
        if world.power == HANGING:
            return shutdown_facts.Facts(now=NOW_S, state="stopping", stopping_since=moment(world.launched))
        if world.power != "running":
            return shutdown_facts.Facts(now=NOW_S, state=world.power)
        finished = [task for task in world.tasks if task.status in TERMINAL]
        claims = [moment(task.claimed) for task in finished if task.claimed is not None]
        hold, report = world.hold, world.report
        launched_at = moment(world.launched)
        return shutdown_facts.Facts(
            now=NOW_S,
            state=world.power,
            launched_at=launched_at,
            tasks=tuple(_live(number, task) for number, task in enumerate(world.tasks) if task.status in LIVE),
            last_created_at=max((moment(task.created) for task in finished), default=None),
            last_claimed_at=max(claims, default=None),
            visible=int(visible),
            worker=report
            and shutdown_facts.Worker(
                beat_at=moment(report.beat),
                upstream_ok_at=None if report.ok is None else moment(report.ok),
            ),
            hold=hold
            and shutdown_facts.Hold(
                until=moment(-hold.left), count=hold.times, put_at=launched_at if hold.fresh else launched_at - 1
            ),
        )

    def _decide(self, facts: shutdown_facts.Facts) -> Look | None:
        decision = self._rules.judge(facts, self._policy)
        if isinstance(decision, Leave):
            return Look(clears=facts.hold.count) if decision.clear_hold and facts.hold else None
        if isinstance(decision, ForceStop):
            return Look(forces=True)
        given_up = tuple((int(task.task_id), task.attempt) for task in decision.give_up)
        return Look(give_up=given_up, hold=_hold(decision.hold), stops=True)


def _hold(hold: shutdown_facts.Hold | None) -> Hold | None:
    if hold is None:
        return None
    return Hold(left=int(hold.until - NOW_S) // TICK_S, times=hold.count, fresh=True)


def _live(number: int, task: Task) -> shutdown_facts.Task:
    return shutdown_facts.Task(
        task_id=str(number),
        status=task.status,
        created_at=moment(task.created),
        claimed_at=None if task.claimed is None else moment(task.claimed),
        lease_until=None if task.left is None else moment(-task.left),
        attempt=task.attempt,
    )
