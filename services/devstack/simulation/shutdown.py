"""The shutdown Lambda on the virtual clock: facts from the model's table, the real decision, the real order of acts."""

from __future__ import annotations

from lib.gputask import transitions
from lib.gputask.record import ErrorCode, TaskRecord
from services.devstack.simulation.numbers import POLICY
from services.devstack.simulation.world import World
from services.shutdown.decision import Leave, Stop, decide
from services.shutdown.facts import Facts, Task


class ShutdownFunction:
    """One invocation is one look; why it was invoked plays no part."""

    def __init__(self, world: World) -> None:
        self._world = world

    def invoke(self) -> None:
        facts = self._look()
        match decide(facts, POLICY):
            case Leave(clear_hold=True):
                self._world.table.hold = None
            case Stop() as stop:
                self._stop(stop)
            case Leave():
                pass

    def _look(self) -> Facts:
        world, now_s = self._world, self._world.clock.now_s
        state = world.machine.state.value
        if state != "running":
            return Facts(now=now_s, state=state)
        world.queue.touch()
        finished = list(world.table.finished(since_s=now_s - 2 * POLICY.idle_s))
        return Facts(
            now=now_s,
            state=state,
            launched_at=world.machine.launched_at_s,
            tasks=tuple(_seen(task) for task in world.table.live()),
            last_created_at=max((task.created_at for task in finished), default=None),
            last_claimed_at=max((task.claimed_at for task in finished if task.claimed_at is not None), default=None),
            visible=world.queue.visible,
            worker=world.table.worker,
            hold=world.table.hold,
        )

    def _stop(self, stop: Stop) -> None:
        now_s, table = self._world.clock.now_s, self._world.table
        for task in stop.give_up:
            fail = transitions.fail(attempt=task.attempt, now=now_s, code=ErrorCode.RULE_B, message=stop.reason)
            table.write(task.task_id, fail)
        if stop.hold and (table.hold is None or table.hold.count < stop.hold.count):
            table.hold = stop.hold
        self._world.chronicle.stopped_by(stop.rule)
        self._world.machine.stop()


def _seen(task: TaskRecord) -> Task:
    """As the index shows it to the Lambda."""
    return Task(
        task_id=task.task_id,
        status=task.status,
        created_at=task.created_at,
        claimed_at=task.claimed_at,
        lease_until=task.lease_until,
        attempt=task.attempt,
    )
