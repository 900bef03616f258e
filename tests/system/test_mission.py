"""The two promises as a user sees them: a job wakes the GPU, runs, and the GPU goes back to sleep."""

from __future__ import annotations

import io
import signal
from urllib.parse import urlparse

from PIL import Image

from services.devstack.power import State
from services.devstack.resources import aws_session, client_config
from services.devstack.stack import Stack
from tests.system.client import CAMERA, LIMIT_S, QWEN, Client, eventually, upstream_runs
from tests.system.conftest import System


async def test_a_job_wakes_the_gpu_runs_once_and_the_gpu_goes_back_to_sleep(system: System) -> None:
    async with system(scale=180) as (stack, client):
        assert await stack.instance_state() is State.STOPPED

        answer = await client.accepted(
            QWEN,
            {"image_url": client.sample(), "prompt": "变成线稿", "image2_url": None, "seed": 1, "steps": 2},
            X_Request_ID="from-the-client-1",
        )
        assert set(answer.body) == {"job_id", "status", "result_s3_uri", "result_url", "error"}
        assert answer.headers["Location"] == f"/api/v1/jobs/{answer.body['job_id']}"
        assert answer.headers["X-Request-ID"] == "from-the-client-1"
        camera = await client.accepted(CAMERA, {"image_url": client.sample("portrait"), "horizontal": 1})

        job = await client.ended(answer.body["job_id"])
        assert job["status"] == "completed", job
        assert (await client.ended(camera.body["job_id"]))["status"] == "completed"
        assert mean_brightness(stack, job["result_s3_uri"]) > 128  # a line drawing is mostly white

        runs = upstream_runs(stack.log_dir)
        assert len(runs) == 2
        assert runs[0]["request_id"] == "from-the-client-1"
        await stack.wait_for_instance(State.STOPPED, limit_s=LIMIT_S)
        await assert_queues_are_empty(stack)
        assert (await client.job(job["job_id"]))["status"] == "completed"


async def test_a_second_wave_wakes_it_again_even_while_it_is_stopping(system: System) -> None:
    async with system(scale=360) as (stack, client):
        await client.ended(await client.submit())
        await stack.wait_for_instance(State.STOPPING, limit_s=LIMIT_S)
        late = await client.submit("sketch again")
        assert (await client.ended(late))["status"] == "completed"


async def test_a_manual_start_is_stopped_although_the_alarm_never_changes(system: System) -> None:
    async with system(scale=360) as (stack, _client):
        ec2 = aws_session().client("ec2", endpoint_url=stack.endpoint_url, config=client_config())
        ec2.start_instances(InstanceIds=[stack.resources.instance_id])
        await stack.wait_for_instance(State.RUNNING, limit_s=LIMIT_S)
        await stack.wait_for_instance(State.STOPPED, limit_s=LIMIT_S)


async def test_a_stop_by_hand_in_mid_job_loses_nothing(system: System) -> None:
    async with system(scale=60) as (stack, client):
        job_id = await client.submit(steps=20)
        await client.wait_for(job_id, "processing")
        ec2 = aws_session().client("ec2", endpoint_url=stack.endpoint_url, config=client_config())
        await eventually(lambda: _run_started(stack))
        ec2.stop_instances(InstanceIds=[stack.resources.instance_id])
        await stack.wait_for_instance(State.STOPPED, limit_s=LIMIT_S)
        assert (await client.ended(job_id))["status"] == "completed"


async def test_the_same_idempotency_key_gives_the_same_job_and_one_run(system: System) -> None:
    async with system(scale=60) as (stack, client):
        first = await client.submit(Idempotency_Key="k-1")
        assert await client.submit(Idempotency_Key="k-1") == first
        other = {"image_url": client.sample(), "prompt": "something else"}
        assert await eventually(lambda: _refused_as(client, other, "k-1")) == 422
        await client.ended(first)
        assert await client.submit(Idempotency_Key="k-1") == first
        # A last job behind it: whatever else was queued has been dealt with when this one has ended.
        await client.ended(await client.submit("the last one"))
        assert len(upstream_runs(stack.log_dir)) == 2


async def test_a_job_that_must_fail_says_why(system: System) -> None:
    async with system(scale=60) as (stack, client):
        missing = f"s3://{stack.resources.bucket}/no-such.png"
        answer = await client.accepted(CAMERA, {"image_url": missing})
        job = await client.ended(answer.body["job_id"])
        assert job["status"] == "failed"
        assert "NoSuchKey" in job["error"]


async def test_sigterm_to_everything_ends_everything_cleanly(system: System) -> None:
    async with system(scale=60) as (stack, client):
        await client.ended(await client.submit())
        assert await stack.kill_orchestrator(signal.SIGTERM) == 0
        stack.kill_adapter(signal.SIGTERM)
        assert await eventually(lambda: _first_exit(stack)) == "0"


async def _refused_as(client: Client, body: dict[str, str], key: str) -> int | None:
    """The status of the answer; None while a busy machine holds up emulated AWS."""
    status = (await client.post(QWEN, body, Idempotency_Key=key)).status
    return None if status == 503 else status


async def _first_exit(stack: Stack) -> str | None:
    codes = stack.adapter.exit_codes
    return str(codes[0]) if codes else None


async def _run_started(stack: Stack) -> bool:
    return bool(upstream_runs(stack.log_dir))


async def assert_queues_are_empty(stack: Stack) -> None:
    for name, depth in (await stack.queues()).items():
        assert (depth.visible, depth.in_flight, depth.delayed) == (0, 0, 0), name


def mean_brightness(stack: Stack, uri: str) -> float:
    """Of a result, 0 to 255."""
    s3 = aws_session().client("s3", endpoint_url=stack.endpoint_url, config=client_config())
    place = urlparse(uri)
    data = s3.get_object(Bucket=place.netloc, Key=place.path.lstrip("/"))["Body"].read()
    pixels = Image.open(io.BytesIO(data)).convert("L").resize((1, 1)).tobytes()
    return float(pixels[0])
