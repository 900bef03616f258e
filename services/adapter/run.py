"""One attempt: drive a task through the Unified API to an outcome."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace

import structlog

from lib.gputask.gpu import UpstreamHealth
from lib.gputask.message import TaskMessage
from lib.gputask.record import ErrorCode, TaskRecord
from services.adapter.errors import (
    SubmissionUnknown,
    UpstreamForgot,
    UpstreamGarbled,
    UpstreamRejected,
    UpstreamSilent,
    UpstreamUnreachable,
    UpstreamUnready,
)
from services.adapter.mishaps import Mishaps
from services.adapter.pacing import Durations, pause_s, span
from services.adapter.retrying import retrying
from services.adapter.upstream import UnifiedApi, UpstreamJob

# With a blocked upstream one GET lasts as long as its job; asking anew now and then notices a dead connection.
_LOOK_TIMEOUT_S = 60.0
_PROBE_TIMEOUT_S = 2.0
_RETRY_DELAY_S = 5
_SUBMIT_WITHIN_S = 15.0
_UNREADY_DELAY_S = 30
_GOES_ON = frozenset({"pending", "queued", "processing", "running"})
# A restart takes seconds. What does not listen for so long has died, and its job with it.
_DEAD_AFTER_S = 60.0

log = structlog.stdlib.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Completed:
    result_s3_uri: str


@dataclass(frozen=True, slots=True)
class Failed:
    """
    Attributes:
        blames_upstream: whether the upstream, not the job, was at fault, so that another attempt is right.
    """

    code: ErrorCode
    message: str
    blames_upstream: bool = False


@dataclass(frozen=True, slots=True)
class GivenBack:
    """Not over: somebody shall take the task again after `delay_s`, with or without the run upstream."""

    reason: str
    keep_upstream_job: bool
    delay_s: int = 0


Outcome = Completed | Failed | GivenBack
NoteUpstreamJob = Callable[[str], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Runner:
    """Drives attempts.

    Attributes:
        deadline_s: how long an attempt may take, from the claim on; less than rule B's 30 min.
        poll_interval_s: longest pause between looks at an upstream that answers in mid-job.
        look_timeout_s: how long one look may last.
        dead_after_s: an upstream that nobody listens at for so long runs nothing any more.
    """

    api: UnifiedApi
    deadline_s: float
    poll_interval_s: float
    look_timeout_s: float = _LOOK_TIMEOUT_S
    dead_after_s: float = _DEAD_AFTER_S
    durations: Durations = field(default_factory=Durations)

    async def run(self, task: TaskRecord, message: TaskMessage, note: NoteUpstreamJob, *, request_id: str) -> Outcome:
        """Adopt the run that an earlier worker left, or submit; then wait for its end.

        Args:
            note: writes down the upstream's id of the job before anything else happens.
        """
        try:
            async with asyncio.timeout(self.deadline_s):
                if task.comfy_job_id is not None:
                    adopted = await self._adopt(task.comfy_job_id)
                    if adopted is not None:
                        return adopted
                return await self._submit(message, note, request_id)
        except UpstreamUnreachable as error:
            return GivenBack(str(error), keep_upstream_job=True, delay_s=_RETRY_DELAY_S)
        except TimeoutError:
            deadline = span(self.deadline_s)
            return Failed(ErrorCode.DEADLINE, f"the job was not finished within its deadline of {deadline}")

    async def _adopt(self, comfy_job_id: str) -> Outcome | None:
        """The outcome of an earlier attempt's run; None if the upstream forgot it.

        Then this attempt, which has run nothing so far, may submit: otherwise each stop in mid-job would cost two.
        """
        log.info("task.adopted", comfy_job_id=comfy_job_id)
        try:
            return await self._await_end(comfy_job_id)
        except UpstreamForgot as error:
            log.info("task.run_was_lost", comfy_job_id=comfy_job_id, error=str(error))
            return None

    async def _submit(self, message: TaskMessage, note: NoteUpstreamJob, request_id: str) -> Outcome:
        try:
            job = await self._post(message, request_id)
        except UpstreamRejected as error:
            return Failed(ErrorCode.UPSTREAM_REJECTED, str(error))
        except UpstreamUnreachable as error:
            return GivenBack(str(error), keep_upstream_job=False, delay_s=_RETRY_DELAY_S)
        except UpstreamUnready as error:
            return GivenBack(str(error), keep_upstream_job=False, delay_s=_UNREADY_DELAY_S)
        except SubmissionUnknown as error:
            return await self._find_out(error)
        await note(job.id)
        log.info("task.submitted", comfy_job_id=job.id)
        try:
            outcome = _outcome(job)
            return await self._judged(outcome) if outcome else await self._await_end(job.id)
        except UpstreamForgot as error:
            return GivenBack(str(error), keep_upstream_job=False)

    async def _post(self, message: TaskMessage, request_id: str) -> UpstreamJob:
        """Refused connections are retried for a while; whatever may have arrived is not."""
        # The timeout of the request itself is the attempt's: an upstream that is busy answers when it can.
        return await retrying(
            lambda: self.api.submit(
                message.api_path, message.request_body, request_id=request_id, timeout_s=2 * self.deadline_s
            ),
            on=UpstreamUnreachable,
            within_s=_SUBMIT_WITHIN_S,
        )

    async def _find_out(self, error: SubmissionUnknown) -> Outcome:
        """Was the upstream killed, and the run with it? Then nobody listens now, and another attempt is right.

        If it lives, the job may run under an id nobody knows. Its result cannot be fetched, and running it again could
        double the GPU work: a named failure is the honest end.
        """
        try:
            await self.api.look("unknown", timeout_s=_PROBE_TIMEOUT_S)
        except UpstreamUnreachable:
            reason = "the Unified API died over the submission"
            return GivenBack(reason, keep_upstream_job=False, delay_s=_RETRY_DELAY_S)
        except (UpstreamForgot, UpstreamSilent, UpstreamGarbled):
            pass
        return Failed(ErrorCode.UPSTREAM_FAILED, f"{error}; it is not repeated, since it may have run")

    async def _judged(self, outcome: Outcome) -> Outcome:
        """A failure is the upstream's if ComfyUI has gone, or its result could not be uploaded."""
        if not isinstance(outcome, Failed):
            return outcome
        gone = await self.api.health(_PROBE_TIMEOUT_S) is UpstreamHealth.UNHEALTHY
        return replace(outcome, blames_upstream=gone or "upload" in outcome.message.lower())

    async def _await_end(self, job_id: str) -> Outcome:
        """Look until the job has ended. Silence and broken connections mean "still running" until the deadline.

        Raises:
            UpstreamForgot: the run is lost.
            UpstreamUnreachable: nobody has listened for `dead_after_s`. Holding on would vouch for a dead upstream.
        """
        clock = asyncio.get_running_loop().time
        began_at = heard_at = clock()
        mishaps = Mishaps(failed="upstream.look_failed", recovered="upstream.looks_recovered")
        while True:
            try:
                job = await self.api.look(job_id, timeout_s=self.look_timeout_s)
            except UpstreamSilent:
                heard_at = clock()
                continue
            except UpstreamGarbled as error:
                heard_at = clock()
                mishaps.note(str(error))
            except UpstreamUnreachable as error:
                if clock() - heard_at >= self.dead_after_s:
                    raise
                mishaps.note(str(error))
            else:
                heard_at = clock()
                mishaps.end()
                if outcome := _outcome(job):
                    self.durations.note(clock() - began_at)
                    return await self._judged(outcome)
            elapsed_s = clock() - began_at
            await asyncio.sleep(pause_s(elapsed_s, usual_s=self.durations.usual_s, ceiling_s=self.poll_interval_s))


def _outcome(job: UpstreamJob) -> Outcome | None:
    """None while the job goes on."""
    status = job.status.lower()
    match status:
        case "completed" if job.result_s3_uri:
            return Completed(job.result_s3_uri)
        case "completed":
            return Failed(
                ErrorCode.UPSTREAM_FAILED, "the Unified API reported completion without a result that is one address"
            )
        case "failed" | "error" | "cancelled" | "canceled":
            return Failed(ErrorCode.UPSTREAM_FAILED, job.error or "the Unified API gave no reason")
        case _ if status in _GOES_ON:
            return None
        case _:
            # Waiting on would keep the GPU on until the deadline.
            return Failed(ErrorCode.UPSTREAM_FAILED, f"the Unified API reported an unknown state: {status!r}")
