"""A REST client as a user would write it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import aiohttp

from services.devstack.demo.script import Scene

TERMINAL = ("completed", "failed")


@dataclass(slots=True)
class Ticket:
    """A scene on its way.

    Attributes:
        answered_ms: from the request to its answer.
        took_s: from the request to the job's end.
    """

    scene: Scene
    asked_at: float
    answered_ms: float
    answer: int
    job: dict[str, Any] | None
    stage: str
    detail: Any = None
    took_s: float | None = None

    @property
    def job_id(self) -> str:
        return "" if self.job is None else str(self.job["job_id"])

    @property
    def status(self) -> str:
        return "refused" if self.job is None else str(self.job["status"])

    @property
    def is_over(self) -> bool:
        return self.job is None or self.status in TERMINAL

    @property
    def elapsed_s(self) -> float:
        return time.monotonic() - self.asked_at if self.took_s is None else self.took_s


class JobClient:
    """Submits and polls."""

    def __init__(self, http: aiohttp.ClientSession) -> None:
        self._http = http

    async def submit(self, scene: Scene) -> Ticket:
        headers = {"Idempotency-Key": scene.idempotency_key} if scene.idempotency_key else {}
        asked_at = time.monotonic()
        async with self._http.post(scene.path, json=scene.body, headers=headers) as answer:
            members = await answer.json()
            answered_ms = (time.monotonic() - asked_at) * 1000
            accepted = answer.status == 202
            return Ticket(
                scene=scene,
                asked_at=asked_at,
                answered_ms=answered_ms,
                answer=answer.status,
                job=members if accepted else None,
                stage=answer.headers.get("Job-Stage", "") if accepted else f"refused ({answer.status})",
                detail=None if accepted else members.get("detail"),
                took_s=None if accepted else answered_ms / 1000,
            )

    async def look(self, ticket: Ticket) -> None:
        """Poll once and note what is new."""
        async with self._http.get(f"/api/v1/jobs/{ticket.job_id}") as answer:
            answer.raise_for_status()
            ticket.job = await answer.json()
            ticket.stage = answer.headers.get("Job-Stage", ticket.status)
        if ticket.is_over:
            ticket.took_s = time.monotonic() - ticket.asked_at
