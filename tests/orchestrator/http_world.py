"""The HTTP side with everything behind it in memory."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import Any, Self

import httpx2

from lib.gputask.ids import derived_task_id, new_task_id
from lib.gputask.kinds import CAMERA_ANGLE, Kind
from lib.gputask.record import Status, TaskRecord
from services.orchestrator.app import build_app
from services.orchestrator.authentication import Authenticator, parse_api_keys
from services.orchestrator.errors import IdempotencyConflict

CAMERA_ANGLE_PATH = "/api/v1/camera-angle/jobs"
QWEN_PATH = "/api/v1/qwen-image-edit/jobs"
IMAGE_URL = "s3://pictures/cat.png"
CAMERA_ANGLE_BODY: dict[str, Any] = {"image_url": IMAGE_URL, "vertical": 1}
QWEN_BODY: dict[str, Any] = {"image_url": IMAGE_URL, "prompt": "a line drawing"}
JOB_MEMBERS = {"job_id", "status", "result_s3_uri", "result_url", "error"}


@dataclass
class MemoryTasks:
    """Submission and store in one, without AWS. `error` is raised instead of the next answers."""

    records: dict[str, TaskRecord] = field(default_factory=dict)
    submitted: list[Mapping[str, Any]] = field(default_factory=list)
    reads: list[str] = field(default_factory=list)
    error: Exception | None = None

    async def submit(
        self, *, kind: Kind, body: bytes, client_id: str, idempotency_key: str | None, request_id: str
    ) -> TaskRecord:
        if self.error is not None:
            raise self.error
        task_id = new_task_id() if idempotency_key is None else derived_task_id(client_id, idempotency_key)
        found = self.records.get(task_id)
        if found is not None:
            if found.request_body != body.decode():
                raise IdempotencyConflict
            return found
        self.submitted.append(
            {"kind": kind, "body": body, "client_id": client_id, "key": idempotency_key, "request_id": request_id}
        )
        self.records[task_id] = a_record(
            task_id=task_id, job_type=kind.api_path, client_id=client_id, request_body=body.decode()
        )
        return self.records[task_id]

    async def find(self, *, kind: Kind, body: bytes, client_id: str, idempotency_key: str) -> TaskRecord | None:
        found = self.records.get(derived_task_id(client_id, idempotency_key))
        if found is not None and found.request_body != body.decode():
            raise IdempotencyConflict
        return found

    async def get(self, task_id: str) -> TaskRecord | None:
        self.reads.append(task_id)
        if self.error is not None:
            raise self.error
        return self.records.get(task_id)

    def add(self, record: TaskRecord) -> str:
        self.records[record.task_id] = record
        return record.task_id

    def change(self, task_id: str, **attributes: Any) -> None:
        self.records[task_id] = replace(self.records[task_id], **attributes)


def a_record(**attributes: Any) -> TaskRecord:
    defaults: dict[str, Any] = {
        "task_id": new_task_id(),
        "status": Status.PENDING,
        "job_type": CAMERA_ANGLE.api_path,
        "created_at": 1.0,
        "updated_at": 1.0,
        "client_id": "anonymous",
    }
    return TaskRecord(**(defaults | attributes))


def api_keys(**keys: str) -> str:
    """The setting for clients and their keys."""
    return ",".join(f"{name}:{sha256(key.encode()).hexdigest()}" for name, key in keys.items())


class World:
    """An application, what stands behind it, and a client that talks to it."""

    def __init__(self, *, keys: str = "", ready: Mapping[str, bool] | None = None, **options: Any) -> None:
        self.tasks = MemoryTasks()
        self.stage = "waiting: GPU is starting"
        self.ready = {"table": True, "queue": True} if ready is None else ready
        self.looks = 0
        self.app = build_app(
            submission=options.pop("submission", self.tasks),
            tasks=self.tasks,
            stage_of=lambda _record: self.stage,
            readiness_check=options.pop("readiness_check", self._look),
            authenticator=Authenticator(parse_api_keys(keys)),
            **options,
        )
        # Exceptions the application lets out fail the test, as they would close the connection.
        self.client = httpx2.AsyncClient(transport=httpx2.ASGITransport(self.app), base_url="http://orchestrator")

    async def _look(self) -> Mapping[str, bool]:
        self.looks += 1
        await asyncio.sleep(0)  # as a real look would, let others ask meanwhile
        return self.ready

    async def __aenter__(self) -> Self:
        await self.client.__aenter__()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.client.aclose()

    async def post_raw(
        self, content: bytes, path: str = CAMERA_ANGLE_PATH, headers: Mapping[str, str] | None = None
    ) -> httpx2.Response:
        headers = {"Content-Type": "application/json"} | dict(headers or {})
        return await self.client.post(path, content=content, headers=headers)


def assert_problem(response: httpx2.Response, status: int) -> dict[str, Any]:
    """The one error shape; returns its members."""
    assert response.status_code == status, response.text
    members: dict[str, Any] = response.json()
    assert {"type", "title", "status", "detail", "request_id"} <= members.keys()
    assert members["request_id"] == response.headers["X-Request-ID"]
    is_list = isinstance(members["detail"], list)
    # Clients that read nothing but `status`, as a job's, must come to an end; who asks for problems gets the number.
    is_plain = is_list or members["detail"] == "Job not found"
    assert members["status"] == ("failed" if is_plain else status)
    assert response.headers["content-type"] == ("application/json" if is_plain else "application/problem+json")
    if is_list:
        for entry in members["detail"]:
            assert {"type", "loc", "msg"} <= entry.keys() <= {"type", "loc", "msg", "input"}
    return members


def assert_invalid_body(response: httpx2.Response) -> list[dict[str, Any]]:
    """FastAPI's 422; returns its list."""
    errors: list[dict[str, Any]] = assert_problem(response, 422)["detail"]
    assert errors
    assert all(entry["loc"][0] == "body" for entry in errors)
    return errors


def to_json(value: Any) -> bytes:
    return json.dumps(value).encode()
