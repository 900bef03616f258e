"""A REST client of the whole system, and the waiting a test does with it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import aiohttp

from services.devstack.demo.story import upload_samples
from services.devstack.stack import Stack

T = TypeVar("T")

LIMIT_S = 60.0
QWEN = "/api/v1/qwen-image-edit/jobs"
CAMERA = "/api/v1/camera-angle/jobs"


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: Any


class Client:
    def __init__(self, stack: Stack, http: aiohttp.ClientSession) -> None:
        self._stack = stack
        self._http = http

    async def upload_samples(self) -> None:
        await asyncio.to_thread(upload_samples, self._stack)

    def sample(self, name: str = "house-on-a-hill") -> str:
        return f"s3://{self._stack.resources.bucket}/samples/{name}.jpg"

    async def post(self, path: str, body: Any, **headers: str) -> Answer:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        dashed = {name.replace("_", "-"): value for name, value in headers.items()}
        async with self._http.post(path, data=data, headers={"Content-Type": "application/json", **dashed}) as answer:
            return Answer(answer.status, answer.headers, await answer.json(content_type=None))

    async def accepted(self, path: str, body: Any, **headers: str) -> Answer:
        """The 202 of a request, repeated as its 503s ask: a busy machine may hold up emulated AWS beyond the second."""

        async def not_503() -> Answer | None:
            answer = await self.post(path, body, **headers)
            return None if answer.status == 503 else answer

        answer = await eventually(not_503)
        assert answer.status == 202, answer
        return answer

    async def get(self, path: str) -> Answer:
        async with self._http.get(path) as answer:
            return Answer(answer.status, answer.headers, await answer.json(content_type=None))

    async def submit(self, prompt: str = "sketch", *, steps: int = 2, **headers: str) -> str:
        """Returns the job id of an accepted job that takes about `steps` times the upstream's step."""
        body = {"image_url": self.sample(), "prompt": prompt, "steps": steps, "seed": 1}
        return str((await self.accepted(QWEN, body, **headers)).body["job_id"])

    async def job(self, job_id: str) -> dict[str, Any]:
        async def not_503() -> Answer | None:
            answer = await self.get(f"/api/v1/jobs/{job_id}")
            return None if answer.status == 503 else answer

        answer = await eventually(not_503)
        assert answer.status == 200, answer
        return dict(answer.body)

    async def wait_for(self, job_id: str, *statuses: str, limit_s: float = LIMIT_S) -> dict[str, Any]:
        async def has_status() -> dict[str, Any] | None:
            job = await self.job(job_id)
            return job if job["status"] in statuses else None

        return await eventually(has_status, limit_s=limit_s)

    async def ended(self, job_id: str, *, limit_s: float = LIMIT_S) -> dict[str, Any]:
        return await self.wait_for(job_id, "completed", "failed", limit_s=limit_s)


async def eventually(look: Callable[[], Awaitable[T | None]], *, limit_s: float = LIMIT_S) -> T:
    """What `look` returns as soon as that is something."""
    async with asyncio.timeout(limit_s):
        while True:
            if found := await look():
                return found
            await asyncio.sleep(0.1)


def upstream_runs(log_dir: Path, event: str = "started") -> list[dict[str, Any]]:
    """What really ran on the GPU."""
    path = log_dir / "upstream-runs.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return [entry for line in lines if (entry := json.loads(line))["event"] == event]
