"""`python -m bench.upstream PORT polite|blocking`: a Unified API whose jobs only take time.

One job at a time in the order of arrival. The polite one answers meanwhile; the blocking one does not, as the real one
does not. A job takes as many seconds as its prompt says.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from bench.http_server import Connection, Request, serve

_JSON = "Content-Type: application/json\r\n"


@dataclass(slots=True)
class Job:
    """One job; times in monotonic seconds."""

    id: str
    request_id: str
    duration_s: float
    started_at: float = 0.0
    ended_at: float = 0.0

    def to_answer(self) -> Mapping[str, Any]:
        status = "completed" if self.ended_at else "processing" if self.started_at else "pending"
        uri = f"s3://bench/{self.id}/output.png" if self.ended_at else None
        return {"job_id": self.id, "status": status, "result_s3_uri": uri, "error": None}


class Upstream:
    """The jobs and the one GPU they share."""

    def __init__(self, *, is_blocking: bool) -> None:
        self._is_blocking = is_blocking
        self._jobs: dict[str, Job] = {}
        self._waiting: asyncio.Queue[Job] = asyncio.Queue()

    def handle(self, request: Request, connection: Connection) -> None:
        """One HTTP request."""
        if request.path == "/health":
            _answer(connection, 200, {"status": "healthy", "comfyui_status": "healthy"})
        elif request.path == "/bench/jobs":
            # By the id of the request, which for a message without one is the task's.
            _answer(connection, 200, {job.request_id: [job.started_at, job.ended_at] for job in self._jobs.values()})
        elif request.method == "POST":
            job = self._accept(request)
            _answer(connection, 200, job.to_answer())
        elif (found := self._jobs.get(request.path.rpartition("/")[2])) is not None:
            _answer(connection, 200, found.to_answer())
        else:
            _answer(connection, 404, {"detail": "Job not found"})

    async def run(self) -> None:
        """The GPU."""
        while True:
            job = await self._waiting.get()
            job.started_at = time.monotonic()
            if self._is_blocking:
                time.sleep(job.duration_s)  # noqa: ASYNC251  this is what it is about
            else:
                await asyncio.sleep(job.duration_s)
            job.ended_at = time.monotonic()

    def _accept(self, request: Request) -> Job:
        members = json.loads(request.body)
        job = Job(str(uuid4()), request.headers.get("x-request-id", ""), float(members["prompt"]))
        self._jobs[job.id] = job
        self._waiting.put_nowait(job)
        return job


def _answer(connection: Connection, status: int, members: Mapping[str, Any]) -> None:
    connection.answer(status, json.dumps(members).encode(), _JSON)


async def _main(port: int, *, is_blocking: bool) -> None:
    upstream = Upstream(is_blocking=is_blocking)
    gpu = asyncio.create_task(upstream.run(), name="gpu")
    await serve(upstream.handle, port)
    gpu.cancel()


if __name__ == "__main__":
    asyncio.run(_main(int(sys.argv[1]), is_blocking=sys.argv[2] == "blocking"))
