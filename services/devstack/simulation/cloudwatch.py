"""CloudWatch beside the model: one point a minute while the queue is active, and the devstack's own rules of alarms."""

from __future__ import annotations

from collections.abc import Callable

from services.devstack.alarm import Alarm, AlarmDefinition, AlarmState, Expression
from services.devstack.power import State
from services.devstack.simulation.clock import Clock
from services.devstack.simulation.machine import Machine
from services.devstack.simulation.message_queue import MessageQueue
from services.devstack.simulation.numbers import MINUTE_S, PUBLISHING_LAG_S, QUEUE_ACTIVE_S, REACTIVATION_S
from services.devstack.simulation.traces import Span

_QUIET_MINUTES = 60
_SOME_LOAD = 1.0


class CloudWatch:
    """Calls `act` at each transition to ALARM, except while the calls are `lost`.

    The day begins after a quiet hour with the instance asleep: an alarm that does not look at the instance is in ALARM,
    and its transition was yesterday.
    """

    def __init__(
        self,
        clock: Clock,
        queue: MessageQueue,
        machine: Machine,
        *,
        expression: Expression,
        act: Callable[[], None],
        lost: Span,
    ) -> None:
        self._clock = clock
        self._queue = queue
        self._machine = machine
        self._act = act
        self._lost = lost
        self._sent_before = 0
        self._alarm = Alarm(AlarmDefinition(expression=expression, publishing_lag_s=PUBLISHING_LAG_S))
        for minute in range(-_QUIET_MINUTES, 0):
            self._alarm.metrics.publish(minute * MINUTE_S, visible=0, sent=0)
        self._alarm.look(0)
        clock.every(MINUTE_S, self._minute, first_s=MINUTE_S)

    def _minute(self) -> None:
        now_s, sent = self._clock.now_s, self._queue.sent
        if self._publishes(now_s):
            self._alarm.metrics.publish(
                now_s - MINUTE_S,
                visible=self._queue.visible,
                sent=sent - self._sent_before,
                cpu=_SOME_LOAD if self._machine.state is State.RUNNING else None,
            )
        self._sent_before = sent
        transition = self._alarm.look(now_s)
        if transition and transition.current is AlarmState.ALARM and not self._lost.covers(now_s):
            self._act()

    def _publishes(self, now_s: float) -> bool:
        """Taken at its worst: after a pause the points of the first quarter of an hour never come."""
        is_active = now_s - self._queue.touched_at_s <= QUEUE_ACTIVE_S
        return is_active and now_s - self._queue.active_since_s >= REACTIVATION_S
