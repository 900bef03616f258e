"""Task records to test with."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from lib.gputask.record import LIVE, ErrorCode, Status, TaskRecord
from lib.gputask.store import TaskStore

NOW = 1_700_000_000.0

# A few moments round NOW, with milliseconds as the table keeps them, so that leases and expiries are met exactly.
MOMENTS = st.sampled_from([NOW - 100, NOW - 0.125, NOW, NOW + 0.001, NOW + 100])

RECORDS = st.builds(
    TaskRecord,
    task_id=st.just("t"),
    status=st.sampled_from(Status),
    job_type=st.just("/api/v1/camera-angle/jobs"),
    created_at=MOMENTS,
    updated_at=MOMENTS,
    queued_at=MOMENTS,
    sends=st.integers(0, 2),
    attempt=st.integers(0, 4),
    client_id=st.sampled_from(["", "web"]),
    request_body=st.sampled_from(["{}", '{"prompt": "线稿"}']),
    claimed_at=st.none() | MOMENTS,
    lease_until=st.none() | MOMENTS,
    worker=st.sampled_from([None, "i-1", "i-2"]),
    comfy_job_id=st.sampled_from([None, "c-1"]),
    finished_at=st.none() | MOMENTS,
    result_s3_uri=st.sampled_from([None, "s3://b/k"]),
    error_message=st.sampled_from([None, "no"]),
    error_code=st.none() | st.sampled_from(ErrorCode).map(str),
    expires_at=st.none() | MOMENTS,
)


def record_of(**attributes: Any) -> TaskRecord:
    """A task that was just created, but for `attributes`."""
    created: dict[str, Any] = {
        "task_id": "t",
        "status": Status.PENDING,
        "job_type": "/api/v1/camera-angle/jobs",
        "request_body": '{"image_url": "s3://bucket/key"}',
        "created_at": NOW,
        "updated_at": NOW,
        "queued_at": NOW,
        "sends": 1,
        "expires_at": NOW + 604_800,
    }
    return TaskRecord(**(created | attributes))


async def live_tasks(store: TaskStore) -> list[TaskRecord]:
    """All tasks without an end, the oldest first per status."""
    return [task for status in LIVE async for task in store.in_status(status)]
