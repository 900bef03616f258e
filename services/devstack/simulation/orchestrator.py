"""The orchestrator's two loops on the virtual clock: thin shells, as the real ones, round the real decisions."""

from __future__ import annotations

from lib.asyncaws.instance import InstanceState
from lib.gputask import transitions
from lib.gputask.record import ErrorCode, TaskRecord
from services.devstack.simulation.machine import StartRefusedError
from services.devstack.simulation.numbers import (
    JANITOR_INTERVAL_S,
    MAX_UNFINISHED_PER_CLIENT,
    RESEND_AFTER_S,
    TASK_MAX_AGE_S,
    WAKER_INTERVAL_S,
    WAKER_SPACING_S,
)
from services.devstack.simulation.world import World
from services.orchestrator import tidying, waking
from services.orchestrator.quota import Quota

_LIMITS = tidying.Limits(resend_after_s=RESEND_AFTER_S, max_age_s=TASK_MAX_AGE_S)


class Waker:
    """Looks every so often, and soon after a nudge; remembers nothing but the refusals in a row."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._refusals = 0
        self._refused_at_s = 0.0
        self._looked_at_s = -WAKER_SPACING_S
        self._next = world.clock.after(0, self._look)

    def nudge(self) -> None:
        self._look_at(max(self._world.clock.now_s, self._looked_at_s + WAKER_SPACING_S))

    def _look(self) -> None:
        clock, machine, hold = self._world.clock, self._world.machine, self._world.table.hold
        self._looked_at_s = clock.now_s
        state = InstanceState(machine.state.value)
        if state is not InstanceState.STOPPED:
            self._refusals = 0
        decision = waking.decide(
            waking.WakeFacts(
                now=clock.now_s,
                demand=self._world.table.has_live,
                state=state,
                hold_until=hold.until if hold else 0.0,
                refusals=self._refusals,
                refused_at=self._refused_at_s,
            )
        )
        delay_s = decision.after_s or WAKER_INTERVAL_S
        if decision.action is waking.Action.START:
            delay_s = self._start()
        self._look_at(clock.now_s + max(min(delay_s, WAKER_INTERVAL_S), WAKER_SPACING_S))

    def _start(self) -> float:
        """Returns the seconds until the next look."""
        try:
            self._world.machine.start()
        except StartRefusedError:
            self._refusals += 1
            self._refused_at_s = self._world.clock.now_s
            return waking.backoff_s(self._refusals)
        self._refusals = 0
        return waking.TRANSITION_LOOK_S

    def _look_at(self, at_s: float) -> None:
        self._next.cancel()
        self._next = self._world.clock.at(at_s, self._look)


class Janitor:
    """Buries dead letters, sends again what nobody took, fails what is too old, and counts what each client has."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.quota = Quota(MAX_UNFINISHED_PER_CLIENT)
        world.clock.every(JANITOR_INTERVAL_S, self._round, first_s=JANITOR_INTERVAL_S / 2)

    def _round(self) -> None:
        self._bury()
        now_s = self._world.clock.now_s
        live = self._world.table.live()
        self.quota.begin_walk(now_s)
        for task in live:
            self.quota.see(task)
        self.quota.end_walk()
        is_covered = self._world.queue.depth >= len(live)
        for task in live:
            match tidying.decide(task, now=now_s, limits=_LIMITS, is_covered=is_covered):
                case tidying.Verdict.RESEND:
                    self._resend(task)
                case tidying.Verdict.EXPIRE:
                    self._give_up(task.task_id, ErrorCode.EXPIRED)
                case tidying.Verdict.KEEP:
                    pass

    def _bury(self) -> None:
        letters = self._world.queue.dead_letters
        for letter in list(letters):
            self._give_up(letter.task_id, ErrorCode.DEAD_LETTER)
            if self._world.table.read(letter.task_id).status.is_terminal:
                letters.remove(letter)

    def _resend(self, task: TaskRecord) -> None:
        world = self._world
        if world.table.write(task.task_id, transitions.resend(task, now=world.clock.now_s)):
            world.queue.send(task.task_id)

    def _give_up(self, task_id: str, code: ErrorCode) -> None:
        self._world.table.write(task_id, transitions.give_up(now=self._world.clock.now_s, code=code, message=code))
