from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest
from structlog.testing import capture_logs

from services.orchestrator.errors import NotReady
from services.orchestrator.readiness import CACHE_S, Readiness
from tests.orchestrator.http_world import (
    CAMERA_ANGLE_PATH,
    QWEN_PATH,
    World,
    assert_problem,
)


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
        assert response.json() == {"status": "ready", "checks": {"table": True, "queue": True, "gpu": True}}


async def test_not_ready_is_unavailable_and_names_what_does_not_answer() -> None:
    async with World(ready={"table": True, "queue": False}) as world:
        response = await world.client.get("/ready")
        assert assert_problem(response, 503)["checks"] == {"table": True, "queue": False, "gpu": True}
        assert int(response.headers["Retry-After"]) > 0


async def test_a_gpu_that_only_an_operator_can_wake_means_not_ready_and_is_named() -> None:
    async with World(gpu_problem=lambda: "GPU start refused (VcpuLimitExceeded)") as world:
        response = await world.client.get("/ready")
        members = assert_problem(response, 503)
        assert members["checks"] == {"table": True, "queue": True, "gpu": False}
        assert members["detail"] == "Not ready: GPU start refused (VcpuLimitExceeded)"


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
    assert await second == {"table": True, "gpu": True}
    assert first.cancelled()


async def test_a_look_that_takes_too_long_means_not_ready() -> None:
    async def hang() -> Mapping[str, bool]:
        await asyncio.Event().wait()
        return {}

    with capture_logs(), pytest.raises(NotReady):
        await Readiness(hang, deadline_s=0.01).ensure()


@pytest.mark.parametrize(
    "path", ["/nothing", "/api/v1", "/api/v1/jobs", "/api/v1/jobs/", "/api/v1/unknown/jobs", "//health"]
)
async def test_an_unknown_route_is_not_found_and_never_redirected(path: str) -> None:
    async with World() as world:
        for method in ("GET", "POST"):
            response = await world.client.request(method, f"http://orchestrator{path}")
            assert assert_problem(response, 404)["detail"] == "Not Found"


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


async def test_a_websocket_is_turned_away() -> None:
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        sent.append(message)

    async with World() as world:
        await world.app({"type": "websocket", "path": "/api/v1/jobs/x", "root_path": "", "headers": []}, receive, send)
    assert [message["type"] for message in sent] == ["websocket.close"]
