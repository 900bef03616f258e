"""Wakes the GPU while there is demand: looks every so often, and at once when nudged."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import structlog

from lib.asyncaws.errors import AuthenticationAwsError, AwsError, PermanentAwsError
from lib.asyncaws.instance import Instance, InstanceState
from lib.asyncaws.table import Table
from lib.daemon.waiting import wait_for, wait_for_any
from lib.gputask.gpu import InstanceHold, WorkerRecord, instance_key, worker_key
from lib.gputask.record import Status, TaskRecord
from lib.gputask.store import TaskStore
from services.orchestrator.meter import SILENT, Meter
from services.orchestrator.waking import Action, WakeDecision, WakeFacts, backoff_s, decide, waiting_reason

# However fast the nudges come: EC2 throttles per account.
_SPACING_S = 1.0
_LOOK_AT_GPU = "DescribeInstances"
_FELL_BACK = "StoppedAgain"
# So many starts in a row that EC2 took and dropped, or refused over credentials, are no bad luck any more.
_REPEATS_FOR_AN_OPERATOR = 3
# Credentials that are being renewed, or a clock that is being set, are refused for seconds.
REFUSAL_OF_A_MOMENT_S = 60.0

log = structlog.stdlib.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Refusal:
    """
    Attributes:
        count: starts refused in a row,
        repeats: and of them the last ones with this code.
        is_final: it does not pass by itself.
    """

    count: int
    repeats: int
    at: float
    code: str
    is_final: bool


@dataclass(frozen=True, slots=True)
class _Blindness:
    """Looks that failed in a row, how the last one did, and since when all have failed over credentials."""

    count: int
    error: AwsError
    at: float
    unauthenticated_since: float | None

    @property
    def is_of_the_gpu(self) -> bool:
        return self.error.operation == _LOOK_AT_GPU

    @property
    def needs_operator(self) -> bool:
        """A table that does not answer is told of by its own check."""
        is_final = isinstance(self.error, PermanentAwsError) and self._is_more_than_a_moment
        return is_final and self.is_of_the_gpu

    @property
    def means_dead_credentials(self) -> bool:
        """The table, which any credentials of ours may read, has refused them for longer than a renewal takes."""
        is_refused = self.unauthenticated_since is not None and not self.is_of_the_gpu
        return is_refused and self._is_more_than_a_moment

    @property
    def _is_more_than_a_moment(self) -> bool:
        return self.unauthenticated_since is None or self.at - self.unauthenticated_since >= REFUSAL_OF_A_MOMENT_S

    @property
    def stage(self) -> str:
        what = "GPU" if self.is_of_the_gpu else "tasks"
        return f"{what} cannot be looked up ({self.error.code}), trying again"


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
        self._started_at = 0.0
        self._stopping_since: float | None = None
        self._worker: WorkerRecord | None = None
        self._blindness: _Blindness | None = None

    def nudge(self) -> None:
        """There is new demand: look soon."""
        self._nudged.set()

    def stage_of(self, task: TaskRecord) -> str:
        """Where a task is, for people, from what the last look saw; asks nobody."""
        if task.status is Status.PROCESSING:
            return "running"
        if task.status is not Status.PENDING:
            return task.status.value
        return f"waiting: {self._waiting_reason()}"

    def _waiting_reason(self) -> str:
        if self._blindness is not None:
            return self._blindness.stage
        if self._refusal is not None and self._state is InstanceState.STOPPED:
            return f"GPU start refused ({self._refusal.code}), trying again"
        if self._state is InstanceState.RUNNING:
            return waiting_reason(self._worker, now=self._store.now(), started_at=self._started_at)
        return self._decision.reason if self._decision else "GPU will be started"

    @property
    def problem(self) -> str | None:
        """What keeps the GPU from waking until a person does something; None: nothing that is known."""
        if self._blindness is not None and self._blindness.needs_operator:
            return self._blindness.stage
        if self._decision is not None and self._decision.needs_operator:
            return f"GPU start refused ({self._refusal.code})" if self._refusal else self._decision.reason
        return None

    async def examine(self) -> None:
        """Look at the instance without demand, once at the start: a wrong id or a missing permission shows now, rather
        than with the first task.
        """
        try:
            state = await self._instance.state()
        except AwsError as error:
            self._note_blindness(error)
        else:
            log.info("instance.found", instance_id=self._instance.id, state=state.value)

    async def run(self, stop: asyncio.Event) -> None:
        """Look until `stop`.

        Raises:
            AuthenticationAwsError: the credentials are dead, say static ones that have expired. Only a new process may
                find better ones.
        """
        while not stop.is_set():
            nudged = self._nudged.is_set()
            self._nudged.clear()
            try:
                delay_s = await self._look(nudged=nudged)
            except AwsError as error:
                blindness = self._note_blindness(error)
                if blindness.means_dead_credentials:
                    raise
                delay_s = min(self._interval_s, backoff_s(blindness.count))
            if not await wait_for(stop, self._spacing_s):
                await wait_for_any((stop, self._nudged), max(delay_s - self._spacing_s, 0.0))

    async def _look(self, *, nudged: bool) -> float:
        """Returns the seconds until the next look."""
        # A nudge is demand by itself: the index that is asked otherwise may not know the new task yet.
        demand = nudged or await self._store.has_live()
        if not demand and self._blindness is None:
            self._forget()
            return self._interval_s
        state = self._note_state(await self._instance.state())
        decision = decide(await self._facts(state, demand=demand))
        self._say(decision)
        if decision.action is Action.START:
            decision = await self._start()
        if not demand:
            self._forget()
        self._meter.blocked(is_blocked=self.problem is not None)
        return min(decision.after_s or self._interval_s, self._interval_s)

    def _forget(self) -> None:
        """What was seen is out of date when demand comes back, and an old refusal no reason to wait."""
        self._state = self._decision = self._refusal = self._ordered_at = self._stopping_since = None

    def _note_state(self, state: InstanceState) -> InstanceState:
        now = self._store.now()
        self._state = state
        self._blindness = None
        self._meter.seen(state)
        if state is not InstanceState.STOPPING:
            self._stopping_since = None
        elif self._stopping_since is None:
            self._stopping_since = now
        if self._ordered_at is not None and state is InstanceState.RUNNING:
            self._meter.woken(now - self._ordered_at)
            self._ordered_at = None
        if self._ordered_at is not None and state is InstanceState.STOPPED:
            self._note_fallback()
        return state

    async def _facts(self, state: InstanceState, *, demand: bool) -> WakeFacts:
        hold = None
        if state is InstanceState.STOPPED:
            hold = InstanceHold.from_item(await self._table.get(instance_key(self._instance.id)))
        if state is InstanceState.RUNNING:
            self._worker = WorkerRecord.from_item(await self._table.get(worker_key(self._instance.id)))
        return WakeFacts(
            now=self._store.now(),
            demand=demand,
            state=state,
            hold_until=hold.until if hold else 0.0,
            stopping_since=self._stopping_since,
            refusals=self._refusal.count if self._refusal else 0,
            refused_at=self._refusal.at if self._refusal else 0.0,
            refused_for_good=self._refusal is not None and self._refusal.is_final,
        )

    async def _start(self) -> WakeDecision:
        try:
            await self._instance.start()
        except AwsError as error:
            return self._note_refusal(error)
        self._state = InstanceState.PENDING
        self._ordered_at = self._started_at = self._store.now()
        log.info("instance.start_ordered", instance_id=self._instance.id)
        self._decision = decide(WakeFacts(now=self._store.now(), demand=True, state=InstanceState.PENDING))
        return self._decision

    def _note_refusal(self, error: AwsError) -> WakeDecision:
        is_lasting = self._repeats_of(error.code) >= _REPEATS_FOR_AN_OPERATOR
        is_final = isinstance(error, PermanentAwsError) and (
            is_lasting or not isinstance(error, AuthenticationAwsError)
        )
        count = self._count_refusal(error.code, is_final=is_final)
        delay_s = backoff_s(count)
        _report(error, "instance.start_refused", reason=str(error), refusals=count, retry_in_s=delay_s)
        self._decision = WakeDecision(Action.LOOK_AGAIN, "GPU start was refused", delay_s, needs_operator=is_final)
        return self._decision

    def _note_fallback(self) -> None:
        """EC2 took the order and thought better of it: pending, then stopped, its reason only in the console.

        https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/troubleshooting-launch.html
        """
        self._ordered_at = None
        # A key that may not be used or a broken volume does not pass by itself; missing capacity may.
        is_final = self._repeats_of(_FELL_BACK) >= _REPEATS_FOR_AN_OPERATOR
        count = self._count_refusal(_FELL_BACK, is_final=is_final)
        log.warning("instance.fell_back", instance_id=self._instance.id, refusals=count, retry_in_s=backoff_s(count))

    def _repeats_of(self, code: str) -> int:
        """How often in a row starts have been refused so, this time included."""
        return self._refusal.repeats + 1 if self._refusal and self._refusal.code == code else 1

    def _count_refusal(self, code: str, *, is_final: bool) -> int:
        count = self._refusal.count + 1 if self._refusal else 1
        self._refusal = _Refusal(count, self._repeats_of(code), self._store.now(), code, is_final)
        return count

    def _note_blindness(self, error: AwsError) -> _Blindness:
        """Logged when it begins or changes, and then after 2, 4, 8 ... looks: a table that is away for hours is one
        story, not a line every few seconds.
        """
        before, now = self._blindness, self._store.now()
        is_the_same = before is not None and before.error.code == error.code
        count = before.count + 1 if before is not None else 1
        since = None
        if isinstance(error, AuthenticationAwsError):
            since = before.unauthenticated_since if before and before.unauthenticated_since is not None else now
        self._blindness = _Blindness(count, error, now, since)
        if not is_the_same or count.bit_count() == 1:
            _report(error, "waker.look_failed", error=str(error), looks=count)
        self._meter.blocked(is_blocked=self.problem is not None)
        return self._blindness

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
