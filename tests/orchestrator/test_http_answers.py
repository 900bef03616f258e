"""What every answer has, whatever was asked: its id, its log line, its permission for pages of other origins."""

from __future__ import annotations

import httpx2
import pytest
import structlog
from starlette.types import Receive, Scope, Send
from structlog.testing import capture_logs

from services.orchestrator.access_log import AccessLog
from services.orchestrator.request_id import RequestId
from tests.orchestrator.http_world import (
    CAMERA_ANGLE_BODY,
    CAMERA_ANGLE_PATH,
    World,
    a_record,
    api_keys,
    assert_problem,
)

PAGE = "https://app.example.com"


@pytest.mark.parametrize("offered", ["r-1", "Root=1-67891233-abcdef012345678912345678", "a" * 128])
async def test_a_sane_request_id_is_kept(offered: str) -> None:
    async with World() as world:
        for path in ("/health", "/nothing", CAMERA_ANGLE_PATH):
            response = await world.client.get(path, headers={"X-Request-ID": offered})
            assert response.headers.get_list("X-Request-ID") == [offered]


@pytest.mark.parametrize("offered", ["", "a" * 129, "a b", "a\tb", "caf\u00e9", '"', "<script>"])
async def test_another_request_id_is_replaced(offered: str) -> None:
    async with World() as world:
        headers = {b"X-Request-ID": offered.encode()}
        ids = {(await world.client.get("/health", headers=headers)).headers["X-Request-ID"] for _ in range(2)}
        assert len(ids) == 2
        assert offered not in ids


async def test_an_unexpected_error_tells_the_log_everything_and_the_client_its_id() -> None:
    async with World(cors_origins=[PAGE]) as world:
        world.tasks.error = RuntimeError("secret")
        with capture_logs(processors=[structlog.contextvars.merge_contextvars]) as lines:
            response = await world.client.post(CAMERA_ANGLE_PATH, json=CAMERA_ANGLE_BODY, headers={"Origin": PAGE})
        assert assert_problem(response, 500)["detail"] == "Internal Server Error"
        assert "secret" not in response.text
        assert response.headers["Access-Control-Allow-Origin"] == PAGE
        failed, finished = lines
        assert failed["event"] == "request.failed"
        assert failed["exc_info"]
        assert (finished["event"], finished["status"]) == ("request.finished", 500)
        assert failed["request_id"] == finished["request_id"] == response.headers["X-Request-ID"]


async def test_an_answer_that_breaks_off_breaks_the_connection() -> None:
    async def half_an_answer(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise RuntimeError("in the middle")

    transport = httpx2.ASGITransport(RequestId(AccessLog(half_an_answer)))
    async with httpx2.AsyncClient(transport=transport, base_url="http://orchestrator") as client:
        with capture_logs() as lines, pytest.raises(RuntimeError, match="in the middle"):
            await client.get("/")
        assert [line["event"] for line in lines] == ["request.failed", "request.finished"]


async def test_each_request_writes_one_line_with_its_ids() -> None:
    async with World(keys=api_keys(alice="key")) as world:
        job_id = world.tasks.add(a_record(client_id="alice"))
        with capture_logs(processors=[structlog.contextvars.merge_contextvars]) as lines:
            await world.client.get(f"/api/v1/jobs/{job_id}", headers={"X-API-Key": "key", "X-Request-ID": "r-1"})
            await world.client.get(f"/api/v1/jobs/{job_id}", headers={"X-Request-ID": "r-2"})
        assert [line.pop("duration_ms") >= 0 for line in lines] == [True, True]
        common = {"event": "request.finished", "method": "GET", "path": f"/api/v1/jobs/{job_id}"}
        ids = {"client_id": "alice", "job_id": job_id, "request_id": "r-1"}
        assert lines == [
            common | {"log_level": "debug", "status": 200, **ids},
            common | {"log_level": "info", "status": 401, "request_id": "r-2"},
        ]
        assert structlog.contextvars.get_contextvars() == {}


async def test_a_poll_that_is_answered_is_not_worth_a_line_and_a_post_and_a_refusal_are() -> None:
    async with World() as world:
        job_id = world.tasks.add(a_record())
        with capture_logs() as lines:
            for _ in range(3):
                await world.client.get(f"/api/v1/jobs/{job_id}")
            await world.client.get("/api/v1/jobs/unknown")
            await world.client.post(CAMERA_ANGLE_PATH, json=CAMERA_ANGLE_BODY)
        told = [(line["method"], line["status"], line["log_level"]) for line in lines if "method" in line]
        assert told == [*[("GET", 200, "debug")] * 3, ("GET", 404, "info"), ("POST", 202, "info")]


async def test_a_long_path_is_cut_in_the_log() -> None:
    async with World() as world:
        with capture_logs() as lines:
            await world.client.get("/" + "x" * 5000)
        assert len(lines[0]["path"]) == 200


async def test_probes_are_not_worth_a_line() -> None:
    async with World() as world:
        with capture_logs() as lines:
            await world.client.get("/health")
            await world.client.get("/ready")
        assert {line["log_level"] for line in lines} == {"debug"}


async def test_a_page_of_an_allowed_origin_may_read_every_answer() -> None:
    async with World(keys=api_keys(alice="key"), cors_origins=[PAGE], ready={"table": False}) as world:
        posted = await world.client.post(
            CAMERA_ANGLE_PATH, json=CAMERA_ANGLE_BODY, headers={"Origin": PAGE, "X-API-Key": "key"}
        )
        large = await world.client.post(
            CAMERA_ANGLE_PATH, content=b" " * 300_000, headers={"Origin": PAGE, "X-API-Key": "key"}
        )
        others = [
            await world.client.get(path, headers={"Origin": PAGE})
            for path in ("/health", "/nothing", "/ready", "/api/v1/jobs/x", CAMERA_ANGLE_PATH)
        ]
        assert [response.status_code for response in (posted, large, *others)] == [202, 413, 200, 404, 503, 401, 405]
        for response in (posted, large, *others):
            assert response.headers["Access-Control-Allow-Origin"] == PAGE
            exposed = set(response.headers["Access-Control-Expose-Headers"].split(", "))
            assert exposed == {"Location", "Retry-After", "X-Request-ID", "Job-Stage", "Job-Warning"}


async def test_a_preflight_needs_no_key() -> None:
    async with World(keys=api_keys(alice="key"), cors_origins=[PAGE]) as world:
        response = await world.client.options(
            CAMERA_ANGLE_PATH,
            headers={
                "Origin": PAGE,
                "Access-Control-Request-Method": "POST",
                "Access-Control-Request-Headers": "authorization, content-type,idempotency-key, x-api-key",
            },
        )
        assert response.status_code == 200
        assert response.headers["Access-Control-Allow-Origin"] == PAGE
        assert "POST" in response.headers["Access-Control-Allow-Methods"]
        assert response.headers["X-Request-ID"]


@pytest.mark.parametrize("origins", [[], [PAGE]])
async def test_other_origins_get_no_permission(origins: list[str]) -> None:
    async with World(cors_origins=origins) as world:
        headers = {"Origin": "https://evil.example.com"}
        assert "Access-Control-Allow-Origin" not in (await world.client.get("/health", headers=headers)).headers
        headers["Access-Control-Request-Method"] = "POST"
        response = await world.client.options(CAMERA_ANGLE_PATH, headers=headers)
        assert response.status_code in (400, 405)
        assert "Access-Control-Allow-Origin" not in response.headers


@pytest.mark.parametrize(
    ("origin", "is_allowed"),
    [
        ("http://localhost:5173", True),
        ("http://localhost", True),
        ("https://localhost:5173", False),
        ("http://localhost:5173.example.com", False),
        ("http://localhost.example.com:80", False),
        ("http://xlocalhost:5173", False),
        ("http://localhostX", False),
        (PAGE, True),
    ],
)
async def test_an_origin_may_be_allowed_at_any_port(origin: str, *, is_allowed: bool) -> None:
    async with World(cors_origins=["http://localhost:*", "http://[::1]:*", PAGE]) as world:
        response = await world.client.get("/health", headers={"Origin": origin})
        assert response.headers.get("Access-Control-Allow-Origin") == (origin if is_allowed else None)


async def test_any_origin_may_be_allowed() -> None:
    async with World(cors_origins=["*"]) as world:
        response = await world.client.get("/nothing", headers={"Origin": PAGE})
        assert response.headers["Access-Control-Allow-Origin"] == "*"


async def test_refusals_without_end_are_told_by_their_number() -> None:
    async with World(keys=api_keys(alice="key-of-alice")) as world:
        with capture_logs() as lines:
            for _ in range(200):
                assert (await world.client.get("/api/v1/jobs/x")).status_code == 401
            alice = {"X-API-Key": "key-of-alice"}
            assert (await world.client.get("/api/v1/jobs/x", headers=alice)).status_code == 404
            assert (await world.client.get("/")).status_code == 200
    statuses = [line["status"] for line in lines if line["event"] == "request.finished"]
    told = sum(line["count"] for line in lines if line["event"] == "request.lines_left_out")
    assert 0 < statuses.count(401) < 200 - told
    assert (statuses.count(404), statuses.count(200)) == (1, 1)
