"""Who starts and stops the GPU. Queue, table, adapter and prices are the same under every policy."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

from services.devstack.alarm import visible_only, work_while_running
from services.devstack.power import State
from services.devstack.simulation.cloudwatch import CloudWatch
from services.devstack.simulation.machine import StartRefusedError
from services.devstack.simulation.numbers import MINUTE_S, SCHEDULE_PHASE_S
from services.devstack.simulation.orchestrator import Janitor, Waker
from services.devstack.simulation.shutdown import ShutdownFunction
from services.devstack.simulation.traces import Trace
from services.devstack.simulation.world import World


class Policy(Protocol):
    """Set up on a world, it runs by itself; requests are handed to it."""

    def submit(self, task_id: str) -> None:
        """One request: record, a look at the GPU, message; or it is refused."""


class OriginalPolicy:
    """The plain rule.

    A POST looks once, and starts what is `stopped`; `stopping` counts as up, and a refused start is not repeated. The
    alarm watches visible messages only, and acts on transitions only. There is no schedule, and no janitor.
    """

    def __init__(self, world: World, trace: Trace) -> None:
        self._world = world
        CloudWatch(
            world.clock,
            world.queue,
            world.machine,
            expression=visible_only,
            act=self._on_alarm,
            lost=trace.alarm_lost,
        )

    def submit(self, task_id: str) -> None:
        self._world.create_task(task_id)
        if self._world.machine.state is State.STOPPED:
            with suppress(StartRefusedError):
                self._world.machine.start()
        self._world.queue.send(task_id)

    def _on_alarm(self) -> None:
        if self._world.machine.state is State.RUNNING:
            self._world.chronicle.stopped_by("alarm")
            self._world.machine.stop()


class OurPolicy:
    """Every look compares facts with what they should be: waker, janitor, and the Lambda each minute and on alarm."""

    def __init__(self, world: World, trace: Trace) -> None:
        self._world = world
        self._waker = Waker(world)
        self._quota = Janitor(world).quota
        shutdown = ShutdownFunction(world)
        world.clock.every(MINUTE_S, shutdown.invoke, first_s=SCHEDULE_PHASE_S)
        CloudWatch(
            world.clock,
            world.queue,
            world.machine,
            expression=work_while_running,
            act=shutdown.invoke,
            lost=trace.alarm_lost,
        )

    def submit(self, task_id: str) -> None:
        client = self._world.jobs[task_id].client
        if self._quota.is_used_up(client):
            return
        self._quota.note_accepted(client)
        self._world.create_task(task_id)
        self._waker.nudge()
        self._world.queue.send(task_id)


class AlwaysOnPolicy:
    """Started the evening before, and never stopped; the janitor works as in ours."""

    def __init__(self, world: World, trace: Trace) -> None:  # noqa: ARG002  made as the others are
        self._world = world
        Janitor(world)
        world.machine.run_since_yesterday()

    def submit(self, task_id: str) -> None:
        self._world.create_task(task_id)
        self._world.queue.send(task_id)


POLICIES: dict[str, Callable[[World, Trace], Policy]] = {
    "original": OriginalPolicy,
    "ours": OurPolicy,
    "always on": AlwaysOnPolicy,
}
