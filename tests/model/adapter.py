"""The adapter's program, one step per call it makes: processing.py, run.py, lease.py and the consumer round them."""

from __future__ import annotations

from collections.abc import Iterator

from lib.gputask.record import ErrorCode
from services.adapter.refusal import Claimable, Exhausted, HeldElsewhere, Obsolete, Unknown
from tests.model.rules import Rules, Scope
from tests.model.step import FREE as MAYBE
from tests.model.step import PROMPT, Step, fault
from tests.model.table import Table, moment
from tests.model.world import (
    AT_WORK,
    FREE,
    OFF,
    RUNNING,
    STOPPING,
    Adapter,
    Late,
    Message,
    Report,
    Task,
    Upstream,
    World,
    let_go,
    without_held,
)

_NAME = "adapter"


class AdapterProgram:
    """Proposes the adapter's next steps."""

    def __init__(self, rules: Rules, scope: Scope, table: Table) -> None:
        self._rules = rules
        self._verbs = rules.verbs
        self._scope = scope
        self._table = table

    def steps(self, world: World) -> Iterator[Step]:
        if world.power not in (RUNNING, STOPPING):
            return
        adapter = world.adapter
        if adapter.frozen:
            yield Step(_NAME, "it goes on", MAYBE, world._replace(adapter=adapter._replace(frozen=False)))
            yield Step(_NAME, "the watchdog kills it", MAYBE, died(world))
            return
        if adapter.stuck:
            return
        if adapter.stage == "off":
            if world.power == RUNNING and self._scope.works:
                yield Step(_NAME, "starts", PROMPT, _started(world))
            return
        if adapter.stage == "free":
            if world.power == RUNNING and world.upstream.is_healthy:
                yield from self._receive(world)
        else:
            text, after = self._next(world)
            if after is not None:
                yield Step(_NAME, text, PROMPT, after)
        if world.power == STOPPING and adapter.stage in AT_WORK:
            after = world._replace(adapter=adapter._replace(stage="publishing", end="abandoned"))
            yield Step(_NAME, "cannot wait any longer", MAYBE, after)

    def faults(self, world: World) -> Iterator[Step]:
        adapter = world.adapter
        if adapter.stage == "off" or world.power not in (RUNNING, STOPPING):
            return
        yield fault(_NAME, "crashes", died(world))
        if adapter.frozen or adapter.stuck:
            return
        yield fault(_NAME, "gets stuck, its heart beats on", world._replace(adapter=adapter._replace(stuck=True)))
        yield fault(_NAME, "freezes", world._replace(adapter=adapter._replace(frozen=True)))
        if adapter.stage == "publishing" and adapter.end == "completed" and world.late is None:
            late = died(world)._replace(late=Late(adapter.task, adapter.token))
            yield fault(_NAME, "crashes, its result still under way", late)
        if adapter.stage == "claimed" and world.upstream.is_healthy:
            lost = _submitted(world, end="failed")
            yield fault(_NAME, "submits the job, the answer is lost", lost)

    def beat(self, world: World) -> World:
        """What a living adapter has done in each tick: renewed its lease and told the table how it is."""
        adapter = world.adapter
        if adapter.stage == "off" or adapter.frozen or world.power != RUNNING:
            return world
        working = adapter.stage in (*AT_WORK, "publishing")
        ok = 0 if working or world.upstream.is_healthy else world.report and world.report.ok
        world = world._replace(report=Report(0, ok))
        if adapter.stage not in AT_WORK:
            return world
        task = world.tasks[adapter.task]
        held = self._table.change(
            task, self._verbs.hold, attempt=adapter.token, lease_until=lease_until(self._scope.lease)
        )
        if held is None:
            return _freed(world)
        queue = tuple(sorted(m._replace(hidden=self._scope.lease) if m.held else m for m in world.queue))
        return world.with_task(adapter.task, held, queue=queue)

    def _receive(self, world: World) -> Iterator[Step]:
        for message in dict.fromkeys(world.queue):
            if message.hidden:
                continue
            rest = list(world.queue)
            rest.remove(message)
            number = message.task
            if message.received >= self._scope.max_receives:
                letters = tuple(sorted({*world.letters, number}))
                dead = world._replace(queue=tuple(rest), letters=letters)
                yield Step("queue", f"the message of task {number} becomes a dead letter", PROMPT, dead)
                continue
            taken = Message(number, message.received + 1, self._scope.lease, held=True)
            report = world.report and world.report._replace(ok=0)
            after = world._replace(
                queue=tuple(sorted((*rest, taken))), adapter=Adapter("taken", task=number), report=report
            )
            yield Step(_NAME, f"receives task {number}", PROMPT, after)

    def _next(self, world: World) -> tuple[str, World | None]:
        match world.adapter.stage:
            case "taken":
                return self._take(world)
            case "claimed":
                return self._submit(world)
            case "posted":
                return self._note(world)
            case "awaiting":
                return self._await(world)
            case "publishing":
                return self._publish(world)
            case "exhausted":
                return self._give_up(world)
            case _:
                return self._answer(world)

    def _take(self, world: World) -> tuple[str, World | None]:
        adapter = world.adapter
        if not world.upstream.is_healthy:
            return "hands the message back, the upstream is silent", _freed(world, hidden=0)
        task = world.tasks[adapter.task]
        claimed = self._table.change(
            task,
            self._verbs.claim,
            worker="worker",
            lease_until=lease_until(self._scope.lease),
            max_attempts=self._scope.max_attempts,
        )
        if claimed is None:
            return self._decline(world, task)
        stage, end = ("awaiting", "adopted") if claimed.job else ("claimed", "")
        after = world.with_task(
            adapter.task,
            claimed,
            adapter=Adapter(stage, task=adapter.task, token=claimed.attempt, job=claimed.job, end=end),
            report=Report(0, 0),
        )
        if self._rules.acknowledges_first:
            after = after._replace(queue=without_held(after.queue))
        return f"claims task {adapter.task}, attempt {claimed.attempt}", after

    def _decline(self, world: World, task: Task) -> tuple[str, World]:
        refusal = self._table.refusal(task)
        if isinstance(refusal, Obsolete):
            return "finds nothing to do", world._replace(adapter=world.adapter._replace(stage="answering", end="ack"))
        if isinstance(refusal, HeldElsewhere):
            return "finds the task held, hands back", _freed(world, hidden=max(task.left or 0, 1))
        if isinstance(refusal, Claimable):
            return "hands back, the lease has just ended", _freed(world, hidden=0)
        if isinstance(refusal, Unknown):
            return "knows no such task, hands back", _freed(world, hidden=1)
        exhausted: Exhausted = refusal
        after = world._replace(adapter=world.adapter._replace(stage="exhausted", end=exhausted.code.value))
        return "finds the attempts exhausted", after

    def _give_up(self, world: World) -> tuple[str, World]:
        adapter = world.adapter
        code = ErrorCode(adapter.end)
        failed = self._table.change(world.tasks[adapter.task], self._verbs.give_up, code=code, message="")
        if failed is None:
            return "is overtaken, hands back", _freed(world, hidden=0)
        answering = adapter._replace(stage="answering", end="ack")
        return f"fails task {adapter.task}: {code.value}", world.with_task(adapter.task, failed, adapter=answering)

    def _submit(self, world: World) -> tuple[str, World | None]:
        if world.upstream.is_healthy:
            return "submits the job", _submitted(world)
        return self._wait(world)

    def _note(self, world: World) -> tuple[str, World]:
        adapter = world.adapter
        noted = self._table.change(
            world.tasks[adapter.task], self._verbs.note, attempt=adapter.token, comfy_job_id=str(adapter.job)
        )
        if noted is None:
            return "has lost its lease", _freed(world)
        return "notes the upstream's id", world.with_task(
            adapter.task, noted, adapter=adapter._replace(stage="awaiting")
        )

    def _await(self, world: World) -> tuple[str, World | None]:
        adapter, upstream = world.adapter, world.upstream
        if not upstream.is_healthy:
            return self._wait(world)
        known = (adapter.task, adapter.job) in upstream.done
        if adapter.end == "adopted" and not known:
            submitting = adapter._replace(stage="claimed", job=0, end="")
            return "learns that the adopted run was lost", world._replace(adapter=submitting)
        text = "sees the result" if known else "learns that the upstream forgot the job"
        end = "completed" if known else "forgotten"
        return text, world._replace(adapter=adapter._replace(stage="publishing", end=end))

    def _wait(self, world: World) -> tuple[str, World | None]:
        adapter = world.adapter
        if adapter.since < self._scope.deadline:
            return "", None
        return "is past the job's deadline", world._replace(
            adapter=adapter._replace(stage="publishing", end="deadline")
        )

    def _publish(self, world: World) -> tuple[str, World]:
        adapter, verbs = world.adapter, self._verbs
        task, token = world.tasks[adapter.task], adapter.token
        match adapter.end:
            case "completed":
                after = self._table.change(task, verbs.finish, attempt=token, result_s3_uri="s3://b/k")
            case "deadline":
                after = self._table.change(task, verbs.fail, attempt=token, code=ErrorCode.DEADLINE, message="")
            case "failed":
                after = self._table.change(task, verbs.fail, attempt=token, code=ErrorCode.UPSTREAM_FAILED, message="")
            case end:
                keep = end == "abandoned"
                after = self._table.change(task, verbs.release, attempt=token, keep_upstream_job=keep)
        if after is None:
            return "has lost its lease, publishes nothing", _freed(world)
        answer = "ack" if adapter.end in ("completed", "deadline", "failed") else "back"
        answering = adapter._replace(stage="answering", end=answer)
        return f"publishes: task {adapter.task} {adapter.end}", world.with_task(adapter.task, after, adapter=answering)

    def _answer(self, world: World) -> tuple[str, World]:
        if world.adapter.end == "ack":
            return "deletes the message", world._replace(adapter=FREE, queue=without_held(world.queue))
        return "hands the message back", _freed(world, hidden=0)


def lease_until(ticks: int) -> int:
    """Epoch seconds of the end of a lease taken now."""
    return moment(-ticks)


def died(world: World) -> World:
    """The adapter is gone; what it held is left to its lease and its visibility timeout."""
    adapter = world.adapter
    after = world._replace(adapter=OFF, queue=let_go(world.queue))
    has_not_noted = adapter.stage in ("claimed", "posted") or adapter.end == "failed"
    return bereaved(after, {adapter.task} if has_not_noted else set())


def bereaved(world: World, numbers: set[int]) -> World:
    """These tasks have lost their upstream, or their worker before it noted their run: they may be run again."""
    if not numbers:
        return world
    tasks = tuple(
        task._replace(bereaved=True) if number in numbers and task.is_live else task
        for number, task in enumerate(world.tasks)
    )
    return world._replace(tasks=tasks)


def _started(world: World) -> World:
    return world._replace(adapter=FREE, report=Report(0, 0 if world.upstream.is_healthy else None))


def _freed(world: World, *, hidden: int | None = None) -> World:
    return world._replace(adapter=FREE, queue=let_go(world.queue, hidden=hidden))


def _submitted(world: World, *, end: str = "") -> World:
    adapter, upstream = world.adapter, world.upstream
    task = world.tasks[adapter.task]
    run = task.runs + 1
    stage = "publishing" if end else "posted"
    return world.with_task(
        adapter.task,
        task._replace(runs=run, bereaved=False),
        adapter=adapter._replace(stage=stage, job=run, end=end),
        upstream=Upstream(upstream.hung, (*upstream.jobs, (adapter.task, run)), upstream.done),
    )
