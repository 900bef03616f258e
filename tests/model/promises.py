"""What must hold in every world that can be reached, and where every run must end up."""

from __future__ import annotations

from collections.abc import Iterator

from tests.model.explore import Check
from tests.model.rules import Scope
from tests.model.step import PROMPT, Step
from tests.model.world import AT_WORK, NOBODY, RUNNING, TERMINAL, Task, World

TERMINAL_FOR_EVER = "a terminal record never changes"
ONE_HOLDER = "nobody claims a task whose lease is valid"
FENCED = "nobody writes to a task with an attempt that is not the current one"
FEW_RUNS = "the upstream runs a task no more often than it was claimed"
ONE_RUN = "a task runs again only if its upstream died, or its worker before it could note the run"
REAL_RESULT = "a task is completed only after a run"
KEPT = "a task whose client was answered 202 is never deleted"
FEW_LAUNCHES = "a broken image is launched ever more rarely"
SPARED = "no stop is decided while a healthy worker is at work within its deadline"
SEEN = "no stop is decided on a worker that has been at work for a while"
PATIENT = "a single fault does not use up the attempts of a lone task"
THRIFTY = "a GPU without work runs no longer than the idle limit, and a grace more if a message is left over"
ENDS = "every task that was answered 202 becomes terminal, and the GPU comes to rest"
CAN_END = "from everywhere every task that was answered 202 can become terminal, and the GPU can come to rest"


def promises(scope: Scope) -> Check:
    """Names the promises that a step breaks, in a world of this size."""

    def broken_by(before: World, step: Step) -> Iterator[str]:
        after = step.world
        if before.tasks is not after.tasks:
            for number, (old, new) in enumerate(zip(before.tasks, after.tasks, strict=True)):
                if old != new:
                    yield from _broken_by_write(before, step, number, old, new)
        if scope.most_launches is not None and after.launches > scope.most_launches:
            yield FEW_LAUNCHES
        if step.actor == "Lambda":
            yield from _broken_by_stop(before, after, scope)
        if step.actor == "time" and step.kind is PROMPT and _is_wasteful(before, scope):
            yield THRIFTY
        if scope.is_lone_task_with_one_fault and _gives_up(before, step):
            yield PATIENT

    return broken_by


def _broken_by_write(before: World, step: Step, number: int, old: Task, new: Task) -> Iterator[str]:
    if old.status in TERMINAL and (new.status, new.promised) != (old.status, old.promised or new.promised):
        yield TERMINAL_FOR_EVER
    if (old.promised or new.promised) and new.status in NOBODY:
        yield KEPT
    if new.attempt > old.attempt and old.status == "processing" and (old.left or 0) > 0:
        yield ONE_HOLDER
    if _token_of(before, step, number) not in (None, old.attempt) and new.attempt == old.attempt:
        yield FENCED
    if new.runs > old.runs:
        if new.runs > new.attempt:
            yield FEW_RUNS
        if not old.bereaved:
            yield ONE_RUN
    if new.status == "completed" and old.status != "completed" and not old.runs:
        yield REAL_RESULT


def _token_of(before: World, step: Step, number: int) -> int | None:
    """The attempt by whose right a worker writes to a record."""
    if step.actor == "late write" and before.late:
        return before.late.token
    if step.actor == "adapter" and before.adapter.task == number and before.adapter.stage in ("posted", "publishing"):
        return before.adapter.token
    return None


def _broken_by_stop(before: World, after: World, scope: Scope) -> Iterator[str]:
    if _is_decided(before, after) and _is_at_work(before, scope.deadline):
        yield SPARED
        if before.adapter.since > 0:
            yield SEEN


def _is_decided(before: World, after: World) -> bool:
    """Ours decides when it looks, the original when it is called."""
    if before.alarm.event:
        return after.power != before.power
    if len(after.looks) <= len(before.looks):
        return False
    return any(look.stops for look in after.looks if look not in before.looks)


def _is_at_work(world: World, deadline: int) -> bool:
    adapter = world.adapter
    if world.power != RUNNING or adapter.stage not in AT_WORK or adapter.since >= deadline:
        return False
    holds = (world.tasks[adapter.task].left or 0) > 0
    return holds and not (adapter.frozen or adapter.stuck or world.upstream.hung)


def _is_wasteful(world: World, scope: Scope) -> bool:
    """Time passes, on time, over a GPU that had nothing to do for too long."""
    if world.power != RUNNING or any(task.is_live for task in world.tasks):
        return False
    ages = [age for task in world.tasks if task.status not in NOBODY for age in (task.created, task.claimed)]
    idle = min(world.launched, *(age for age in ages if age is not None), scope.past)
    left_over = any(message.hidden == 0 for message in world.queue)
    return idle >= (scope.idle + scope.grace if left_over else scope.idle)


def _gives_up(before: World, step: Step) -> bool:
    fails = any(old.is_live and new.status == "failed" for old, new in zip(before.tasks, step.world.tasks, strict=True))
    return fails and (step.actor == "janitor" or before.adapter.stage == "exhausted")


def is_good(world: World) -> bool:
    """Where every run must end up. A record that nobody was promised is work as well."""
    return world.is_at_rest
