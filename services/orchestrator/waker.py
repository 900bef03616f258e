"""Wakes the GPU while there is demand: looks every so often, and at once when nudged."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import structlog

from lib.asyncaws.errors import AwsError, PermanentAwsError
from lib.asyncaws.instance import Instance, InstanceState
from lib.asyncaws.table import Table
from lib.daemon.waiting import wait_for, wait_for_any
from lib.gputask.gpu import InstanceHold, instance_key
from lib.gputask.record import Status, TaskRecord
from lib.gputask.store import TaskStore
from services.orchestrator.meter import SILENT, Meter
from services.orchestrator.waking import Action, WakeDecision, WakeFacts, backoff_s, decide

# However fast the nudges come: EC2 throttles per account.
_SPACING_S = 1.0

log = structlog.stdlib.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Refusal:
    count: int
    at: float
    code: str


class Waker:
    """One look = read the facts, decide, act. Nothing is remembered that a restart would miss but the backoff.

    Every replica may run one: starting is idempotent, and many nudges make one look.

    Args:
        interval_s: no two looks are further apart than this,
        spacing_s: and none closer than this.
    """

    def __init__(
        self,
        *,
        store: TaskStore,
        table: Table,
        instance: Instance,
        interval_s: float,
        spacing_s: float = _SPACING_S,
        meter: Meter = SILENT,
    ) -> None:
        self._store = store
        self._table = table
        self._instance = instance
        self._interval_s = interval_s
        self._spacing_s = spacing_s
        self._meter = meter
        self._nudged = asyncio.Event()
        self._refusal: _Refusal | None = None
        self._decision: WakeDecision | None = None
        self._state: InstanceState | None = None
        self._ordered_at: float | None = None

    def nudge(self) -> None:
        """There is new demand: look soon."""
        self._nudged.set()

    def stage_of(self, task: TaskRecord) -> str:
        """Where a task is, for people, from what the last look saw; asks nobody."""
        if task.status is Status.PROCESSING:
            return "running"
        if task.status is not Status.PENDING:
            return task.status.value
        if self._refusal is not None and self._state is InstanceState.STOPPED:
            return f"waiting: GPU start refused ({self._refusal.code}), trying again"
        if self._state is InstanceState.RUNNING:
            return "waiting: in the queue"
        if self._decision is None:
            return "waiting: GPU will be started"
        return f"waiting: {self._decision.reason}"

    async def run(self, stop: asyncio.Event) -> None:
        """Look until `stop`."""
        while not stop.is_set():
            nudged = self._nudged.is_set()
            self._nudged.clear()
            try:
                delay_s = await self._look(nudged=nudged)
            except AwsError as error:
                _report(error, "waker.look_failed", error=str(error))
                delay_s = min(self._interval_s, backoff_s(1))
            if not await wait_for(stop, self._spacing_s):
                await wait_for_any((stop, self._nudged), max(delay_s - self._spacing_s, 0.0))

    async def _look(self, *, nudged: bool) -> float:
        """Returns the seconds until the next look."""
        # A nudge is demand by itself: the index that is asked otherwise may not know the new task yet.
        demand = nudged or await self._store.has_live()
        if not demand:
            self._forget()
            return self._interval_s
        self._state = await self._instance.state()
        self._measure(self._state)
        if self._state is InstanceState.STOPPED and self._ordered_at is not None:
            self._note_fallback()
        decision = decide(await self._facts(self._state))
        self._say(decision)
        if decision.action is Action.START:
            decision = await self._start()
        return min(decision.after_s or self._interval_s, self._interval_s)

    def _forget(self) -> None:
        """What was seen is out of date when demand comes back, and an old refusal no reason to wait."""
        self._state = self._decision = self._refusal = self._ordered_at = None

    async def _facts(self, state: InstanceState) -> WakeFacts:
        hold = None
        if state is InstanceState.STOPPED:
            hold = InstanceHold.from_item(await self._table.get(instance_key(self._instance.id)))
        return WakeFacts(
            now=self._store.now(),
            demand=True,
            state=state,
            hold_until=hold.until if hold else 0.0,
            refusals=self._refusal.count if self._refusal else 0,
            refused_at=self._refusal.at if self._refusal else 0.0,
        )

    async def _start(self) -> WakeDecision:
        try:
            await self._instance.start()
        except AwsError as error:
            return self._note_refusal(error)
        self._state = InstanceState.PENDING
        self._ordered_at = self._store.now()
        log.info("instance.start_ordered", instance_id=self._instance.id)
        self._decision = decide(WakeFacts(now=self._store.now(), demand=True, state=InstanceState.PENDING))
        return self._decision

    def _note_refusal(self, error: AwsError) -> WakeDecision:
        count = self._count_refusal(error.code)
        delay_s = backoff_s(count)
        _report(error, "instance.start_refused", reason=str(error), refusals=count, retry_in_s=delay_s)
        return WakeDecision(Action.LOOK_AGAIN, "GPU start was refused", delay_s)

    def _note_fallback(self) -> None:
        """EC2 took the order and thought better of it: pending, then stopped, its reason only in the console.

        https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/troubleshooting-launch.html
        """
        self._ordered_at = None
        count = self._count_refusal("StoppedAgain")
        log.warning("instance.fell_back", instance_id=self._instance.id, refusals=count, retry_in_s=backoff_s(count))

    def _count_refusal(self, code: str) -> int:
        count = self._refusal.count + 1 if self._refusal else 1
        self._refusal = _Refusal(count, self._store.now(), code)
        return count

    def _measure(self, state: InstanceState) -> None:
        self._meter.seen(state)
        if state is InstanceState.RUNNING and self._ordered_at is not None:
            self._meter.woken(self._store.now() - self._ordered_at)
            self._ordered_at = None

    def _say(self, decision: WakeDecision) -> None:
        if self._decision is None or decision.reason != self._decision.reason:
            log.info("waker.decided", action=decision.action.name.lower(), reason=decision.reason)
        if self._state is InstanceState.RUNNING:
            self._refusal = None
        self._decision = decision


def _report(cause: AwsError, event: str, **fields: str | float) -> None:
    """What only the operator can mend is an error; the waker goes on, and needs no restart when it is mended."""
    write = log.error if isinstance(cause, PermanentAwsError) else log.warning
    write(event, **fields)
