"""Bad input and faults on the running system: clear answers, nothing lost, nothing run for nothing."""

from __future__ import annotations

import asyncio
import itertools
import json
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from functools import partial

import pytest

from services.devstack.power import State
from services.devstack.resources import aws_session, client_config
from services.devstack.stack import Stack
from tests.system.client import LIMIT_S, QWEN, Answer, eventually, upstream_runs
from tests.system.conftest import System
from tests.system.test_mission import assert_queues_are_empty

GOOD = {"image_url": "https://example.com/a.png", "prompt": "sketch"}
BAD_BODIES: Mapping[str, tuple[bytes, int]] = {
    "not JSON": (b"{", 422),
    "not an object": (b"[]", 422),
    "bad UTF-8": (b'{"image_url": "\xff"}', 422),
    "wrong types": (json.dumps({**GOOD, "steps": "8", "seed": True}).encode(), 422),
    "ftp": (json.dumps({**GOOD, "image_url": "ftp://example.com/a"}).encode(), 422),
    "empty": (json.dumps({**GOOD, "image_url": ""}).encode(), 422),
    "NaN": (b'{"image_url": "https://example.com/a", "prompt": "x", "cfg": NaN}', 422),
    "lone surrogate": (b'{"image_url": "https://example.com/a", "prompt": "\\ud800"}', 422),
    "deep nesting": (
        b'{"image_url": "https://example.com/a", "prompt": "x", "z": ' + b"[" * 9999 + b"]" * 9999 + b"}",
        422,
    ),
    "huge integer": (b'{"image_url": "https://example.com/a", "prompt": "x", "seed": ' + b"9" * 5000 + b"}", 422),
    "too large": (json.dumps({**GOOD, "padding": "x" * 300_000}).encode(), 413),
}


async def test_bad_requests_write_nothing_and_wake_nothing(system: System) -> None:
    async with system() as (stack, client):
        before = await stack.calls()
        for name, (body, status) in BAD_BODIES.items():
            answer = await client.post(QWEN, body)
            assert answer.status == status, (name, answer)
            assert {"title", "status", "detail"} <= set(answer.body), name
        assert (await client.post("/api/v1/video/jobs", GOOD)).status == 404
        after = await stack.calls()
        assert after.count("dynamodb", "PutItem") == before.count("dynamodb", "PutItem")
        assert after.count("sqs", "SendMessage") == before.count("sqs", "SendMessage")
        assert after.count("ec2", "StartInstances") == before.count("ec2", "StartInstances")
        assert await stack.instance_state() is State.STOPPED


async def test_private_addresses_are_refused_unless_allowed(system: System) -> None:
    async with system(orchestrator_env={"ALLOW_PRIVATE_IMAGE_URLS": "false"}) as (_stack, client):
        for host in ("127.0.0.1", "10.0.0.1", "169.254.169.254", "[::1]", "2130706433", "localhost"):
            answer = await client.post(QWEN, {**GOOD, "image_url": f"http://{host}/a.png"})
            assert answer.status == 422, host
            assert answer.body["detail"][0]["loc"] == ["body", "image_url"]


async def test_aws_down_is_503_within_a_second_and_the_same_key_works_afterwards(system: System) -> None:
    ways_down = list(itertools.product(("dynamodb", "sqs"), ("error", "hang", "throttle")))
    async with system(scale=60) as (stack, client):
        for runs, (service, mode) in enumerate(ways_down, start=1):
            body = {**GOOD, "image_url": client.sample()}
            await stack.fail(service, mode)
            answer = await _within_a_second(partial(client.post, QWEN, body, Idempotency_Key=f"{service}-{mode}"))
            assert answer.status == 503, (service, mode)
            assert int(answer.headers["Retry-After"]) > 0
            assert (await client.get("/health")).status == 200
            await stack.heal()
            repeated = await client.accepted(QWEN, body, Idempotency_Key=f"{service}-{mode}")
            assert (await client.ended(repeated.body["job_id"]))["status"] == "completed"
            assert len(upstream_runs(stack.log_dir)) == runs


async def test_ec2_refusing_is_202_all_the_same_and_tried_again(system: System) -> None:
    async with system(scale=60) as (stack, client):
        await stack.refuse("StartInstances", "InsufficientInstanceCapacity", times=2)
        job_id = await client.submit()

        async def refusal_is_told() -> bool:
            stage = (await client.get(f"/api/v1/jobs/{job_id}")).headers.get("Job-Stage", "")
            return "InsufficientInstanceCapacity" in stage

        await eventually(refusal_is_told)
        assert (await client.ended(job_id))["status"] == "completed"
        assert "InsufficientInstanceCapacity" in (stack.log_dir / "orchestrator.log").read_text()


async def test_a_poison_message_becomes_a_dead_letter_and_its_job_fails(system: System) -> None:
    async with system(scale=60) as (stack, client):
        # Somebody else's producer has put a message for a real task whose body is no request.
        await stack.fail("sqs", "drop", action="ReceiveMessage")  # nobody takes the good message meanwhile
        job_id = await client.submit()
        sqs = aws_session().client("sqs", endpoint_url=stack.endpoint_url, config=client_config())
        sqs.purge_queue(QueueUrl=stack.resources.queue_url)
        poison = json.dumps({"task_id": job_id, "api_path": "/api/v1/none/jobs", "request_body": {}})
        sqs.send_message(QueueUrl=stack.resources.queue_url, MessageBody=poison)
        sqs.send_message(QueueUrl=stack.resources.queue_url, MessageBody="not even JSON")
        await stack.heal()
        job = await client.ended(job_id)
        assert job["status"] == "failed"
        assert "queue" in job["error"]
        await eventually(lambda: _queues_are_empty(stack))
        assert upstream_runs(stack.log_dir) == []


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
async def test_an_adapter_that_dies_in_mid_job_leaves_one_result(system: System, number: signal.Signals) -> None:
    async with system(scale=60, visibility_s=4, adapter_env={"DRAIN_S": "0"}) as (stack, client):
        job_id = await client.submit(steps=15)
        await eventually(lambda: _has_run(stack))
        await client.wait_for(job_id, "processing")
        stack.kill_adapter(number)
        job = await client.ended(job_id)
        assert job["status"] == "completed"
        assert len(upstream_runs(stack.log_dir)) <= 2
        assert job["result_s3_uri"]


async def test_an_adapter_that_dies_with_its_job_noted_does_not_run_it_again(system: System) -> None:
    async with system(scale=60, visibility_s=4) as (stack, client):
        job_id = await client.submit(steps=40)
        await eventually(lambda: _is_noted(stack, job_id))
        stack.kill_adapter(signal.SIGKILL)
        assert (await client.ended(job_id))["status"] == "completed"
        assert len(upstream_runs(stack.log_dir)) == 1
        assert "task.adopted" in (stack.log_dir / "adapter.log").read_text()


async def test_an_upstream_that_dies_in_mid_job_gets_it_again(system: System) -> None:
    async with system(scale=60, visibility_s=4) as (stack, client):
        job_id = await client.submit(steps=20)
        await eventually(lambda: _is_noted(stack, job_id))
        stack.kill_upstream(signal.SIGKILL)
        assert (await client.ended(job_id))["status"] == "completed"
        assert len(upstream_runs(stack.log_dir)) == 2


async def test_an_orchestrator_killed_after_its_202_still_wakes_the_gpu_after_its_restart(system: System) -> None:
    async with system(scale=60) as (stack, client):
        await stack.refuse("StartInstances", "InsufficientInstanceCapacity")  # it does not get to it in time
        job_id = await client.submit()
        await stack.kill_orchestrator(signal.SIGKILL)
        await stack.heal()
        assert await stack.instance_state() is State.STOPPED
        await stack.restart_orchestrator()
        assert (await client.ended(job_id))["status"] == "completed"


async def test_a_gpu_whose_adapter_never_comes_up_is_stopped_and_held(system: System) -> None:
    broken = (sys.executable, "-c", "raise SystemExit('no such module')")
    async with system(scale=360, adapter_command=broken) as (stack, client):
        job_id = await client.submit()
        await stack.wait_for_instance(State.RUNNING, limit_s=LIMIT_S)
        await stack.wait_for_instance(State.STOPPED, limit_s=LIMIT_S)
        assert (await client.job(job_id))["status"] == "pending"
        table = aws_session().client("dynamodb", endpoint_url=stack.endpoint_url, config=client_config())
        key = {"task_id": {"S": f"instance#{stack.resources.instance_id}"}}
        assert "hold_until" in table.get_item(TableName=stack.resources.table, Key=key)["Item"]


async def test_a_hung_upstream_fails_its_job_at_the_deadline_and_the_gpu_does_not_stay_on_for_it(
    system: System,
) -> None:
    options = {"upstream_env": {"HANG_ON": "hang"}, "adapter_env": {"JOB_DEADLINE_S": "4", "COMFYUI_URL": ""}}
    async with system(scale=360, **options) as (stack, client):
        job = await client.ended(await client.submit("please hang"))
        assert job["status"] == "failed"
        assert "deadline" in job["error"]
        await stack.wait_for_instance(State.STOPPED, limit_s=LIMIT_S)


async def test_where_comfyui_can_be_asked_a_hang_does_not_cost_the_deadline(system: System) -> None:
    """The picture of the job that hangs is made, and never uploaded: each attempt ends in a restart, and then the last
    one in a sentence. The next job is served.
    """
    options = {
        "upstream_env": {"HANG_ON": "hang", "STEP_S": "0"},
        "adapter_env": {"MAX_ATTEMPTS": "2", "COMFYUI_WEDGED_S": "3"},
    }
    async with system(scale=60, **options) as (stack, client):
        job = await client.ended(await client.submit("please hang"))
        assert job["status"] == "failed"
        assert "nobody uploaded it" in job["error"]
        assert stack.restart_path.restarts >= 1
        assert (await client.ended(await client.submit("a drawing")))["status"] == "completed"


async def test_a_lost_cuda_context_costs_one_job_and_a_restart_not_the_queue(system: System) -> None:
    """From the first one on every job fails, while `/health` says that all is well."""
    options = {"upstream_env": {"LOSE_CUDA_ON": "fatal", "STEP_S": "0"}}
    async with system(scale=60, **options) as (stack, client):
        first = await client.ended(await client.submit("fatal"))
        assert "CUDA error" in first["error"]
        others = [await client.submit(f"drawing {number}") for number in range(3)]
        ends = [(await client.ended(job_id))["status"] for job_id in others]
        assert ends == ["completed"] * 3
        assert stack.restart_path.restarts == 1


async def _within_a_second(request: Callable[[], Awaitable[Answer]]) -> Answer:
    """The promise itself. A busy machine may hold up one try, or two; a broken promise is broken each time."""
    for _ in range(2):
        with suppress(TimeoutError):
            async with asyncio.timeout(1.0):
                return await request()
    async with asyncio.timeout(1.0):
        return await request()


async def _queues_are_empty(stack: Stack) -> bool:
    try:
        await assert_queues_are_empty(stack)
    except AssertionError:
        return False
    return True


async def _has_run(stack: Stack) -> bool:
    return bool(upstream_runs(stack.log_dir))


async def _is_noted(stack: Stack, job_id: str) -> bool:
    table = aws_session().client("dynamodb", endpoint_url=stack.endpoint_url, config=client_config())
    item = await asyncio.to_thread(
        table.get_item, TableName=stack.resources.table, Key={"task_id": {"S": job_id}}, ConsistentRead=True
    )
    return "comfy_job_id" in item["Item"]
