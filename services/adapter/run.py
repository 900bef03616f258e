"""One attempt: drive a task through the Unified API to an outcome."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace

import structlog

from lib.gputask.gpu import UpstreamHealth
from lib.gputask.message import TaskMessage
from lib.gputask.record import ErrorCode, TaskRecord
from services.adapter.comfyui import Wedges
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
from services.adapter.upstream import UnifiedApi, UpstreamJob, readable
from services.adapter.wedge import Ended

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
        may_go_on: whether the job may still run, under an id that nobody knows: then no attempt may follow.
    """

    code: ErrorCode
    message: str
    blames_upstream: bool = False
    may_go_on: bool = False


@dataclass(frozen=True, slots=True)
class GivenBack:
    """Not over: somebody shall take the task again after `delay_s`, with or without the run upstream.

    Attributes:
        is_attempt: False where the upstream certainly took nothing.
        is_refusal: whether it listened, and refused for reasons of its own.
    """

    reason: str
    keep_upstream_job: bool
    delay_s: int = 0
    is_attempt: bool = True
    is_refusal: bool = False


Outcome = Completed | Failed | GivenBack
NoteUpstreamJob = Callable[[str], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Runner:
    """Drives attempts.

    Attributes:
        deadline_s: how long an attempt may take, from the claim on; less than rule B's 30 min.
        poll_interval_s: longest pause between looks at an upstream that answers in mid-job.
        look_timeout_s: how long one look may last.
        dead_after_s: an upstream that nobody listens at for so long runs nothing any more, and one that says nothing
            but nonsense about a job for so long is not asked on.
        wedges: tells by ComfyUI itself that the Unified API will never tell a job's end; None: only the deadline does.
    """

    api: UnifiedApi
    deadline_s: float
    poll_interval_s: float
    look_timeout_s: float = _LOOK_TIMEOUT_S
    dead_after_s: float = _DEAD_AFTER_S
    durations: Durations = field(default_factory=Durations)
    wedges: Wedges | None = None

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
        except (UpstreamUnreachable, UpstreamGarbled) as error:
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
            return GivenBack(str(error), keep_upstream_job=False, delay_s=_RETRY_DELAY_S, is_attempt=False)
        except UpstreamUnready as error:
            return GivenBack(
                str(error), keep_upstream_job=False, delay_s=_UNREADY_DELAY_S, is_attempt=False, is_refusal=True
            )
        except SubmissionUnknown as error:
            return await self._find_out(error)
        await note(job.id)
        log.info("task.submitted", comfy_job_id=job.id)
        try:
            outcome = _outcome(job)
            return await self._judged(outcome, job.id) if outcome else await self._await_end(job.id)
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
        reason = f"{error}; it is not repeated, since it may have run"
        return Failed(ErrorCode.UPSTREAM_FAILED, reason, may_go_on=True)

    async def _judged(self, outcome: Outcome, job_id: str) -> Outcome:
        """A failure is the upstream's if it has gone or is new again, or could not upload the result."""
        if not isinstance(outcome, Failed):
            return outcome
        gone = await self.api.health(_PROBE_TIMEOUT_S) is UpstreamHealth.UNHEALTHY or await self._has_forgotten(job_id)
        return replace(outcome, blames_upstream=gone or "upload" in outcome.message.lower())

    async def _has_forgotten(self, job_id: str) -> bool:
        """Whether the upstream was restarted since it told of the job: only then does it forget one."""
        try:
            await self.api.look(job_id, timeout_s=_PROBE_TIMEOUT_S)
        except (UpstreamForgot, UpstreamUnreachable):
            return True
        except (UpstreamSilent, UpstreamGarbled):
            return False
        return False

    async def _await_end(self, job_id: str) -> Outcome:
        """Look until the job has ended. Silence means "still running", unless ComfyUI knows better.

        Raises:
            UpstreamForgot: the run is lost.
            UpstreamUnreachable, UpstreamGarbled: for `dead_after_s` nobody has listened, or all answers have been
                nonsense. Holding on would vouch for an upstream that cannot tell the end.
        """
        clock = asyncio.get_running_loop().time
        began_at = heard_at = clock()
        mishaps = Mishaps(failed="upstream.look_failed", recovered="upstream.looks_recovered")
        watch = self.wedges.over(job_id) if self.wedges else None
        while True:
            is_silent = False
            try:
                job = await self.api.look(job_id, timeout_s=self._look_timeout_s)
            except UpstreamSilent:
                heard_at = clock()
                is_silent = True
            except (UpstreamUnreachable, UpstreamGarbled) as error:
                if clock() - heard_at >= self.dead_after_s:
                    raise
                mishaps.note(str(error))
            else:
                heard_at = clock()
                mishaps.end()
                if outcome := _outcome(job):
                    self.durations.note(clock() - began_at)
                    return await self._judged(outcome, job_id)
            if watch and (ended := await watch.look()):
                return _untold(ended)
            if is_silent:
                continue
            elapsed_s = clock() - began_at
            await asyncio.sleep(pause_s(elapsed_s, usual_s=self.durations.usual_s, ceiling_s=self.poll_interval_s))

    @property
    def _look_timeout_s(self) -> float:
        return min(self.look_timeout_s, self.wedges.interval_s) if self.wedges else self.look_timeout_s


def _untold(ended: Ended) -> Failed:
    """What becomes of a job whose end ComfyUI told, as the Unified API will not.

    The job's own error is its end. A picture is not: the Unified API would have uploaded it, and has not.
    """
    if ended.error is not None:
        return Failed(ErrorCode.UPSTREAM_FAILED, readable(ended.error))
    reason = "the Unified API hung when ComfyUI had made the picture, so that nobody uploaded it"
    return Failed(ErrorCode.UPSTREAM_FAILED, reason, blames_upstream=True)


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
