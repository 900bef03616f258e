"""One attempt against the Unified API: from a task to an outcome."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import Any

import pytest
import stamina
from aiohttp import web
from structlog.testing import capture_logs

from lib.gputask.kinds import QWEN_IMAGE_EDIT
from lib.gputask.message import TaskMessage
from lib.gputask.record import ErrorCode, Status, TaskRecord
from services.adapter.dialect import for_client
from services.adapter.run import Completed, Failed, GivenBack, Outcome, Runner
from services.adapter.upstream import UnifiedApi as UnifiedApiClient
from tests.adapter import unified_api
from tests.adapter.unified_api import RESULT, Behaviour, UnifiedApi, answering, hang, in_turn, showing
from tests.adapter.waiting import until

DEADLINE_S = 20.0
SHORT_DEADLINE_S = 0.5

TASK = TaskRecord(
    task_id="task-1",
    status=Status.PROCESSING,
    job_type=QWEN_IMAGE_EDIT.api_path,
    created_at=0,
    updated_at=0,
    attempt=1,
)
MESSAGE = TaskMessage(TASK.task_id, TASK.job_type, '{"image_url": "s3://pictures/cat.png", "prompt": "a drawing"}')


class Attempt:
    """Runs attempts and keeps what was noted."""

    def __init__(self, client: UnifiedApiClient) -> None:
        self.client = client
        self.noted: list[str] = []

    async def run(
        self,
        *,
        adopting: str | None = None,
        deadline_s: float = DEADLINE_S,
        look_timeout_s: float = DEADLINE_S,
        dead_after_s: float = DEADLINE_S,
    ) -> Outcome:
        async def note(comfy_job_id: str) -> None:
            self.noted.append(comfy_job_id)

        runner = Runner(
            api=self.client,
            deadline_s=deadline_s,
            poll_interval_s=0.01,
            look_timeout_s=look_timeout_s,
            dead_after_s=dead_after_s,
        )
        return await runner.run(replace(TASK, comfy_job_id=adopting), MESSAGE, note, request_id="request-1")


@pytest.fixture
def attempt(client: UnifiedApiClient) -> Attempt:
    return Attempt(client)


def keeps_nothing(outcome: Outcome) -> bool:
    return isinstance(outcome, GivenBack) and not outcome.keep_upstream_job


async def test_a_polite_upstream_is_looked_at_until_it_is_done(api: UnifiedApi, attempt: Attempt) -> None:
    api.on_look = in_turn(showing("pending"), showing("processing"), showing("completed", result_s3_uri=RESULT))
    assert await attempt.run() == Completed(RESULT)
    assert api.looks == api.runs * 3
    assert len(api.submissions) == 1


async def test_the_upstreams_id_is_written_down_before_anything_else(api: UnifiedApi, attempt: Attempt) -> None:
    noted_at_first_look: list[list[str]] = []

    async def look(request: web.Request) -> web.StreamResponse:
        noted_at_first_look.append(list(attempt.noted))
        return await showing("completed", result_s3_uri=RESULT)(request)

    api.on_look = look
    await attempt.run()
    assert noted_at_first_look == [api.runs]


async def test_a_blocked_upstream_is_waited_for_with_one_look(api: UnifiedApi, attempt: Attempt) -> None:
    api.blocks = True
    running = asyncio.create_task(attempt.run())
    await until(lambda: len(api.looks) == 1)
    api.end(api.runs[0])
    assert await running == Completed(RESULT)
    assert len(api.looks) == 1


async def test_a_look_without_an_answer_means_still_running(api: UnifiedApi, attempt: Attempt) -> None:
    api.on_look = in_turn(hang, hang, hang, showing("completed", result_s3_uri=RESULT))
    assert await attempt.run(look_timeout_s=0.1) == Completed(RESULT)
    assert len(api.looks) == 4
    assert len(api.submissions) == 1


@pytest.mark.parametrize(
    "mishap",
    [
        unified_api.disconnect,
        unified_api.reset,
        unified_api.break_off,
        answering(500, {"detail": "Internal Server Error"}),
        answering(200, text="<html>"),
        answering(200, {"job_id": "job-1"}),
    ],
)
async def test_a_look_that_fails_is_repeated(api: UnifiedApi, attempt: Attempt, mishap: Behaviour) -> None:
    api.on_look = in_turn(mishap, mishap, showing("completed", result_s3_uri=RESULT))
    assert await attempt.run() == Completed(RESULT)
    assert len(api.submissions) == 1


async def test_a_result_without_a_scheme_is_a_result(api: UnifiedApi, attempt: Attempt) -> None:
    api.on_look = showing("completed", result_s3_uri="cdn.example.com/1/output.png")
    assert await attempt.run() == Completed("cdn.example.com/1/output.png")


@pytest.mark.parametrize("result", [None, ""])
async def test_completion_without_a_result_is_a_failure(api: UnifiedApi, attempt: Attempt, result: str | None) -> None:
    api.on_look = showing("completed", result_s3_uri=result)
    outcome = await attempt.run()
    assert outcome == Failed(
        ErrorCode.UPSTREAM_FAILED, "the Unified API reported completion without a result that is one address"
    )


@pytest.mark.parametrize("status", ["error", "cancelled", "FAILED", "exploded"])
async def test_an_odd_end_is_not_polled_until_the_deadline(api: UnifiedApi, attempt: Attempt, status: str) -> None:
    api.on_look = showing(status)
    assert isinstance(await attempt.run(), Failed)


async def test_a_crashed_comfyui_does_not_cost_its_job(api: UnifiedApi, attempt: Attempt) -> None:
    api.on_look = showing("failed", error="Connection refused")
    api.comfyui_status = "unhealthy"
    outcome = await attempt.run()
    assert isinstance(outcome, Failed)
    assert outcome.blames_upstream


async def test_an_upstream_that_is_new_again_does_not_cost_its_job(api: UnifiedApi, attempt: Attempt) -> None:
    """It was restarted between the failure and the look at its health: it knows the job no more."""
    api.on_look = in_turn(showing("failed", error="CUDA error"), answering(404, {"detail": "Job not found"}))
    outcome = await attempt.run()
    assert isinstance(outcome, Failed)
    assert outcome.blames_upstream


@pytest.mark.parametrize("again", [hang, showing("failed"), answering(404, text="<html>")])
async def test_an_upstream_that_remembers_its_job_is_believed(
    api: UnifiedApi, attempt: Attempt, again: Behaviour
) -> None:
    api.on_look = in_turn(showing("failed", error="CUDA error"), again)
    assert await attempt.run() == Failed(ErrorCode.UPSTREAM_FAILED, "CUDA error")


@pytest.mark.parametrize(
    "nonsense",
    [showing("completed", job_id="another", result_s3_uri=RESULT), answering(404, text="<html>"), answering(500)],
)
async def test_nonsense_about_a_job_is_not_listened_to_until_the_deadline(
    api: UnifiedApi, attempt: Attempt, nonsense: Behaviour
) -> None:
    api.on_look = nonsense
    outcome = await attempt.run(dead_after_s=0.2)
    assert isinstance(outcome, GivenBack)
    assert outcome.keep_upstream_job
    assert outcome.is_attempt
    assert len(api.submissions) == 1


async def test_the_pauses_between_looks_follow_the_job_not_their_ceiling(
    api: UnifiedApi, client: UnifiedApiClient
) -> None:
    runner = Runner(api=client, deadline_s=DEADLINE_S, poll_interval_s=1000.0)
    api.on_look = in_turn(*[showing("processing")] * 3, showing("completed", result_s3_uri=RESULT))

    async def note(comfy_job_id: str) -> None:
        pass

    assert await runner.run(TASK, MESSAGE, note, request_id="r") == Completed(RESULT)
    assert runner.durations.usual_s is not None  # and the next job is expected to take as long


async def test_looks_that_fail_are_one_line_for_each_change(api: UnifiedApi, attempt: Attempt) -> None:
    api.on_look = in_turn(*[answering(500)] * 5, showing("completed", result_s3_uri=RESULT))
    with capture_logs() as lines:
        await attempt.run()
    assert [line["event"] for line in lines if line["event"].startswith("upstream.look")] == [
        "upstream.look_failed",
        "upstream.looks_recovered",
    ]


async def test_a_failed_job_fails_with_its_error(api: UnifiedApi, attempt: Attempt) -> None:
    api.on_look = showing("failed", error="No output images generated")
    assert await attempt.run() == Failed(ErrorCode.UPSTREAM_FAILED, for_client("No output images generated"))


async def test_a_failed_job_without_an_error_says_so(api: UnifiedApi, attempt: Attempt) -> None:
    api.on_look = showing("failed")
    assert await attempt.run() == Failed(ErrorCode.UPSTREAM_FAILED, "the Unified API gave no reason")


async def test_a_job_that_is_done_at_once_needs_no_look(api: UnifiedApi, attempt: Attempt) -> None:
    api.on_submit = showing("completed", result_s3_uri=RESULT)
    assert await attempt.run() == Completed(RESULT)
    assert not api.looks
    assert attempt.noted == ["job-1"]


async def test_a_refused_request_fails_for_good(api: UnifiedApi, attempt: Attempt) -> None:
    error = {"type": "missing", "loc": ["body", "image_url"], "msg": "Field required"}
    api.on_submit = answering(422, {"detail": [error]})
    outcome = await attempt.run()
    assert isinstance(outcome, Failed)
    assert outcome.code is ErrorCode.UPSTREAM_REJECTED
    assert "image_url: Field required" in outcome.message
    assert len(api.submissions) == 1


# connections that are refused


async def test_a_refused_connection_is_tried_again(api: UnifiedApi, attempt: Attempt) -> None:
    await api.stop()
    api.ends_at_once = True
    running = asyncio.create_task(attempt.run())
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.shield(running), 0.3)
    await api.start()
    assert await running == Completed(RESULT)
    assert len(api.runs) == 1


async def test_a_connection_refused_for_long_gives_the_task_back(api: UnifiedApi, attempt: Attempt) -> None:
    await api.stop()
    with stamina.set_testing(True, attempts=3):
        outcome = await attempt.run()
    assert keeps_nothing(outcome)
    assert isinstance(outcome, GivenBack)
    assert outcome.delay_s > 0


# answers that are lost

LOST_ANSWERS = [
    pytest.param(unified_api.disconnect, id="disconnected"),
    pytest.param(unified_api.reset, id="reset"),
    pytest.param(unified_api.break_off, id="broken-off"),
    pytest.param(answering(500, {"detail": "Internal Server Error"}), id="500"),
    pytest.param(answering(200, text="<html>"), id="garbage"),
]


@pytest.mark.parametrize("behaviour", LOST_ANSWERS)
async def test_a_lost_answer_of_a_living_upstream_is_a_named_failure(
    api: UnifiedApi, attempt: Attempt, behaviour: Behaviour
) -> None:
    """The job may run under an id nobody knows; a second run could double the GPU work."""

    async def run_but_lose_the_answer(request: web.Request) -> web.StreamResponse:
        api.take_in()
        return await behaviour(request)

    api.on_submit = run_but_lose_the_answer
    outcome = await attempt.run()

    assert isinstance(outcome, Failed)
    assert outcome.code is ErrorCode.UPSTREAM_FAILED
    assert "not repeated" in outcome.message
    assert len(api.submissions) == len(api.runs) == 1


@pytest.mark.parametrize("probe", [hang, unified_api.reset, answering(500), answering(200, text="<html>")])
async def test_an_upstream_that_listens_lives_however_it_answers(
    api: UnifiedApi, attempt: Attempt, probe: Behaviour
) -> None:
    api.on_submit = unified_api.reset
    api.on_look = probe
    outcome = await attempt.run()
    assert isinstance(outcome, Failed)
    assert len(api.submissions) == 1


async def test_a_lost_answer_of_a_dead_upstream_leads_to_another_attempt(api: UnifiedApi, attempt: Attempt) -> None:
    """It forgets its jobs when it dies, so nothing runs that could be doubled."""
    dying: list[asyncio.Task[None]] = []

    async def die(request: web.Request) -> web.StreamResponse:
        dying.append(asyncio.create_task(api.stop()))
        return await hang(request)

    api.on_submit = die
    outcome = await attempt.run()
    assert keeps_nothing(outcome)
    assert len(api.submissions) == 1
    await dying[0]


# runs that are known


async def test_a_known_run_is_adopted_without_a_post(api: UnifiedApi, attempt: Attempt) -> None:
    job_id = api.take_in()["job_id"]
    running = asyncio.create_task(attempt.run(adopting=job_id))
    await until(lambda: len(api.looks) > 1)
    api.end(job_id)
    assert await running == Completed(RESULT)
    assert not api.submissions
    assert set(api.looks) == {job_id}


async def test_an_adopted_run_that_the_upstream_forgot_is_submitted_by_the_same_attempt(
    api: UnifiedApi, attempt: Attempt
) -> None:
    api.ends_at_once = True
    assert await attempt.run(adopting="job-before-the-restart") == Completed(RESULT)
    assert len(api.submissions) == 1


async def test_an_upstream_that_is_restarted_in_mid_job_has_forgotten_it(api: UnifiedApi, attempt: Attempt) -> None:
    running = asyncio.create_task(attempt.run())
    await until(lambda: bool(api.looks))
    await api.restart()
    assert keeps_nothing(await running)


async def test_an_upstream_that_dies_in_mid_job_and_stays_away_is_not_held_on_to(
    api: UnifiedApi, attempt: Attempt
) -> None:
    """To hold on until the deadline would vouch for it, and keep the instance on."""
    running = asyncio.create_task(attempt.run(dead_after_s=0.2))
    await until(lambda: bool(api.looks))
    await api.stop()
    outcome = await running
    assert isinstance(outcome, GivenBack)
    assert outcome.keep_upstream_job  # whoever comes next asks for it, and submits again if it is forgotten
    assert outcome.delay_s > 0
    assert len(api.submissions) == 1


async def test_an_adopted_run_of_an_upstream_that_stays_away_is_given_back_as_well(
    api: UnifiedApi, attempt: Attempt
) -> None:
    await api.stop()
    outcome = await attempt.run(adopting="job-1", dead_after_s=0.2)
    assert isinstance(outcome, GivenBack)
    assert outcome.keep_upstream_job


# the deadline

HANGING_CALLS: list[Any] = [
    pytest.param({"on_submit": hang}, id="submit-hangs"),
    pytest.param({"on_look": hang}, id="look-hangs"),
    pytest.param({"on_look": showing("processing")}, id="never-done"),
    pytest.param({"on_look": unified_api.reset}, id="look-fails"),
    pytest.param({"on_submit": unified_api.reset, "on_look": hang}, id="probe-hangs"),
]


@pytest.mark.parametrize("behaviour", HANGING_CALLS)
async def test_the_deadline_ends_an_attempt_whatever_it_waits_for(
    api: UnifiedApi, attempt: Attempt, behaviour: dict[str, Behaviour]
) -> None:
    for name, value in behaviour.items():
        setattr(api, name, value)

    started_at = time.monotonic()
    outcome = await attempt.run(deadline_s=SHORT_DEADLINE_S)

    assert isinstance(outcome, Failed)
    assert outcome.code is ErrorCode.DEADLINE
    assert time.monotonic() - started_at >= SHORT_DEADLINE_S
    assert len(api.submissions) == 1


async def test_the_deadline_ends_the_wait_for_a_refused_connection(api: UnifiedApi, attempt: Attempt) -> None:
    await api.stop()
    outcome = await attempt.run(deadline_s=SHORT_DEADLINE_S)
    assert isinstance(outcome, Failed)
    assert outcome.code is ErrorCode.DEADLINE


async def test_the_deadline_holds_for_an_adopted_run(api: UnifiedApi, attempt: Attempt) -> None:
    outcome = await attempt.run(adopting=api.take_in()["job_id"], deadline_s=SHORT_DEADLINE_S)
    assert isinstance(outcome, Failed)
    assert outcome.code is ErrorCode.DEADLINE
