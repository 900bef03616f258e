"""The real process against emulated AWS, with real signals."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import uuid4

import pytest

from services.devstack.emulator.faults import Mode
from tests.asyncaws.metadata_service import BEGINNINGS, metadata_service
from tests.gputask.records import live_tasks
from tests.orchestrator.aws_world import BODY, AwsWorld, Gpu, eventually
from tests.orchestrator.orchestrator_process import POST_PATH, Orchestrator, Site, site

PROMISE_S = 1.0
HEALTHY = {"status": "healthy", "message": "Orchestrator is running"}
TOKEN = "correct-horse"


@pytest.fixture
async def here(world: AwsWorld, gpu: Gpu, tmp_path: Path) -> AsyncIterator[Site]:
    async with site(world, gpu, tmp_path) as here:
        yield here


class HalfRequest:
    """A POST whose body is on its way: headers and half of it have been sent."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def complete(self) -> tuple[str, str]:
        """Send the rest; the status line and the headers of the answer."""
        self._writer.write(BODY[_HALF:])
        return await self.answer()

    async def answer(self) -> tuple[str, str]:
        """The status line and the headers of the answer."""
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode()
        status_line, _, headers = head.partition("\r\n")
        return status_line, headers.lower()


_HALF = len(BODY) // 2


@asynccontextmanager
async def half_request(orchestrator: Orchestrator) -> AsyncIterator[HalfRequest]:
    reader, writer = await asyncio.open_connection("127.0.0.1", orchestrator.port)
    try:
        headers = ("Host: orchestrator", f"Content-Length: {len(BODY)}", "Expect: 100-continue")
        writer.write("\r\n".join((f"POST {POST_PATH} HTTP/1.1", *headers, "", "")).encode())
        # The server asks for the body once the endpoint reads it: the request is being worked on.
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100 ")
        writer.write(BODY[:_HALF])
        yield HalfRequest(reader, writer)
    finally:
        writer.close()
        await asyncio.gather(writer.wait_closed(), return_exceptions=True)


async def test_ready_is_told_when_it_serves_and_a_job_goes_all_the_way(here: Site, world: AwsWorld, gpu: Gpu) -> None:
    async with here.running() as orchestrator:
        async with orchestrator.http.get("/health") as answer:
            assert (answer.status, await answer.json()) == (200, HEALTHY)
        assert await orchestrator.status("/ready") == 200
        answer = await orchestrator.submit()
        await gpu.reach("pending", "running")
        assert await orchestrator.status(answer.headers["Location"]) == 200
        job = await answer.json()
        accepted = (await orchestrator.logs("task.accepted"))["request_id"]
        assert accepted == answer.headers["X-Request-ID"]
    task = await world.tasks.get(job["job_id"])
    assert task is not None
    assert task.request_body == BODY.decode()
    (message,) = await world.messages()
    assert message.attributes == {"request_id": answer.headers["X-Request-ID"]}


async def test_ready_follows_table_and_queue(here: Site, world: AwsWorld) -> None:
    async def says(status: int) -> None:
        async def does_say() -> bool:
            return await orchestrator.status("/ready") == status

        await eventually(does_say)

    async with here.running() as orchestrator:
        await world.fail("sqs", Mode.ERROR, "GetQueueAttributes")
        async with orchestrator.http.get("/ready") as answer:
            assert answer.status == 503
            assert int(answer.headers["Retry-After"]) > 0
            assert (await answer.json(content_type=None))["checks"] == {"table": True, "queue": False, "gpu": True}
        await world.mend()
        # Looks are cached, so that it takes a while.
        await says(200)
        await world.fail("dynamodb", Mode.ERROR, "GetItem")
        await says(503)
        assert await orchestrator.status("/health") == 200


@pytest.mark.parametrize("variable", ["SQS_QUEUE_URL", "SQS_DLQ_URL"])
async def test_with_a_fifo_queue_it_is_not_ready_and_the_log_says_why(
    here: Site, world: AwsWorld, variable: str
) -> None:
    name = f"tasks-{uuid4().hex}.fifo"
    fifo = await world.sqs.create_queue(QueueName=name, Attributes={"FifoQueue": "true"})
    async with here.running(**{variable: fifo["QueueUrl"]}) as orchestrator:
        async with orchestrator.http.get("/ready") as answer:
            assert answer.status == 503
            assert (await answer.json(content_type=None))["checks"] == {"table": True, "queue": False, "gpu": True}
        assert "a standard queue is needed" in (await orchestrator.logs("readiness.dependency_failed"))["error"]


async def test_without_its_table_it_lives_answers_and_is_not_ready(here: Site) -> None:
    # A restart would not bring the table back: it tells the operator, and works on when it is there.
    async with here.running(DYNAMODB_TABLE="no-such-table", JANITOR_INTERVAL_S="0.1") as orchestrator:
        for loop in ("waker.look_failed", "janitor.round_failed"):
            assert "ResourceNotFoundException" in (await orchestrator.logs(loop))["error"]
        assert await orchestrator.status("/health") == 200
        assert await orchestrator.status("/ready") == 503
        answer = await orchestrator.post()
        assert answer.status == 503
        assert int(answer.headers["Retry-After"]) > 0
        orchestrator.process.send(signal.SIGTERM)
        assert await orchestrator.ended() == 0


@pytest.mark.parametrize("first", BEGINNINGS)
async def test_however_the_metadata_service_begins_requests_and_background_have_credentials(
    here: Site, world: AwsWorld, gpu: Gpu, first: str
) -> None:
    await world.dead_letters.send("not JSON", {})
    async with metadata_service(*first.split()) as service, here.running(**service.environment) as orchestrator:
        assert service.tokens == len(first.split()) + 1
        assert await orchestrator.status("/ready") == 200
        await orchestrator.submit()
        await gpu.reach("pending", "running")
        await orchestrator.logs("dead_letter.unreadable")
        assert service.tokens == len(first.split()) + 1


@pytest.mark.parametrize("service", ["dynamodb", "sqs"])
async def test_aws_down_is_said_within_a_second(here: Site, world: AwsWorld, service: str) -> None:
    async with here.running() as orchestrator:
        await orchestrator.warm_up()
        await world.fail(service, Mode.ERROR)
        async with asyncio.timeout(PROMISE_S):
            answer = await orchestrator.post()
        assert answer.status == 503
        assert int(answer.headers["Retry-After"]) > 0
    await world.mend()
    assert await live_tasks(world.tasks) == []


async def test_ec2_refusing_is_no_matter_of_the_client(here: Site, world: AwsWorld) -> None:
    await world.fail("ec2", Mode.ERROR, "StartInstances", code="InsufficientInstanceCapacity")
    async with here.running() as orchestrator:
        answer = await orchestrator.submit()
        refusal = await orchestrator.logs("instance.start_refused")
        assert "InsufficientInstanceCapacity" in refusal["reason"]
        assert refusal["retry_in_s"] > 0
        async with orchestrator.http.get(answer.headers["Location"]) as job:
            assert job.headers["Job-Stage"] == "waiting: GPU start refused (InsufficientInstanceCapacity), trying again"


async def test_killed_after_202_before_the_waker_looked_the_restarted_one_wakes_the_gpu(
    here: Site, world: AwsWorld, gpu: Gpu
) -> None:
    await world.fail("ec2", Mode.HANG)
    async with here.running() as orchestrator:
        await orchestrator.submit()
        orchestrator.process.send(signal.SIGKILL)
        assert await orchestrator.ended() == -signal.SIGKILL
    await world.mend()
    assert await gpu.is_in("stopped")
    async with here.running():
        await gpu.reach("pending", "running")


async def test_a_stop_lets_an_open_request_finish_and_closes_the_port(here: Site, world: AwsWorld) -> None:
    async with here.running() as orchestrator, half_request(orchestrator) as request:
        await orchestrator.warm_up()
        orchestrator.process.send(signal.SIGTERM)
        async with asyncio.timeout(10):
            await orchestrator.manager.hears("STOPPING=1")
        await eventually(orchestrator.refuses_connections)
        assert orchestrator.process.exit_code is None
        status_line, headers = await request.complete()
        assert status_line == "HTTP/1.1 202 Accepted"
        assert "location: /api/v1/jobs/" in headers
        assert await orchestrator.ended() == 0
        assert orchestrator.events("process.failed") == []
    assert len(await world.messages()) == 1


async def test_a_call_to_aws_under_way_at_a_stop_finishes_with_202(here: Site, world: AwsWorld) -> None:
    async with here.running() as orchestrator:
        await orchestrator.warm_up()
        await world.fail("sqs", Mode.SLOW, "SendMessage", delay_s=0.3, times=1)
        calls = await world.calls()
        posting = asyncio.create_task(orchestrator.post())
        await calls.reach("sqs", "SendMessage", 1)
        orchestrator.process.send(signal.SIGTERM)
        assert (await posting).status == 202
        assert await orchestrator.ended() == 0


async def test_a_request_that_does_not_end_is_cut_off(here: Site, world: AwsWorld) -> None:
    async with here.running(DRAIN_S="1") as orchestrator, half_request(orchestrator) as request:
        orchestrator.process.send(signal.SIGTERM)
        status_line, headers = await request.answer()
        assert status_line == "HTTP/1.1 503 Service Unavailable"
        assert "retry-after: " in headers
        assert await orchestrator.ended() == 0
        assert (await orchestrator.logs("request.finished"))["status"] == 503
        assert "Traceback" not in orchestrator.process.log_path.read_text()
        assert "exception" not in orchestrator.process.log_path.read_text()
    assert await live_tasks(world.tasks) == []


@pytest.mark.parametrize("service", ["dynamodb", "ec2", "sqs"])
async def test_calls_in_the_background_that_hang_do_not_hold_up_a_stop(
    here: Site, world: AwsWorld, service: str
) -> None:
    await world.add_task()
    await world.fail(service, Mode.HANG)
    calls = await world.calls()
    action = {"dynamodb": "Query", "ec2": "DescribeInstances", "sqs": "ReceiveMessage"}[service]
    async with here.running(DRAIN_S="1") as orchestrator:
        await calls.reach(service, action, 1)
        orchestrator.process.send(signal.SIGTERM)
        # Their own limits are longer than this.
        async with asyncio.timeout(6):
            assert await orchestrator.process.wait() == 0
        assert orchestrator.events("process.failed") == []


async def test_a_port_in_use_is_said_and_ends_the_process(here: Site) -> None:
    async with here.running():
        code, output = await here.refusal()
    assert code == 1
    (line,) = [line for line in output.splitlines() if '"level": "error"' in line]
    assert "process.cannot_start" in line
    assert "Address already in use" in line
    assert "Traceback" not in output


async def test_wrong_configuration_is_one_line_and_exit_code_78(here: Site) -> None:
    code, output = await here.refusal(GPU_INSTANCE_ID="gpu-1", SQS_QUEUE_URL=None, API_KEYS=TOKEN)
    assert code == 78
    (line,) = output.splitlines()
    for name in ("GPU_INSTANCE_ID", "SQS_QUEUE_URL", "API_KEYS"):
        assert name in line
    assert TOKEN not in line


async def test_another_machine_without_a_key_is_turned_away(here: Site, world: AwsWorld) -> None:
    digest = "0" * 64
    async with here.running(API_KEYS=f"web:{digest}") as orchestrator:
        assert (await orchestrator.post()).status == 401
    assert await live_tasks(world.tasks) == []
