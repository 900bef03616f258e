"""What nobody of ours decides: the instance boots, jobs end, messages come twice, people press buttons, time passes."""

from __future__ import annotations

from collections.abc import Iterator

from tests.model.adapter import AdapterProgram, bereaved, died
from tests.model.orchestrator import launched
from tests.model.rules import Rules, Scope
from tests.model.step import FREE, PROMPT, Step, fault
from tests.model.table import Table
from tests.model.world import (
    HANGING,
    LIVE,
    NO_RECORD,
    NOBODY,
    PENDING,
    RUNNING,
    STOPPED,
    STOPPING,
    TERMINAL,
    Alarm,
    Hold,
    Message,
    Report,
    Task,
    Upstream,
    World,
    queued,
)


class Surroundings:
    """Instance, upstream, queue, people."""

    def __init__(self, rules: Rules, scope: Scope, table: Table) -> None:
        self._rules = rules
        self._table = table
        self._counts = int(scope.most_launches is not None)

    def steps(self, world: World) -> Iterator[Step]:
        if world.power == PENDING:
            launches = world.launches + self._counts
            after_boot = world._replace(power=RUNNING, upstream=Upstream(), launches=launches)
            yield Step("EC2", "the GPU is running", PROMPT, after_boot)
        upstream = world.upstream
        if upstream.jobs and not upstream.hung:
            ended, rest = upstream.jobs[0], upstream.jobs[1:]
            after = Upstream(hung=False, jobs=rest, done=(*upstream.done, ended))
            yield Step("upstream", f"the job of task {ended[0]} ends", FREE, world._replace(upstream=after))
        if late := world.late:
            task = world.tasks[late.task]
            after_write = self._table.change(
                task, self._rules.verbs.finish, attempt=late.token, result_s3_uri="s3://b/k"
            )
            text = f"the dead adapter's result of task {late.task} arrives"
            arrived = world._replace(late=None)
            yield Step("late write", text, FREE, arrived.with_task(late.task, after_write or task))

    def faults(self, world: World) -> Iterator[Step]:
        if world.power == RUNNING:
            yield fault("operator", "stops the GPU by hand", world._replace(power=STOPPING))
            yield from _upstream_faults(world)
        if world.power == STOPPING:
            yield fault("EC2", "never ends the stop", died(_forgotten(world))._replace(power=HANGING, launched=0))
        if world.power == STOPPED:
            yield fault("operator", "starts the GPU by hand", launched(world))
        for number, task in enumerate(world.tasks):
            if task.status != NO_RECORD:
                twice = world._replace(queue=queued(world.queue, Message(number)))
                yield fault("queue", f"another copy of the message of task {number} turns up", twice)
        for number, task in enumerate(world.tasks):
            if task.status == "pending" and not task.runs:
                foreign = task._replace(sends=0, attempt=0, claimed=None, left=None)
                for status in LIVE:
                    said = f"leaves task {number} {status}, without lease, attempt and number of sends"
                    yield fault("another program", said, world.with_task(number, foreign._replace(status=status)))
        for message in dict.fromkeys(world.queue):
            rest = list(world.queue)
            rest.remove(message)
            yield fault("queue", f"loses a message of task {message.task}", world._replace(queue=tuple(rest)))


def _upstream_faults(world: World) -> Iterator[Step]:
    upstream = world.upstream
    if not upstream.hung:
        hung = bereaved(world, {number for number, _ in upstream.jobs})
        yield fault("upstream", "hangs for ever", hung._replace(upstream=upstream._replace(hung=True)))
    if upstream != Upstream():
        yield fault("upstream", "is restarted and has forgotten everything", _forgotten(world))


def _forgotten(world: World) -> World:
    upstream = world.upstream
    return bereaved(world, {number for number, _ in (*upstream.jobs, *upstream.done)})._replace(upstream=Upstream())


class Clock:
    """Lets one tick pass."""

    def __init__(self, rules: Rules, scope: Scope, adapter: AdapterProgram) -> None:
        self._scope = scope
        self._adapter = adapter
        self._has_alarm = rules.stops_on_alarm_only

    def alarm_of_an_empty_queue(self) -> Alarm:
        """As it has been for hours."""
        return Alarm(self._scope.idle, in_alarm=True) if self._has_alarm else Alarm()

    def tick(self, world: World) -> World:
        oldest = self._scope.oldest
        if world.power == STOPPING:
            world = died(_forgotten(world))._replace(power=STOPPED)
        world = world._replace(
            tasks=tuple(_aged(task, oldest, self._scope.past) for task in world.tasks),
            queue=tuple(sorted(m._replace(hidden=m.hidden - 1) if m.hidden else m for m in world.queue)),
            launched=min(world.launched + 1, self._scope.past) if world.power in (PENDING, RUNNING, HANGING) else 0,
            hold=_older_hold(world.hold),
            report=_older_report(world.report, self._scope),
            adapter=world.adapter._replace(since=min(world.adapter.since + 1, self._scope.deadline))
            if world.adapter.token
            else world.adapter,
            refused=False,
            posts=tuple(
                p._replace(queued=min(p.queued + 1, oldest)) if p.stage == "announce" else p for p in world.posts
            ),
            janitor=world.janitor and world.janitor._replace(queued=min(world.janitor.queued + 1, oldest)),
            looks=tuple(look._replace(hold=_older_hold(look.hold)) for look in world.looks),
            upstream=_known(world),
        )
        if world.late and not world.tasks[world.late.task].is_live:
            world = world._replace(late=None)
        world = self._adapter.beat(world)
        world = simplified(world, self._scope)
        return self._sampled(world) if self._has_alarm else world

    def _sampled(self, world: World) -> World:
        """The original alarm: `visible` was 0 in so many periods in a row."""
        alarm = world.alarm
        visible = alarm.seen or any(message.hidden == 0 for message in world.queue)
        empty = 0 if visible else min(alarm.empty + 1, self._scope.idle)
        in_alarm = empty >= self._scope.idle
        event = alarm.event or (in_alarm and not alarm.in_alarm)
        return world._replace(alarm=Alarm(empty, seen=False, in_alarm=in_alarm, event=event))


def simplified(world: World, scope: Scope) -> World:
    """The same world for all that can come, without differences between moments that no rule can tell.

    Of claims only the newest since the launch counts, and of creations those after both.
    """
    past, oldest = scope.past, scope.oldest
    runs = world.power in (PENDING, RUNNING)
    ages = [task.claimed for task in world.tasks if task.claimed is not None]
    claimed = min(ages, default=past + 1)
    newest = min(world.launched, claimed) if runs else 0
    is_read = world.janitor is not None or any(post.stage == "announce" for post in world.posts)

    def plain(task: Task) -> Task:
        if task.claimed is not None and not (runs and task.claimed == claimed <= world.launched):
            task = task._replace(claimed=None)
        if scope.max_age is None and task.created >= newest and task.status:
            task = task._replace(created=past)
        if not is_read and task.left is not None and task.status == "processing" and task.queued >= -task.left:
            task = task._replace(queued=oldest)
        return task

    # The worker record was written since the launch, so the launch matters to the grace only, or as activity.
    launched = min(world.launched, max(scope.grace, claimed)) if runs else 0
    if world.power == HANGING:
        launched = min(world.launched, scope.force_stop_after)
    return world._replace(
        tasks=tuple(map(plain, world.tasks)), report=world.report if runs else None, launched=launched
    )


def _aged(task: Task, oldest: int, past: int) -> Task:
    if task.status in NOBODY:
        return task
    claimed = None if task.claimed is None else min(task.claimed + 1, past + 1)
    if task.status in TERMINAL:
        # Only how long ago it was active matters any more.
        return Task(task.status, created=min(task.created + 1, past), claimed=claimed, promised=task.promised)
    return task._replace(
        created=min(task.created + 1, oldest),
        queued=min(task.queued + 1, oldest),
        claimed=claimed,
        left=None if task.left is None else max(task.left - 1, -oldest),
    )


def _older_hold(hold: Hold | None) -> Hold | None:
    return hold and hold._replace(left=max(hold.left - 1, 0))


def _older_report(report: Report | None, scope: Scope) -> Report | None:
    return report and Report(
        min(report.beat + 1, scope.grace),
        None if report.ok is None else min(report.ok + 1, scope.grace),
    )


def _known(world: World) -> Upstream:
    """A result that nobody can ask for any more is as good as forgotten."""
    upstream = world.upstream
    done = tuple(
        (number, run)
        for number, run in upstream.done
        if world.tasks[number].is_live
        and (run == world.tasks[number].job or (number, run) == (world.adapter.task, world.adapter.job))
    )
    return upstream._replace(done=done)
