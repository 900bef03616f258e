"""What CloudWatch and EventBridge do in AWS, on a clock that runs `scale` times faster: they call the shutdown Lambda.

Three sources, all real event shapes: the alarm `QueueEmptyFor30Min` (transitions only), a schedule every minute, and
the EC2 event of a stopped instance; or whatever else is wired. Metrics are read from the emulator itself: CloudWatch
makes no AWS call for them.
"""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import aiohttp
import structlog

from services.devstack.alarm import Alarm, AlarmState
from services.devstack.emulator.client import EmulatorClient
from services.devstack.events import alarm_event, instance_state_event, schedule_event
from services.devstack.lambda_function import LambdaError
from services.devstack.power import State
from services.devstack.resources import Resources
from services.devstack.wiring import Schedule, Wiring

log = structlog.stdlib.get_logger(__name__)

_MINUTE_S = 60.0
_INSTANCE_WAIT_S = 10.0
_KEPT_INVOCATIONS = 1000
_SOME_LOAD = 1.0


@dataclass(frozen=True, slots=True)
class Invocation:
    """One event that was handed to the function and how it ended: `result`, or `error` after the last retry."""

    source: str
    at_s: float
    result: Any = None
    error: str | None = None


class Evaluator:
    """Owns the alarm and invokes the function. `invoke` retries as Lambda does and raises `LambdaError` at the end."""

    def __init__(
        self,
        *,
        emulator: EmulatorClient,
        resources: Resources,
        invoke: Callable[[Any], Awaitable[Any]],
        scale: float = 1.0,
        wiring: Wiring | None = None,
    ) -> None:
        self._emulator = emulator
        self._resources = resources
        self._invoke = invoke
        self._scale = scale
        self._sent_so_far = 0
        self._runs = False
        self._scheduled: dict[Schedule, asyncio.Task[None]] = {}
        self._wiring = wiring or Wiring()
        self.alarm = Alarm(self._wiring.alarm)
        self.invocations: deque[Invocation] = deque(maxlen=_KEPT_INVOCATIONS)

    async def run(self) -> None:
        """Evaluate until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._keep_time(tasks), name="evaluator.clock")
            tasks.create_task(self._watch_instance(tasks), name="evaluator.instance")

    async def _keep_time(self, tasks: asyncio.TaskGroup) -> None:
        start_s = time.monotonic()
        minute = 0
        while True:
            minute += 1
            await asyncio.sleep(start_s + minute * _MINUTE_S / self._scale - time.monotonic())
            await self._evaluate_alarm(minute * _MINUTE_S, tasks)
            for schedule in self._wiring.schedules:
                if minute % schedule.every_minutes == 0:
                    self._invoke_on_schedule(schedule, tasks)

    async def _evaluate_alarm(self, now_s: float, tasks: asyncio.TaskGroup) -> None:
        try:
            depth = (await self._emulator.queues())[self._resources.queue_name]
        except (aiohttp.ClientError, TimeoutError) as error:
            log.warning("metrics.missed", error=str(error))
            return
        self.alarm.metrics.publish(
            now_s - _MINUTE_S,
            visible=depth.visible,
            sent=depth.sent - self._sent_so_far,
            cpu=_SOME_LOAD if self._runs else None,  # EC2 publishes nothing of a stopped instance
        )
        self._sent_so_far = depth.sent
        transition = self.alarm.look(now_s)
        if transition is None:
            return
        log.info("alarm.changed", state=transition.current, previous=transition.previous)
        if transition.current is AlarmState.ALARM:
            event = alarm_event(
                self.alarm.definition,
                transition,
                queue_name=self._resources.queue_name,
                instance_id=self._resources.instance_id,
                region=self._resources.region,
                at=datetime.now(UTC),
            )
            tasks.create_task(self._hand_over("alarm", event), name="evaluator.alarm")

    def _invoke_on_schedule(self, schedule: Schedule, tasks: asyncio.TaskGroup) -> None:
        if schedule in self._scheduled and not self._scheduled[schedule].done():
            # Still being retried, or a minute is shorter than the function's run at this scale: its next look is
            # at hand anyway, and a queue of looks would only grow.
            return
        event = schedule_event(rule_name=schedule.rule_name, region=self._resources.region, at=datetime.now(UTC))
        self._scheduled[schedule] = tasks.create_task(self._hand_over("schedule", event), name="evaluator.schedule")

    async def _watch_instance(self, tasks: asyncio.TaskGroup) -> None:
        instance_id = self._resources.instance_id
        view = await self._emulator.instance(instance_id)
        seen, self._runs = view.version, view.state is State.RUNNING
        while True:
            try:
                view = await self._emulator.instance(instance_id, after=seen, wait_s=_INSTANCE_WAIT_S)
            except (aiohttp.ClientError, TimeoutError) as error:
                log.warning("instance.unseen", error=str(error))
                await asyncio.sleep(_MINUTE_S / self._scale)
                continue
            self._runs = view.state is State.RUNNING
            if view.version > seen:
                self._announce(view.state, tasks)
            seen = view.version

    def _announce(self, state: State, tasks: asyncio.TaskGroup) -> None:
        event = instance_state_event(
            self._resources.instance_id, state, region=self._resources.region, at=datetime.now(UTC)
        )
        for rule in self._wiring.rules:
            if rule.matches(event):
                tasks.create_task(self._hand_over("instance", event), name=f"evaluator.{state}")

    async def _hand_over(self, source: str, event: dict[str, Any]) -> None:
        at_s = time.time()
        try:
            result = await self._invoke(event)
        except LambdaError as error:
            log.warning("lambda.gave_up", source=source, error=str(error))
            self.invocations.append(Invocation(source, at_s, error=str(error)))
        else:
            self.invocations.append(Invocation(source, at_s, result))
