"""One trace under one policy, from midnight to the end of its last task, and what came of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from lib.gputask.record import Status, TaskRecord
from services.devstack.billing import billed_s, cost_usd, running_s
from services.devstack.power import Interval, State
from services.devstack.simulation.machine import StartRefusedError
from services.devstack.simulation.numbers import DAY_S, LAST_LOOK_S
from services.devstack.simulation.policies import POLICIES
from services.devstack.simulation.traces import Span, Trace
from services.devstack.simulation.world import World, build_world


@dataclass(frozen=True, slots=True, kw_only=True)
class Day:
    """How it ended. Hours and dollars are those of the 24 h; tasks are followed to their end, or a day further.

    Attributes:
        failed: number of tasks by error code.
        stranded_at_s: when the tasks arrived that never ended.
        killed_at_s: when a stop was ordered that ended a job in mid-work, without saying so to its client.
        waits_s: of completed tasks, from the POST to the result, less the job's own run.
        longest_idle_s: the longest time on end that the instance ran without a job in work.
        stops_s: when it was stopped, by rule.
    """

    trace: Trace
    policy: str
    tasks: tuple[TaskRecord, ...]
    completed: int
    failed: dict[str, int]
    stranded_at_s: tuple[float, ...]
    killed_at_s: tuple[float, ...]
    waits_s: tuple[float, ...]
    gpu_s: float
    idle_s: float
    longest_idle_s: float
    usd: float
    history: tuple[Interval, ...]
    work: tuple[Span, ...]
    stops_s: dict[str, list[float]]

    def wait_s(self, percent: float) -> float | None:
        """Nearest-rank percentile of the waits."""
        if not self.waits_s:
            return None
        rank = max(-(-len(self.waits_s) * percent // 100), 1)
        return self.waits_s[int(rank) - 1]


def simulate(trace: Trace, policy: str) -> Day:
    """Let one day pass."""
    world = build_world(trace)
    keeper = POLICIES[policy](world, trace)
    for task_id, job in world.jobs.items():
        world.clock.at(job.at_s, lambda task_id=task_id: keeper.submit(task_id))  # type: ignore[misc]
    for at_s in trace.manual_starts_s:
        world.clock.at(at_s, lambda: _start_by_hand(world))
    world.clock.run(DAY_S)
    world.clock.run(LAST_LOOK_S, is_over=lambda: not world.table.has_live)
    return _judge(world, trace, policy)


def _start_by_hand(world: World) -> None:
    with suppress(StartRefusedError):
        world.machine.start()


def _judge(world: World, trace: Trace, policy: str) -> Day:
    tasks = tuple(world.table.all())
    work = tuple(_within_day(world.chronicle.work))
    history = tuple(_day_of(world.machine.history))
    idle = _idle_stretches(history, work)
    billed = billed_s(history, now_s=DAY_S)
    return Day(
        trace=trace,
        policy=policy,
        tasks=tasks,
        completed=sum(1 for task in tasks if task.status is Status.COMPLETED),
        failed=dict(sorted(Counter(str(task.error_code) for task in tasks if task.status is Status.FAILED).items())),
        stranded_at_s=tuple(task.created_at for task in tasks if not task.status.is_terminal),
        killed_at_s=tuple(world.chronicle.killed_at_s),
        waits_s=tuple(sorted(_wait_s(world, task) for task in tasks if task.status is Status.COMPLETED)),
        gpu_s=running_s(history, now_s=DAY_S),
        idle_s=sum(idle),
        longest_idle_s=max(idle, default=0.0),
        usd=cost_usd(billed),
        history=history,
        work=work,
        stops_s=world.chronicle.stops_s,
    )


def _wait_s(world: World, task: TaskRecord) -> float:
    return (task.finished_at or 0.0) - task.created_at - world.jobs[task.task_id].run_s


def _within_day(spans: Iterable[Span]) -> list[Span]:
    return [replace(span, until_s=min(span.until_s, DAY_S)) for span in spans if span.since_s < DAY_S]


def _day_of(history: Iterable[Interval]) -> list[Interval]:
    return [
        replace(part, until_s=DAY_S if part.until_s is None else min(part.until_s, DAY_S))
        for part in history
        if part.since_s < DAY_S
    ]


def _idle_stretches(history: Sequence[Interval], work: Sequence[Span]) -> list[float]:
    """Seconds of each stretch in `running` without a job."""
    stretches = []
    for run in history:
        if run.state is not State.RUNNING:
            continue
        free_since_s, end_s = run.since_s, DAY_S if run.until_s is None else run.until_s
        for span in work:
            if span.until_s <= run.since_s or span.since_s >= end_s:
                continue
            stretches.append(span.since_s - free_since_s)
            free_since_s = min(span.until_s, end_s)
        stretches.append(end_s - free_since_s)
    return [stretch for stretch in stretches if stretch > 0]
