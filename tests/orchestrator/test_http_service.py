from __future__ import annotations

import asyncio
from collections.abc import Mapping

import httpx2
import pytest
import structlog
from starlette.types import Receive, Scope, Send
from structlog.testing import capture_logs

from services.orchestrator.access_log import AccessLog
from services.orchestrator.errors import NotReady
from services.orchestrator.readiness import CACHE_S, Readiness
from services.orchestrator.request_id import RequestId
from tests.orchestrator.http_world import (
    CAMERA_ANGLE_BODY,
    CAMERA_ANGLE_PATH,
    QWEN_PATH,
    World,
    a_record,
    api_keys,
    assert_problem,
)

PAGE = "https://app.example.com"


async def test_health_asks_nobody() -> None:
    async with World(ready={"table": False}) as world:
        world.tasks.error = RuntimeError("AWS is gone")
        response = await world.client.get("/health")
        assert response.status_code == 200
        assert response.json() == {"status": "healthy", "message": "Orchestrator is running"}
        assert world.looks == 0


async def test_the_service_describes_itself() -> None:
    async with World() as world:
        members = (await world.client.get("/")).json()
        assert members["version"]
        assert members["endpoints"]["camera-angle"] == f"POST {CAMERA_ANGLE_PATH}"
        assert members["endpoints"]["qwen-image-edit"] == f"POST {QWEN_PATH}"


async def test_ready_says_what_was_looked_at() -> None:
    async with World() as world:
        response = await world.client.get("/ready")
        assert response.status_code == 200
        assert response.json() == {"status": "ready", "checks": {"table": True, "queue": True}}


async def test_not_ready_is_unavailable_and_names_what_does_not_answer() -> None:
    async with World(ready={"table": True, "queue": False}) as world:
        response = await world.client.get("/ready")
        assert assert_problem(response, 503)["checks"] == {"table": True, "queue": False}
        assert int(response.headers["Retry-After"]) > 0


async def test_a_look_that_fails_means_not_ready() -> None:
    async def fail() -> Mapping[str, bool]:
        raise RuntimeError("secret")

    async with World(readiness_check=fail) as world:
        with capture_logs() as lines:
            response = await world.client.get("/ready")
        assert_problem(response, 503)
        assert "secret" not in response.text
        assert [line["event"] for line in lines if line["log_level"] == "error"] == ["readiness.failed"]


async def test_many_who_ask_whether_it_is_ready_make_one_look() -> None:
    async with World() as world:
        responses = await asyncio.gather(*(world.client.get("/ready") for _ in range(20)))
        assert {response.status_code for response in responses} == {200}
        assert world.looks == 1


@pytest.mark.parametrize("is_ready", [True, False])
async def test_a_look_counts_for_a_few_seconds_whatever_it_saw(is_ready: bool) -> None:
    now_s = 100.0
    looks = 0

    async def look() -> Mapping[str, bool]:
        nonlocal looks
        looks += 1
        return {"table": is_ready}

    async def ask() -> None:
        try:
            await readiness.ensure()
        except NotReady:
            assert not is_ready

    readiness = Readiness(look, clock=lambda: now_s)
    await ask()
    now_s += CACHE_S - 0.01
    await ask()
    assert looks == 1
    now_s += 0.01
    await ask()
    assert looks == 2


async def test_one_who_stops_asking_does_not_spoil_the_look_for_the_others() -> None:
    looking, answer = asyncio.Event(), asyncio.Event()

    async def look() -> Mapping[str, bool]:
        looking.set()
        await answer.wait()
        return {"table": True}

    readiness = Readiness(look)
    first = asyncio.create_task(readiness.ensure())
    second = asyncio.create_task(readiness.ensure())
    await looking.wait()
    first.cancel()
    answer.set()
    assert await second == {"table": True}
    assert first.cancelled()


@pytest.mark.parametrize(
    "path", ["/nothing", "/api/v1", "/api/v1/jobs", "/api/v1/jobs/", "/api/v1/unknown/jobs", "/health/", "//health"]
)
async def test_an_unknown_route_is_not_found_and_never_redirected(path: str) -> None:
    async with World() as world:
        for method in ("GET", "POST"):
            response = await world.client.request(method, f"http://orchestrator{path}")
            assert assert_problem(response, 404)["detail"] == "Not Found"


async def test_a_trailing_slash_is_another_route() -> None:
    async with World() as world:
        assert_problem(await world.client.post(CAMERA_ANGLE_PATH + "/", json=CAMERA_ANGLE_BODY), 404)
        assert world.tasks.submitted == []


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("GET", CAMERA_ANGLE_PATH, "POST"),
        ("PUT", QWEN_PATH, "POST"),
        ("DELETE", "/api/v1/jobs/x", "GET, HEAD"),
        ("POST", "/health", "GET, HEAD"),
    ],
)
async def test_another_method_is_not_allowed(method: str, path: str, allow: str) -> None:
    async with World() as world:
        response = await world.client.request(method, path)
        assert assert_problem(response, 405)["detail"] == "Method Not Allowed"
        assert response.headers["Allow"] == allow


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
        common = {"event": "request.finished", "log_level": "info", "method": "GET", "path": f"/api/v1/jobs/{job_id}"}
        assert lines == [
            common | {"status": 200, "client_id": "alice", "job_id": job_id, "request_id": "r-1"},
            common | {"status": 401, "request_id": "r-2"},
        ]
        assert structlog.contextvars.get_contextvars() == {}


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
            assert exposed == {"Location", "Retry-After", "X-Request-ID", "Job-Stage"}


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


async def test_any_origin_may_be_allowed() -> None:
    async with World(cors_origins=["*"]) as world:
        response = await world.client.get("/nothing", headers={"Origin": PAGE})
        assert response.headers["Access-Control-Allow-Origin"] == "*"
