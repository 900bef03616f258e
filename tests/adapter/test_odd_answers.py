"""What becomes of a job over each odd answer of the upstream."""

from __future__ import annotations

import json
from typing import Any

import pytest
from aiohttp import web

from lib.gputask.kinds import QWEN_IMAGE_EDIT
from lib.gputask.message import TaskMessage
from lib.gputask.record import ErrorCode, Status, TaskRecord
from services.adapter.run import Completed, Failed, GivenBack, Outcome, Runner
from services.adapter.upstream import UnifiedApi as UnifiedApiClient
from tests.adapter.unified_api import RESULT, Behaviour, UnifiedApi, answering, in_turn, showing

TASK = TaskRecord(
    task_id="task-1", status=Status.PROCESSING, job_type=QWEN_IMAGE_EDIT.api_path, created_at=0, updated_at=0
)
MESSAGE = TaskMessage(TASK.task_id, TASK.job_type, '{"image_url": "s3://pictures/cat.png"}')

COMPLETED = "completed"
FAILED = "failed"
BLAMES_UPSTREAM = "failed with its upstream"
REJECTED = "rejected"
LOST = "failed, not repeated"
ASKED_AGAIN = "given back with its run"
RUN_AGAIN = "given back"
SPARED = "given back, no attempt"


def described(outcome: Outcome) -> str:
    match outcome:
        case Completed():
            return COMPLETED
        case Failed(ErrorCode.UPSTREAM_REJECTED):
            return REJECTED
        case Failed(may_go_on=True):
            return LOST
        case Failed(blames_upstream=True):
            return BLAMES_UPSTREAM
        case Failed():
            return FAILED
        case GivenBack(is_attempt=False):
            return SPARED
        case GivenBack(keep_upstream_job=True):
            return ASKED_AGAIN
        case GivenBack():
            return RUN_AGAIN


def in_charset(charset: str, content: Any) -> Behaviour:
    async def answer(request: web.Request) -> web.StreamResponse:
        job_id = request.match_info.get("job_id", "job-1")
        body = json.dumps(content | {"job_id": job_id}).encode()
        return web.Response(body=body, headers={"Content-Type": f"application/json; charset={charset}"})

    return answer


def completed_with(result: Any) -> dict[str, Behaviour]:
    return {"on_look": showing("completed", result_s3_uri=result)}


def seen_in(status: Any) -> dict[str, Behaviour]:
    return {"on_look": showing(status)}


def submitted(http_status: int, **content: Any) -> dict[str, Behaviour]:
    return {"on_submit": answering(http_status, {"job_id": "job-1", "status": "pending"} | content)}


UNREADY = [pytest.param(submitted(status), SPARED, id=str(status)) for status in (401, 403, 404, 408, 425, 429, 502)]
ODD: list[Any] = [
    *UNREADY,
    pytest.param(submitted(422, detail="no"), REJECTED, id="422"),
    pytest.param(submitted(500), LOST, id="submission-500"),
    pytest.param(submitted(302), LOST, id="submission-redirected"),
    pytest.param(submitted(200, job_id="\ud83d"), LOST, id="id-no-text"),
    pytest.param(submitted(200, job_id=""), LOST, id="id-empty"),
    pytest.param(submitted(200, job_id=7), LOST, id="id-number"),
    pytest.param(submitted(200, job_id="x" * 300), LOST, id="id-long"),
    pytest.param(submitted(200, status=None), LOST, id="no-state"),
    pytest.param(
        submitted(200, status="completed", result_s3_uri=[RESULT]) | seen_in("completed"), FAILED, id="done-at-once"
    ),
    pytest.param(completed_with([]), FAILED, id="result-list"),
    pytest.param(completed_with({}), FAILED, id="result-object"),
    pytest.param(completed_with(False), FAILED, id="result-false"),
    pytest.param(completed_with("  "), FAILED, id="result-blank"),
    pytest.param(completed_with("s3://a/1.png s3://a/2.png"), FAILED, id="result-two"),
    pytest.param(completed_with("/root/x.png"), FAILED, id="result-local"),
    pytest.param(completed_with("s3://a/" + "x" * 500_000), FAILED, id="result-long"),
    pytest.param(completed_with("s3://a/\ud83d"), FAILED, id="result-no-text"),
    pytest.param(seen_in("error"), FAILED, id="state-error"),
    pytest.param(seen_in("cancelled"), FAILED, id="state-cancelled"),
    pytest.param(seen_in("exploded"), FAILED, id="state-unknown"),
    pytest.param(seen_in("x" * 500_000), FAILED, id="state-long"),
    pytest.param(seen_in(7), ASKED_AGAIN, id="state-number"),
    pytest.param({"on_look": showing("COMPLETED", result_s3_uri=RESULT)}, COMPLETED, id="state-in-capitals"),
    pytest.param(
        {"on_look": in_charset("hex", {"status": "completed", "result_s3_uri": RESULT})}, COMPLETED, id="charset"
    ),
    pytest.param(
        {"on_look": showing("completed", job_id="job-2", result_s3_uri=RESULT)}, ASKED_AGAIN, id="another-job"
    ),
    pytest.param({"on_look": answering(302, Location="/api/v1/jobs/job-2")}, ASKED_AGAIN, id="redirected"),
    pytest.param({"on_look": answering(404, text="<html>")}, ASKED_AGAIN, id="html-404"),
    pytest.param({"on_look": answering(404, {"detail": "Not Found"})}, ASKED_AGAIN, id="route-404"),
    pytest.param({"on_look": answering(404, {"detail": "Job not found"})}, RUN_AGAIN, id="own-404"),
    pytest.param({"on_look": answering(200, text="[" + " " * 2_000_000 + "]")}, ASKED_AGAIN, id="endless"),
    pytest.param({"on_look": answering(200, text="[" * 100_000)}, ASKED_AGAIN, id="nested"),
    pytest.param({"on_look": showing("failed", error={"code": "\ud83d"})}, FAILED, id="error-object"),
    pytest.param({"on_look": showing("failed", error="x" * 500_000)}, FAILED, id="error-long"),
    pytest.param(
        {"on_look": showing("failed", error="no"), "on_health": in_charset("hex", {"status": 1})},
        BLAMES_UPSTREAM,
        id="health-nonsense",
    ),
    pytest.param(
        {"on_look": in_turn(showing("failed", error="no"), answering(404, {"detail": "Job not found"}))},
        BLAMES_UPSTREAM,
        id="new-again",
    ),
]


@pytest.mark.parametrize(("said", "end"), ODD)
async def test_what_the_upstream_says_is_validated_not_turned_into_text(
    api: UnifiedApi, client: UnifiedApiClient, said: dict[str, Behaviour], end: str
) -> None:
    """Nothing is raised, nothing comes out that the table would refuse, and nothing waits for the deadline."""
    for name, behaviour in said.items():
        setattr(api, name, behaviour)
    noted: list[str] = []

    async def note(comfy_job_id: str) -> None:
        noted.append(comfy_job_id)

    runner = Runner(api=client, deadline_s=60.0, poll_interval_s=0.02, dead_after_s=0.1)
    outcome = await runner.run(TASK, MESSAGE, note, request_id="request-1")

    assert described(outcome) == end
    told = (getattr(outcome, name, "") for name in ("message", "reason", "result_s3_uri"))
    texts = [*noted, *filter(None, told)]
    assert all(0 < len(text.encode()) < 10_000 for text in texts)
    assert len(api.submissions) == 1
