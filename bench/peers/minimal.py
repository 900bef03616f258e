"""`python -m bench.peers.minimal PORT`: Starlette, aiobotocore, the same AWS calls, and nothing else.

No validation beyond parsing, no conditions, no idempotency, no keys, no logs, no limits: the floor for these libraries.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import uvicorn
from aiobotocore.config import AioConfig
from aiobotocore.session import get_session
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

_TABLE, _QUEUE = os.environ["DYNAMODB_TABLE"], os.environ["SQS_QUEUE_URL"]


@contextlib.asynccontextmanager
async def _clients(_app: Starlette) -> AsyncIterator[dict[str, Any]]:
    config = AioConfig(max_pool_connections=64, parameter_validation=False, user_agent="bench")
    session = get_session()
    async with (
        session.create_client("dynamodb", config=config) as dynamodb,
        session.create_client("sqs", config=config) as sqs,
    ):
        yield {"dynamodb": dynamodb, "sqs": sqs}


async def _post(request: Request) -> JSONResponse:
    body = await request.json()
    task_id, now, path = str(uuid4()), str(int(time.time())), request.url.path
    item = {"task_id": {"S": task_id}, "status": {"S": "pending"}, "job_type": {"S": path}, "created_at": {"N": now}}
    await request.state.dynamodb.put_item(TableName=_TABLE, Item=item)
    message = json.dumps({"task_id": task_id, "api_path": path, "request_body": body})
    await request.state.sqs.send_message(QueueUrl=_QUEUE, MessageBody=message)
    return JSONResponse({"job_id": task_id, "status": "pending", "result_s3_uri": None, "error": None}, 202)


async def _get(request: Request) -> JSONResponse:
    key = {"task_id": {"S": request.path_params["job_id"]}}
    answer = await request.state.dynamodb.get_item(TableName=_TABLE, Key=key, ConsistentRead=True)
    item = answer.get("Item")
    if item is None:
        return JSONResponse({"detail": "Job not found"}, 404)
    job_id, status = item["task_id"]["S"], item["status"]["S"]
    return JSONResponse({"job_id": job_id, "status": status, "result_s3_uri": None, "error": None})


app = Starlette(
    routes=[Route("/api/v1/{slug}/jobs", _post, methods=["POST"]), Route("/api/v1/jobs/{job_id}", _get)],
    lifespan=_clients,
)

if __name__ == "__main__":
    uvicorn.run(app, port=int(sys.argv[1]), log_level="warning", access_log=False)
