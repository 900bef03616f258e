"""The task everybody is measured with, and the calls to AWS it takes, as bytes of HTTP."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from bench.http_client import Client, request
from lib.asyncaws.attributes import serialize_item
from lib.gputask.ids import new_task_id
from lib.gputask.kinds import QWEN_IMAGE_EDIT
from lib.gputask.message import REQUEST_ID_ATTRIBUTE, TaskMessage
from lib.gputask.record import Status, TaskRecord

TABLE = "tasks"
API_PATH = QWEN_IMAGE_EDIT.api_path
BODY = json.dumps(
    {
        "image_url": "https://images.example.com/2026/01/house-on-a-hill.jpg",
        "prompt": "Turn the picture into a line drawing, keep the proportions and the light",
        "seed": 1234567,
        "steps": 8,
    }
)

_DYNAMODB = "DynamoDB_20120810"
_SQS = "AmazonSQS"


def queue_url(endpoint_port: int) -> str:
    return f"http://127.0.0.1:{endpoint_port}/000000000000/tasks"


def post_job(body: str = BODY) -> bytes:
    """The request of a REST client."""
    return request("POST", API_PATH, body.encode(), "Content-Type: application/json\r\n")


def get_job(job_id: str) -> bytes:
    return request("GET", f"/api/v1/jobs/{job_id}")


def new_record(body: str = BODY) -> TaskRecord:
    """A task that was just accepted."""
    now = round(time.time(), 3)
    return TaskRecord(
        task_id=new_task_id(),
        status=Status.PENDING,
        job_type=API_PATH,
        request_body=body,
        request_sha256="0" * 64,
        client_id="anonymous",
        created_at=now,
        updated_at=now,
        queued_at=now,
        sends=1,
        expires_at=int(now) + 604_800,
    )


def finished_record() -> TaskRecord:
    """A task that was just completed."""
    record = new_record()
    return replace(
        record,
        status=Status.COMPLETED,
        attempt=1,
        claimed_at=record.created_at,
        finished_at=record.created_at,
        worker="i-0fedcba9876543210",
        comfy_job_id=new_task_id(),
        result_s3_uri=f"s3://results.example/2026/01/{record.task_id}.png",
    )


def put_item(record: TaskRecord) -> bytes:
    item = serialize_item(record.to_item())
    return _aws_call(f"{_DYNAMODB}.PutItem", {"TableName": TABLE, "Item": item})


def get_item(task_id: str) -> bytes:
    call = {"TableName": TABLE, "Key": {"task_id": {"S": task_id}}, "ConsistentRead": True}
    return _aws_call(f"{_DYNAMODB}.GetItem", call)


def send_message(record: TaskRecord, url: str, *, with_request_id: bool = True) -> bytes:
    body = TaskMessage(record.task_id, record.job_type, record.request_body).to_json()
    call: dict[str, Any] = {"QueueUrl": url, "MessageBody": body}
    if with_request_id:
        call["MessageAttributes"] = {REQUEST_ID_ATTRIBUTE: {"DataType": "String", "StringValue": record.task_id}}
    return _aws_call(f"{_SQS}.SendMessage", call)


async def ask_two_calls(client: Client, put: bytes, send: bytes) -> int:
    """What a POST has to do at AWS, and nothing else."""
    answer = await client.ask(put)
    if answer.status == 200:
        answer = await client.ask(send)
    return answer.status


async def seed(endpoint_port: int, count: int, *, body: str = BODY, queued: bool = False) -> list[str]:
    """Put tasks into the table, and their messages into the queue if `queued`; returns their ids."""
    url = queue_url(endpoint_port)
    records = [new_record(body) for _ in range(count)]
    async with Client(endpoint_port) as client:
        for record in records:
            await client.ask(put_item(record))
            if queued:
                await client.ask(send_message(record, url, with_request_id=False))
    return [record.task_id for record in records]


class RawCalls:
    """The calls behind a POST with ready-made bytes: neither signed nor parsed, so nothing of their time is ours."""

    def __init__(self, endpoint_port: int) -> None:
        url = queue_url(endpoint_port)
        pairs = [(put_item(record), send_message(record, url)) for record in (new_record() for _ in range(256))]
        self._pairs = itertools.cycle(pairs)

    async def __call__(self, client: Client) -> int:
        return await ask_two_calls(client, *next(self._pairs))


def _aws_call(target: str, members: Mapping[str, Any]) -> bytes:
    headers = f"X-Amz-Target: {target}\r\nContent-Type: application/x-amz-json-1.0\r\n"
    return request("POST", "/", json.dumps(members).encode(), headers)
