from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from typing import Any

import pytest

from lib.asyncaws.errors import PermanentAwsError, TransientAwsError
from lib.gputask.ids import derived_task_id, new_task_id
from lib.gputask.kinds import KINDS_BY_PATH
from lib.gputask.record import Status, TaskRecord
from services.orchestrator.admission import Admission, AdmissionLimits
from services.orchestrator.errors import Unavailable
from tests.orchestrator.http_world import (
    CAMERA_ANGLE_BODY,
    CAMERA_ANGLE_PATH,
    JOB_MEMBERS,
    QWEN_BODY,
    QWEN_PATH,
    MemoryTasks,
    World,
    a_record,
    assert_invalid_body,
    assert_problem,
    to_json,
)

BOTH_KINDS = [(CAMERA_ANGLE_PATH, CAMERA_ANGLE_BODY), (QWEN_PATH, QWEN_BODY)]


@pytest.mark.parametrize(("path", "body"), BOTH_KINDS)
async def test_a_post_of_each_kind_is_accepted_with_a_job(path: str, body: dict[str, Any]) -> None:
    async with World() as world:
        response = await world.client.post(path, json=body, headers={"X-Request-ID": "r-1"})
        job = response.json()
        assert response.status_code == 202
        unknown = {"result_s3_uri": None, "result_url": None, "error": None}
        assert job == {"job_id": job["job_id"], "status": "pending", **unknown}
        assert response.headers["Location"] == f"/api/v1/jobs/{job['job_id']}"
        assert int(response.headers["Retry-After"]) > 0
        assert response.headers["Job-Stage"] == "waiting: GPU is starting"
        (submitted,) = world.tasks.submitted
        assert submitted["kind"] is KINDS_BY_PATH[path]
        assert (submitted["client_id"], submitted["key"], submitted["request_id"]) == ("anonymous", None, "r-1")

        followed = await world.client.get(response.headers["Location"])
        assert followed.json() == job


async def test_the_body_goes_on_as_it_came() -> None:
    body = b'{ "image_url":"s3://pictures/cat.png",  "steps": 8.0, "unknown": [1.50, "\xe7\xba\xbf\\u7a3f"] }\n'
    async with World() as world:
        assert (await world.post_raw(body)).status_code == 202
        assert world.tasks.submitted[0]["body"] == body


@pytest.mark.parametrize("content_type", ["application/json; charset=utf-8", "application/vnd.api+json", ""])
async def test_json_is_taken_however_it_is_declared(content_type: str) -> None:
    async with World() as world:
        response = await world.post_raw(to_json(CAMERA_ANGLE_BODY), headers={"Content-Type": content_type})
        assert response.status_code == 202


@pytest.mark.parametrize("prefix", ["/api/v1/jobs", CAMERA_ANGLE_PATH])
async def test_a_job_is_shown_as_the_record_has_it(prefix: str) -> None:
    async with World() as world:
        job_id = world.tasks.add(a_record())
        for status, outcome in [
            (Status.PENDING, {}),
            (Status.PROCESSING, {}),
            (Status.COMPLETED, {"result_s3_uri": "cdn.example.com/output.png"}),
            (Status.FAILED, {"error_message": "No output images generated", "error_code": "upstream_failed"}),
        ]:
            world.tasks.change(job_id, status=status, result_s3_uri=None, error_message=None)
            world.tasks.change(job_id, **outcome)
            response = await world.client.get(f"{prefix}/{job_id}")
            assert response.status_code == 200
            assert response.json() == {
                "job_id": job_id,
                "status": status.value,
                "result_s3_uri": outcome.get("result_s3_uri"),
                "result_url": "https://cdn.example.com/output.png" if status is Status.COMPLETED else None,
                "error": outcome.get("error_message"),
            }
            assert response.json().keys() == JOB_MEMBERS
            assert response.headers["Cache-Control"] == "no-store"
            assert ("Retry-After" in response.headers) is not status.is_terminal
            assert ("Job-Stage" in response.headers) is not status.is_terminal


async def test_a_stage_that_no_header_can_carry_is_made_harmless() -> None:
    async with World() as world:
        world.stage = "waiting:\r\nSet-Cookie: a=b \u2192 GPU"
        response = await world.client.get(f"/api/v1/jobs/{world.tasks.add(a_record())}")
        assert response.headers["Job-Stage"] == "waiting:??Set-Cookie: a=b ? GPU"


@pytest.mark.parametrize("prefix", ["/api/v1/jobs", CAMERA_ANGLE_PATH, QWEN_PATH])
async def test_an_unknown_job_is_not_found(prefix: str) -> None:
    async with World() as world:
        response = await world.client.get(f"{prefix}/{new_task_id()}")
        assert assert_problem(response, 404)["detail"] == "Job not found"


@pytest.mark.parametrize(
    "job_id", ["1", "worker%23i-0fedcba9876543210", "instance%23i-0f", "%00", "x" * 3000, "%F0%9F%92%A5"]
)
async def test_what_is_no_job_id_is_not_even_looked_up(job_id: str) -> None:
    async with World() as world:
        response = await world.client.get(f"/api/v1/jobs/{job_id}")
        assert assert_problem(response, 404)["detail"] == "Job not found"
        assert world.tasks.reads == []


async def test_a_job_of_another_kind_is_not_found_under_this_one() -> None:
    async with World() as world:
        job_id = world.tasks.add(a_record(job_type=QWEN_PATH))
        assert (await world.client.get(f"{QWEN_PATH}/{job_id}")).status_code == 200
        response = await world.client.get(f"{CAMERA_ANGLE_PATH}/{job_id}")
        assert assert_problem(response, 404)["detail"] == "Job not found"


@pytest.mark.parametrize(
    ("key", "meaning"),
    [("k-1", "k-1"), ('"k-1"', "k-1"), (r'"a\"b\\c"', r'a"b\c'), ("x" * 255, "x" * 255)],
)
async def test_the_same_idempotency_key_is_the_same_job(key: str, meaning: str) -> None:
    async with World() as world:
        headers = {"Idempotency-Key": key}
        first = await world.client.post(CAMERA_ANGLE_PATH, json=CAMERA_ANGLE_BODY, headers=headers)
        assert first.status_code == 202
        assert first.json()["job_id"] == derived_task_id("anonymous", meaning)
        world.tasks.change(first.json()["job_id"], status=Status.COMPLETED, result_s3_uri="s3://results/1.png")
        again = await world.client.post(CAMERA_ANGLE_PATH, json=CAMERA_ANGLE_BODY, headers=headers)
        assert again.status_code == 202
        assert again.json() == first.json() | {"status": "completed", "result_s3_uri": "s3://results/1.png"}
        assert again.headers["Location"] == first.headers["Location"]
        assert "Retry-After" not in again.headers
        assert len(world.tasks.submitted) == 1


async def test_an_idempotency_key_for_another_request_is_refused() -> None:
    async with World() as world:
        headers = {"Idempotency-Key": "k-1"}
        await world.client.post(CAMERA_ANGLE_PATH, json=CAMERA_ANGLE_BODY, headers=headers)
        response = await world.client.post(CAMERA_ANGLE_PATH, json=CAMERA_ANGLE_BODY | {"zoom": 1}, headers=headers)
        members = assert_problem(response, 422)
        assert members["type"].endswith(":idempotency-key-reused")
        assert members["detail"][0]["loc"] == ["header", "Idempotency-Key"]
        assert len(world.tasks.submitted) == 1


@pytest.mark.parametrize("key", ["", " ", '""', "x" * 256, "a b", '"a', '"a"b"', "caf\u00e9", '"a\\b"'])
async def test_a_malformed_idempotency_key_is_refused(key: str) -> None:
    async with World() as world:
        headers = {b"Idempotency-Key": key.encode("latin-1")}
        response = await world.client.post(CAMERA_ANGLE_PATH, json=CAMERA_ANGLE_BODY, headers=headers)
        assert "Idempotency-Key" in assert_problem(response, 400)["detail"]
        assert world.tasks.submitted == []


async def test_two_idempotency_keys_are_refused() -> None:
    async with World() as world:
        headers = [("Idempotency-Key", "a"), ("Idempotency-Key", "a")]
        response = await world.client.post(CAMERA_ANGLE_PATH, json=CAMERA_ANGLE_BODY, headers=headers)
        assert_problem(response, 400)
        assert world.tasks.submitted == []


async def test_what_is_not_accepted_now_may_be_tried_again_later() -> None:
    async with World() as world:
        world.tasks.error = Unavailable(3)
        response = await world.client.post(CAMERA_ANGLE_PATH, json=CAMERA_ANGLE_BODY)
        assert_problem(response, 503)
        assert response.headers["Retry-After"] == "3"
        assert "Location" not in response.headers


@pytest.mark.parametrize("error", [TransientAwsError, PermanentAwsError])
async def test_a_fault_at_aws_is_unavailable_and_says_nothing_of_the_inside(error: type[Exception]) -> None:
    async with World() as world:
        world.tasks.error = error("GetItem", "AccessDeniedException", "arn:aws:iam::123456789012:role/secret")
        response = await world.client.get(f"/api/v1/jobs/{new_task_id()}")
        assert_problem(response, 503)
        assert int(response.headers["Retry-After"]) > 0
        assert "secret" not in response.text
        assert "GetItem" not in response.text


async def test_submissions_beyond_the_limit_are_turned_away() -> None:
    gate = Gate()
    admission = Admission(AdmissionLimits(places=2, patience_s=0, hold_s=0))
    async with World(submission=gate, admission=admission) as world, asyncio.TaskGroup() as group:
        waiting = [
            group.create_task(world.client.post(CAMERA_ANGLE_PATH, json=CAMERA_ANGLE_BODY), name=f"post {number}")
            for number in range(2)
        ]
        await gate.until_inside(2)
        response = await world.client.post(CAMERA_ANGLE_PATH, json=CAMERA_ANGLE_BODY)
        assert_problem(response, 503)
        assert response.headers["Retry-After"] == "1"
        assert (await world.client.get("/health")).status_code == 200
        gate.open.set()
        assert [(await task).status_code for task in waiting] == [202, 202]
        # The places are free again, also after failures.
        for _ in range(3):
            gate.error = Unavailable(1)
            assert (await world.client.post(CAMERA_ANGLE_PATH, json=CAMERA_ANGLE_BODY)).status_code == 503
        gate.error = None
        assert (await world.client.post(CAMERA_ANGLE_PATH, json=CAMERA_ANGLE_BODY)).status_code == 202


class Gate(MemoryTasks):
    """A submission that waits until it is opened."""

    def __init__(self) -> None:
        super().__init__()
        self.open = asyncio.Event()
        self._inside = asyncio.Semaphore(0)

    async def until_inside(self, number: int) -> None:
        for _ in range(number):
            await self._inside.acquire()

    async def submit(self, **request: Any) -> TaskRecord:
        self._inside.release()
        await self.open.wait()
        return await super().submit(**request)


async def test_a_job_id_is_found_in_either_case() -> None:
    async with World() as world:
        job_id = world.tasks.add(a_record())
        response = await world.client.get(f"/api/v1/jobs/{job_id.upper()}")
        assert (response.status_code, response.json()["job_id"]) == (200, job_id)


@pytest.mark.parametrize(("code", "said"), [("rule_b", "rule_b"), (None, "no error code")])
async def test_a_job_that_failed_without_a_message_says_so(code: str | None, said: str) -> None:
    async with World() as world:
        job_id = world.tasks.add(a_record())
        world.tasks.change(job_id, status=Status.FAILED, error_message=None, error_code=code)
        error = (await world.client.get(f"/api/v1/jobs/{job_id}")).json()["error"]
        assert error == f"The job failed ({said}); no message was recorded"


async def test_health_is_answered_below_the_api_as_well() -> None:
    async with World() as world:
        below = await world.client.get("/api/v1/health")
        assert (below.status_code, below.json()) == (200, (await world.client.get("/health")).json())


@pytest.mark.parametrize(
    ("result", "address"),
    [
        ("https://cdn.example.com/a/output.png", "https://cdn.example.com/a/output.png"),
        ("http://cdn.example.com/a/output.png", "http://cdn.example.com/a/output.png"),
        ("cdn.example.com:8443/a/output.png?v=1", "https://cdn.example.com:8443/a/output.png?v=1"),
        ("s3://bucket/comfyui-results/camera-angle/1/output.png", None),
        ("/root/output.png", None),
        ("output.png", None),
    ],
)
async def test_result_url_is_an_address_that_a_browser_can_open(result: str, address: str | None) -> None:
    async with World() as world:
        job_id = world.tasks.add(a_record())
        world.tasks.change(job_id, status=Status.COMPLETED, result_s3_uri=result)
        job = (await world.client.get(f"/api/v1/jobs/{job_id}")).json()
        assert (job["result_s3_uri"], job["result_url"]) == (result, address)


async def test_an_unknown_job_ends_the_loop_of_whoever_reads_only_the_status() -> None:
    path = "/api/v1/jobs/00000000-0000-8000-8000-000000000000"
    async with World() as world:
        for accept in ("*/*", "application/json"):
            answer = await world.client.get(path, headers={"Accept": accept})
            assert (answer.status_code, answer.json()["status"]) == (404, "failed")
            assert answer.headers["content-type"] == "application/json"
        answer = await world.client.get(path, headers={"Accept": "application/problem+json"})
        assert (answer.status_code, answer.json()["status"]) == (404, 404)
        assert answer.headers["content-type"] == "application/problem+json"


async def test_a_trailing_slash_is_answered_like_without() -> None:
    async with World() as world:
        posted = await world.client.post(CAMERA_ANGLE_PATH + "/", json=CAMERA_ANGLE_BODY)
        assert posted.status_code == 202
        job_id = posted.json()["job_id"]
        assert (await world.client.get(f"/api/v1/jobs/{job_id}/")).json() == posted.json()


def presigned(left_s: float) -> str:
    date = datetime.fromtimestamp(time.time() - 100, UTC)
    expires = round(left_s + 100)
    return (
        f"https://p.s3.amazonaws.com/cat.png?X-Amz-Date={date:%Y%m%dT%H%M%SZ}&X-Amz-Expires={expires}&X-Amz-Signature=0"
    )


async def test_an_image_address_that_has_expired_is_refused_by_its_field() -> None:
    async with World() as world:
        body = QWEN_BODY | {"image_url": presigned(600), "image3_url": presigned(-1)}
        (error,) = assert_invalid_body(await world.client.post(QWEN_PATH, json=body))
        assert error["loc"] == ["body", "image3_url"]
        assert error["msg"].startswith("The image address expired at 2")
        assert world.tasks.submitted == []


@pytest.mark.parametrize(("left_s", "is_warned_of"), [(60, True), (3600, False)])
async def test_an_image_address_that_ends_before_a_boot_is_accepted_with_a_warning(
    left_s: float, *, is_warned_of: bool
) -> None:
    async with World(cors_origins=["*"]) as world:
        headers = {"Origin": "https://app.example.com"}
        response = await world.client.post(CAMERA_ANGLE_PATH, json={"image_url": presigned(left_s)}, headers=headers)
        assert response.status_code == 202
        assert ("Job-Warning" in response.headers) is is_warned_of
        assert "Job-Warning" in response.headers["Access-Control-Expose-Headers"]


async def test_a_job_is_found_by_its_key_though_its_address_has_expired_since() -> None:
    body = to_json({"image_url": presigned(-1)})
    key = {"Idempotency-Key": "k"}
    async with World() as world:
        assert_invalid_body(await world.post_raw(body, headers=key))
        job_id = derived_task_id("anonymous", "k")
        world.tasks.add(a_record(task_id=job_id, request_body=body.decode()))
        response = await world.post_raw(body, headers=key)
        assert (response.status_code, response.json()["job_id"]) == (202, job_id)
        assert_problem(await world.post_raw(to_json({"image_url": presigned(-9)}), headers=key), 422)
        assert world.tasks.submitted == []
