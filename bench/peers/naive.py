"""`python -m bench.peers.naive PORT`: the design as it is often first written, and what ratios are quoted against.

FastAPI, boto3 inside `async def`, a client per call, EC2 on the request path, a second's sleep for an unknown id.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any
from uuid import uuid4

import boto3
import uvicorn
from fastapi import FastAPI, HTTPException
from pydantic import BaseModel

_TABLE, _QUEUE, _INSTANCE = os.environ["DYNAMODB_TABLE"], os.environ["SQS_QUEUE_URL"], os.environ["GPU_INSTANCE_ID"]

app = FastAPI()


class JobRequest(BaseModel):
    """A job as clients ask for it."""

    image_url: str
    prompt: str | None = None
    seed: int | None = None
    steps: int | None = None


class Job(BaseModel):
    """A job as clients see it."""

    job_id: str
    status: str
    result_s3_uri: str | None = None
    error: str | None = None


@app.post("/api/v1/{slug}/jobs", status_code=202)
async def submit(slug: str, body: JobRequest) -> Job:
    """Record, wake, queue."""
    task_id, now, path = str(uuid4()), int(time.time()), f"/api/v1/{slug}/jobs"
    item = {
        "task_id": {"S": task_id},
        "status": {"S": "pending"},
        "job_type": {"S": path},
        "created_at": {"N": str(now)},
        "updated_at": {"N": str(now)},
    }
    boto3.client("dynamodb").put_item(TableName=_TABLE, Item=item)
    _wake()
    message = json.dumps({"task_id": task_id, "api_path": path, "request_body": body.model_dump(exclude_none=True)})
    boto3.client("sqs").send_message(QueueUrl=_QUEUE, MessageBody=message)
    return Job(job_id=task_id, status="pending")


@app.get("/api/v1/jobs/{job_id}")
async def show(job_id: str) -> Job:
    """Read; once more after a second if there is none."""
    item = _read(job_id)
    if item is None:
        time.sleep(1)  # noqa: ASYNC251  as it is often written
        item = _read(job_id)
    if item is None:
        raise HTTPException(404, "Job not found")
    return Job(job_id=job_id, status=item["status"]["S"])


def _wake() -> None:
    ec2 = boto3.client("ec2")
    answer = ec2.describe_instances(InstanceIds=[_INSTANCE])
    if answer["Reservations"][0]["Instances"][0]["State"]["Name"] == "stopped":
        ec2.start_instances(InstanceIds=[_INSTANCE])


def _read(job_id: str) -> dict[str, Any] | None:
    key = {"task_id": {"S": job_id}}
    answer = boto3.client("dynamodb").get_item(TableName=_TABLE, Key=key, ConsistentRead=True)
    item: dict[str, Any] | None = answer.get("Item")
    return item


if __name__ == "__main__":
    uvicorn.run(app, port=int(sys.argv[1]), log_level="warning", access_log=False)
