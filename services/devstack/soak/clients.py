"""REST clients that behave well: they repeat what was not answered under the same Idempotency-Key, and poll."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from random import Random
from typing import Any

import aiohttp

HANG_MARKER = "the end is never noticed"
_TERMINAL = ("completed", "failed")
_ANSWER_LIMIT_S = 3.0
_POLL_S = 0.5


@dataclass(slots=True)
class SoakJob:
    """One job from the client's side.

    Attributes:
        job_id: once it was answered 202.
        ends: every terminal answer that was seen; they must all be the same.
    """

    name: str
    body: dict[str, Any]
    job_id: str | None = None
    ends: list[dict[str, Any]] = field(default_factory=list)

    @property
    def is_over(self) -> bool:
        return bool(self.ends)


class Clients:
    """Submits jobs now and then, and polls all of them."""

    def __init__(self, base_url: str, *, picture: str, random: Random) -> None:
        self._http = aiohttp.ClientSession(base_url, timeout=aiohttp.ClientTimeout(total=_ANSWER_LIMIT_S))
        self._picture = picture
        self._random = random
        self.jobs: list[SoakJob] = []
        self.refusals = 0

    async def close(self) -> None:
        await self._http.close()

    async def submit_for(self, seconds: float, *, mean_pause_s: float) -> None:
        """Submit at random moments until the time is over, then see every submission to its 202."""
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        async with asyncio.TaskGroup() as submissions:
            while loop.time() < end:
                submissions.create_task(self._submit(self._new_job()))
                await asyncio.sleep(min(self._random.expovariate(1 / mean_pause_s), max(end - loop.time(), 0)))

    async def poll(self) -> None:
        """Look at every job, for ever."""
        while True:
            for job in [job for job in self.jobs if job.job_id is not None]:
                await self._look(job)
            await asyncio.sleep(_POLL_S)

    def _new_job(self) -> SoakJob:
        number = len(self.jobs)
        body = {"image_url": self._picture, "prompt": "sketch", "seed": number, "steps": self._random.randint(1, 6)}
        if self._random.random() < 0.1:
            body["image_url"] = f"{self._picture}.missing"
        elif self._random.random() < 0.05:
            body["prompt"] = HANG_MARKER
        job = SoakJob(f"soak-{number}", body)
        self.jobs.append(job)
        return job

    async def _submit(self, job: SoakJob) -> None:
        headers = {"Idempotency-Key": job.name, "X-Request-ID": job.name}
        while job.job_id is None:
            try:
                async with self._http.post("/api/v1/qwen-image-edit/jobs", json=job.body, headers=headers) as answer:
                    if answer.status == 202:
                        job.job_id = str((await answer.json())["job_id"])
                        return
                    self.refusals += 1
                    await asyncio.sleep(float(answer.headers.get("Retry-After", 1)) / 2)
            except (aiohttp.ClientError, TimeoutError):
                self.refusals += 1
                await asyncio.sleep(0.5)

    async def _look(self, job: SoakJob) -> None:
        try:
            async with self._http.get(f"/api/v1/jobs/{job.job_id}") as answer:
                if answer.status == 404:
                    job.ends.append({"status": "lost"})
                if answer.status != 200:
                    return
                seen = await answer.json()
        except (aiohttp.ClientError, TimeoutError):
            return
        if (seen["status"] in _TERMINAL and seen not in job.ends) or (job.ends and seen["status"] not in _TERMINAL):
            job.ends.append(seen)
