"""The client of the Unified API, against one that misbehaves over a real connection."""

from __future__ import annotations

import asyncio
import gzip

import pytest
from aiohttp import web

from lib.gputask.gpu import UpstreamHealth
from services.adapter.dialect import for_client
from services.adapter.errors import (
    SubmissionUnknown,
    UpstreamForgot,
    UpstreamGarbled,
    UpstreamRejected,
    UpstreamSilent,
    UpstreamUnreachable,
    UpstreamUnready,
)
from services.adapter.upstream import UnifiedApi as UnifiedApiClient
from services.adapter.upstream import UpstreamJob
from tests.adapter import unified_api
from tests.adapter.unified_api import Behaviour, UnifiedApi, answering, hang

API_PATH = "/api/v1/qwen-image-edit/jobs"
BODY = '{"image_url": "s3://pictures/cat.png", "prompt": "\\u7ebf\\u7a3f", "cfg": 1.0, "steps": 4}'
PATIENT_S = 10.0
SHORT_S = 0.2

DEEP = "[" * 100_000


async def submit(client: UnifiedApiClient, *, timeout_s: float = PATIENT_S) -> UpstreamJob:
    return await client.submit(API_PATH, BODY, request_id="request-1", timeout_s=timeout_s)


async def bad_gzip(request: web.Request) -> web.StreamResponse:
    return web.Response(body=gzip.compress(b"{}")[:-8], headers={"Content-Encoding": "gzip"})


async def unknown_charset(request: web.Request) -> web.StreamResponse:
    return web.Response(body=b"\xff\xfe", headers={"Content-Type": "application/json; charset=klingon"})


NO_JOBS = [
    pytest.param(answering(200, text="<html>"), id="html"),
    pytest.param(answering(200, text=""), id="nothing"),
    pytest.param(answering(200, text=DEEP), id="deeply-nested"),
    pytest.param(answering(200, ["job-1"]), id="array"),
    pytest.param(answering(200, None), id="null"),
    pytest.param(answering(200, {"status": "pending"}), id="no-job-id"),
    pytest.param(answering(200, {"job_id": "job-1"}), id="no-status"),
    pytest.param(answering(200, {"job_id": 1, "status": "pending"}), id="job-id-is-a-number"),
    pytest.param(answering(200, {"job_id": "", "status": "pending"}), id="job-id-is-empty"),
    pytest.param(answering(200, {"job_id": "job-1", "status": None}), id="status-is-null"),
    pytest.param(answering(500, {"detail": "Internal Server Error"}), id="500"),
    pytest.param(unknown_charset, id="unknown-charset"),
]
BROKEN_CONNECTIONS = [
    pytest.param(unified_api.disconnect, id="disconnected"),
    pytest.param(unified_api.reset, id="reset"),
    pytest.param(unified_api.break_off, id="broken-off-in-mid-answer"),
    pytest.param(unified_api.speak_no_http, id="no-http"),
    pytest.param(bad_gzip, id="bad-gzip"),
]


# health


async def test_it_is_healthy_when_comfyui_is(api: UnifiedApi, client: UnifiedApiClient) -> None:
    assert await client.health(PATIENT_S) is UpstreamHealth.HEALTHY


async def test_the_truth_is_in_comfyui_status(api: UnifiedApi, client: UnifiedApiClient) -> None:
    api.on_health = answering(200, {"status": "healthy", "comfyui_status": "unhealthy"})
    assert await client.health(PATIENT_S) is UpstreamHealth.UNHEALTHY


async def test_an_api_without_comfyui_status_is_taken_at_its_word(api: UnifiedApi, client: UnifiedApiClient) -> None:
    api.on_health = answering(200, {"status": "healthy"})
    assert await client.health(PATIENT_S) is UpstreamHealth.HEALTHY


async def test_silence_is_business(api: UnifiedApi, client: UnifiedApiClient) -> None:
    api.on_health = hang
    assert await client.health(SHORT_S) is UpstreamHealth.BUSY


@pytest.mark.parametrize("behaviour", [*NO_JOBS, *BROKEN_CONNECTIONS])
async def test_nonsense_is_no_health(api: UnifiedApi, client: UnifiedApiClient, behaviour: Behaviour) -> None:
    api.on_health = behaviour
    assert await client.health(PATIENT_S) is UpstreamHealth.UNHEALTHY


async def test_nobody_listening_is_no_health(api: UnifiedApi, client: UnifiedApiClient) -> None:
    await api.stop()
    assert await client.health(PATIENT_S) is UpstreamHealth.UNHEALTHY


# submit


async def test_a_job_is_posted_as_it_came_with_its_request_id(api: UnifiedApi, client: UnifiedApiClient) -> None:
    received: list[bytes] = []

    async def accept(request: web.Request) -> web.StreamResponse:
        received.append(await request.read())
        return await api.accept(request)

    api.on_submit = accept
    job = await submit(client)

    assert job == UpstreamJob(api.runs[0], "pending", None, None)
    assert received == [BODY.encode()]
    assert api.submissions[0].api_path == API_PATH
    assert api.submissions[0].headers["Content-Type"] == "application/json"
    assert api.submissions[0].headers["X-Request-ID"] == "request-1"


async def test_a_sampler_of_the_earlier_api_is_posted_by_comfyuis_name(
    api: UnifiedApi, client: UnifiedApiClient
) -> None:
    body = BODY.replace("}", ', "sampler_name": "euler_a"}')
    await client.submit(API_PATH, body, request_id="request-1", timeout_s=PATIENT_S)
    assert api.submissions[0].body["sampler_name"] == "euler_ancestral"


async def test_no_request_shares_a_connection(api: UnifiedApi, client: UnifiedApiClient) -> None:
    job = await submit(client)
    await client.health(PATIENT_S)
    await client.look(job.id, timeout_s=PATIENT_S)
    await submit(client)
    assert len(set(api.peers)) == 4


async def test_a_refused_connection_is_told_from_a_lost_answer(api: UnifiedApi, client: UnifiedApiClient) -> None:
    await api.stop()
    with pytest.raises(UpstreamUnreachable):
        await submit(client)


@pytest.mark.parametrize("behaviour", [*NO_JOBS, *BROKEN_CONNECTIONS])
async def test_a_post_that_arrived_and_was_not_confirmed_is_unknown_and_not_repeated(
    api: UnifiedApi, client: UnifiedApiClient, behaviour: Behaviour
) -> None:
    api.on_submit = behaviour
    with pytest.raises(SubmissionUnknown):
        await submit(client)
    assert len(api.submissions) == 1


async def test_a_post_that_is_not_answered_in_time_is_unknown(api: UnifiedApi, client: UnifiedApiClient) -> None:
    api.on_submit = hang
    with pytest.raises(SubmissionUnknown):
        await submit(client, timeout_s=SHORT_S)
    assert len(api.submissions) == 1


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_post_follows_no_redirect(api: UnifiedApi, client: UnifiedApiClient, status: int) -> None:
    api.on_submit = answering(status, Location=f"{api.url}{API_PATH}/")
    with pytest.raises(SubmissionUnknown, match=str(status)):
        await submit(client)
    assert len(api.submissions) == 1
    assert not api.looks


async def test_fastapis_list_of_errors_becomes_a_sentence(api: UnifiedApi, client: UnifiedApiClient) -> None:
    missing = {"type": "missing", "loc": ["body", "image_url"], "msg": "Field required", "input": {"a": "secret"}}
    too_big = {"type": "less_than_equal", "loc": ["body", "zoom"], "msg": "Input should be less than or equal to 1"}
    api.on_submit = answering(422, {"detail": [missing, too_big]})

    with pytest.raises(UpstreamRejected) as caught:
        await submit(client)

    sentence = "image_url: Field required; zoom: Input should be less than or equal to 1"
    assert str(caught.value) == f"the Unified API refused the request (422): {sentence}"


@pytest.mark.parametrize(
    ("behaviour", "words"),
    [
        (answering(400, text="<html>no</html>"), "(400): <html>no</html>"),
        (answering(422, {"detail": ["prompt is rude"]}), "(422): prompt is rude"),
        (answering(422, {"detail": [{"msg": "no place"}]}), "(422): no place"),
        (answering(422, {"detail": [{"loc": None, "msg": "no place"}]}), "(422): no place"),
        (answering(422, {"detail": [{"loc": 7, "msg": "odd place"}]}), "(422): odd place"),
        (answering(422, {"detail": None}), "(422): no reason given"),
        (answering(422, {"detail": "\ud83d"}), "(422): ?"),
        (answering(422, "text"), '(422): "text"'),
        (answering(422, text=DEEP), "(422): [[["),
    ],
)
async def test_any_4xx_is_a_refusal_with_its_reason(
    api: UnifiedApi, client: UnifiedApiClient, behaviour: Behaviour, words: str
) -> None:
    api.on_submit = behaviour
    with pytest.raises(UpstreamRejected) as caught:
        await submit(client)
    assert words in str(caught.value)
    assert len(str(caught.value)) < 3000


# look


async def test_a_look_shows_the_job(api: UnifiedApi, client: UnifiedApiClient) -> None:
    job = await submit(client)
    assert (await client.look(job.id, timeout_s=PATIENT_S)).status == "processing"
    api.fail(job.id, "No output images generated")
    assert (await client.look(job.id, timeout_s=PATIENT_S)).error == for_client("No output images generated")


async def test_a_result_is_passed_on_as_it_is_given(api: UnifiedApi, client: UnifiedApiClient) -> None:
    without_a_scheme = "cdn.example.com/comfyui-results/qwen-image-edit/1/output.png"
    job = await submit(client)
    api.end(job.id, result_s3_uri=without_a_scheme)
    assert (await client.look(job.id, timeout_s=PATIENT_S)).result_s3_uri == without_a_scheme


async def test_an_unknown_id_is_forgotten(api: UnifiedApi, client: UnifiedApiClient) -> None:
    with pytest.raises(UpstreamForgot):
        await client.look("job-1", timeout_s=PATIENT_S)


async def test_an_id_cannot_lead_elsewhere(api: UnifiedApi, client: UnifiedApiClient) -> None:
    with pytest.raises(UpstreamForgot):
        await client.look("../../health?", timeout_s=PATIENT_S)
    assert api.looks == ["../../health?"]


async def test_a_look_that_is_not_answered_in_time_found_silence(api: UnifiedApi, client: UnifiedApiClient) -> None:
    api.on_look = hang
    with pytest.raises(UpstreamSilent):
        await client.look("job-1", timeout_s=SHORT_S)


async def test_a_look_with_nobody_listening_found_nobody(api: UnifiedApi, client: UnifiedApiClient) -> None:
    await api.stop()
    with pytest.raises(UpstreamUnreachable):
        await client.look("job-1", timeout_s=PATIENT_S)


@pytest.mark.parametrize("behaviour", [*NO_JOBS, *BROKEN_CONNECTIONS])
async def test_a_look_at_nonsense_learned_nothing(
    api: UnifiedApi, client: UnifiedApiClient, behaviour: Behaviour
) -> None:
    api.on_look = behaviour
    with pytest.raises(UpstreamGarbled):
        await client.look("job-1", timeout_s=PATIENT_S)


async def test_a_long_error_is_cut(api: UnifiedApi, client: UnifiedApiClient) -> None:
    """DynamoDB takes 400 KB per item; a record that cannot be written would never end."""
    job = await submit(client)
    api.fail(job.id, "x" * 500_000)
    error = (await client.look(job.id, timeout_s=PATIENT_S)).error
    assert error is not None
    assert len(error) < 3000


async def test_an_error_can_always_be_stored(api: UnifiedApi, client: UnifiedApiClient) -> None:
    api.on_look = answering(200, text='{"job_id": "1", "status": "failed", "error": "\\ud83d broken"}')
    error = (await client.look("1", timeout_s=PATIENT_S)).error
    assert error is not None
    assert error.encode().endswith(b" broken")


async def test_an_error_may_be_any_json(api: UnifiedApi, client: UnifiedApiClient) -> None:
    api.on_look = answering(200, {"job_id": "1", "status": "failed", "error": {"node_errors": []}})
    error = (await client.look("1", timeout_s=PATIENT_S)).error
    assert error is not None
    assert "node_errors" in error


@pytest.mark.parametrize("call", ["health", "submit", "look"])
async def test_a_request_can_be_cancelled_while_it_hangs(api: UnifiedApi, client: UnifiedApiClient, call: str) -> None:
    arrived = asyncio.Event()

    async def arrive_and_hang(request: web.Request) -> web.StreamResponse:
        arrived.set()
        return await hang(request)

    api.on_health = api.on_submit = api.on_look = arrive_and_hang
    request = {
        "health": client.health(PATIENT_S),
        "submit": submit(client),
        "look": client.look("job-1", timeout_s=PATIENT_S),
    }
    asking = asyncio.ensure_future(request.pop(call))
    for other in request.values():
        other.close()
    await arrived.wait()
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking


# What the upstream says is validated


@pytest.mark.parametrize("status", [401, 403, 404, 408, 425, 429, 502, 503, 504])
async def test_a_refusal_that_is_not_the_jobs_fault_is_told_apart(
    api: UnifiedApi, client: UnifiedApiClient, status: int
) -> None:
    api.on_submit = answering(status, text="<html>busy</html>")
    with pytest.raises(UpstreamUnready, match=str(status)):
        await submit(client)


@pytest.mark.parametrize(
    "said",
    [
        *([], {}, False, "", "  ", 7, "/root/x.png", "file:///root/x.png", "s3://", "x.png"),
        *("s3://a/1.png s3://a/2.png", "s3://a/1.png,s3://a/2.png", "s3://a/" + "x" * 500_000, "s3://a/\ud83d"),
    ],
)
async def test_what_is_no_address_is_no_result(api: UnifiedApi, client: UnifiedApiClient, said: object) -> None:
    api.on_look = unified_api.showing("completed", result_s3_uri=said)
    assert (await client.look("job-1", timeout_s=PATIENT_S)).result_s3_uri is None


@pytest.mark.parametrize(
    "behaviour",
    [
        answering(404, {"detail": "Not Found"}),
        answering(404, text="<html>"),
        answering(302, Location="/api/v1/jobs/job-2"),
        answering(200, {"job_id": "job-2", "status": "completed", "result_s3_uri": "s3://a/another.png"}),
        answering(200, text='{"job_id": "\\ud83d", "status": "completed"}'),
        answering(200, text="[" + " " * 2_000_000 + "]"),
    ],
)
async def test_what_is_not_the_jobs_own_answer_is_garbled(
    api: UnifiedApi, client: UnifiedApiClient, behaviour: Behaviour
) -> None:
    api.on_look = behaviour
    with pytest.raises(UpstreamGarbled):
        await client.look("job-1", timeout_s=PATIENT_S)
    assert api.looks == ["job-1"]


async def test_no_charset_ends_a_look_at_the_health(api: UnifiedApi, client: UnifiedApiClient) -> None:
    async def hexadecimal(request: web.Request) -> web.StreamResponse:
        return web.Response(body=b"zz", headers={"Content-Type": "application/json; charset=hex"})

    api.on_health = hexadecimal
    assert await client.health(PATIENT_S) is UpstreamHealth.UNHEALTHY


async def test_a_client_never_reads_a_servers_files_and_neighbours(api: UnifiedApi, client: UnifiedApiClient) -> None:
    said = "[Errno 111] at http://127.0.0.1:8188/prompt: /root/ComfyUI/output/x.png of https://a.example.com/b/c.png"
    api.on_look = unified_api.showing("failed", error=said)
    error = (await client.look("job-1", timeout_s=PATIENT_S)).error
    assert error == "at (an internal address) (a local file) of https://a.example.com/b/c.png"
