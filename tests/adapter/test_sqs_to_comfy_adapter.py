"""The real process, under signals, with a service manager that listens."""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from lib.gputask.record import Status
from tests.adapter.adapter_process import COMMAND, MODULE, Employer
from tests.adapter.unified_api import RESULT, UnifiedApi, hang, prompt_of
from tests.adapter.waiting import until
from tests.adapter.wire import Fate, Wire
from tests.adapter.workplace import INSTANCE_ID, PROMPT, Workplace
from tests.asyncaws.metadata_service import BEGINNINGS, REFUSES
from tests.asyncaws.metadata_service import metadata_service as credentials_service

ALL_DONE_S = 40.0


async def all_done(place: Workplace, task_ids: list[str]) -> bool:
    return all([await place.is_done(task_id) for task_id in task_ids])


# telling


async def test_systemd_is_told_and_the_log_tells_the_story(
    api: UnifiedApi, place: Workplace, employment: Employer
) -> None:
    adapter = await employment.start_ready(
        MODULE, WATCHDOG_USEC="200000", AWS_SECRET_ACCESS_KEY="top-secret-key", LOG_LEVEL="DEBUG"
    )
    await adapter.says("STATUS=idle, waiting for tasks")

    task_id = await place.submit(request_id="request-7")
    await adapter.says(f"STATUS=working on {task_id}")
    fed = adapter.manager.heard.count("WATCHDOG=1")
    await until(lambda: adapter.manager.heard.count("WATCHDOG=1") > fed + 2)  # while a request hangs
    await until(lambda: bool(api.looks))
    api.end(api.runs[0])
    await until(lambda: place.is_done(task_id))
    await adapter.tells("task.completed")

    adapter.process.send(signal.SIGTERM)
    assert await adapter.ends() == 0
    assert adapter.manager.heard[0].startswith("READY=1\nSTATUS=")
    assert adapter.manager.has_heard("STOPPING=1")

    story = [event for event in adapter.events() if event["event"].startswith("task.")]
    assert [event["event"] for event in story] == ["task.claimed", "task.submitted", "task.completed"]
    assert {event["job_id"] for event in story} == {task_id}
    assert {event["request_id"] for event in story} == {"request-7"}
    assert story[-1]["result_s3_uri"] == RESULT
    for secret in ("top-secret-key", PROMPT, PROMPT.encode("ascii", "backslashreplace").decode(), "image_url"):
        assert secret not in adapter.log()


async def test_it_receives_nothing_before_the_upstream_is_healthy_and_its_record_says_why(
    api: UnifiedApi, place: Workplace, wire: Wire, employment: Employer
) -> None:
    async def record_says(**expected: object) -> bool:
        record = await place.worker_record()
        return all(record.get(name) == value for name, value in expected.items())

    api.comfyui_status = "unhealthy"
    task_id = await place.submit()
    adapter = await employment.start_ready(MODULE)
    await until(lambda: api.healths > 2)
    await until(lambda: record_says(upstream="unhealthy", active=[], upstream_ok_at=None, last_claim_at=None))
    assert wire.count("ReceiveMessage") == 0
    assert "not healthy" in adapter.manager.heard[0]

    api.comfyui_status = "healthy"
    await until(lambda: record_says(upstream="busy", active=[task_id]))
    busy = await place.worker_record()
    assert busy["last_claim_at"] <= busy["upstream_ok_at"] == busy["beat_at"]

    async def still_beats() -> bool:
        return bool((await place.worker_record())["beat_at"] > busy["beat_at"])

    await until(still_beats)
    await until(lambda: bool(api.runs))
    api.end(api.runs[0])
    await until(lambda: record_says(upstream="healthy", active=[], last_claim_at=busy["last_claim_at"]))
    assert await place.is_done(task_id)


async def test_without_an_instance_id_it_asks_the_metadata_service(place: Workplace, employment: Employer) -> None:
    async with metadata_service("i-0123456789abcdef0") as url:
        await employment.start_ready(MODULE, GPU_INSTANCE_ID=None, AWS_EC2_METADATA_SERVICE_ENDPOINT=url)

    async def has_beaten() -> bool:
        return bool(await place.worker_record("i-0123456789abcdef0"))

    await until(has_beaten)
    assert not await place.worker_record(INSTANCE_ID)


@pytest.mark.parametrize("first", BEGINNINGS)
async def test_however_the_metadata_service_begins_it_takes_messages_only_with_credentials(
    api: UnifiedApi, place: Workplace, employment: Employer, first: str
) -> None:
    api.ends_at_once = True
    task_id = await place.submit()
    async with credentials_service(*first.split()) as service:
        adapter = await employment.start_ready(MODULE, **service.environment)
        assert service.tokens == len(first.split()) + 1
        await until(lambda: place.is_done(task_id))
    assert (await place.record(task_id)).attempt == 1
    assert not adapter.events("message.handling_failed")


async def test_a_stop_does_not_wait_for_a_metadata_service_that_never_answers(employment: Employer) -> None:
    async with credentials_service() as service:
        service.then = REFUSES
        adapter = await employment.start(MODULE, **service.environment)
        await until(lambda: service.tokens > 0)
        adapter.process.send(signal.SIGTERM)
        assert await adapter.ends() == 0
    assert adapter.events("process.stopped_before_start")
    assert not adapter.manager.heard


# ending


async def test_a_wrong_configuration_is_one_line_and_exit_code_78(employment: Employer) -> None:
    adapter = await employment.start(COMMAND, SQS_QUEUE_URL=None)
    assert await adapter.ends() == 78
    assert adapter.log() == "configuration: SQS_QUEUE_URL is not set\n"
    assert not adapter.manager.heard


async def test_a_queue_that_is_gone_ends_the_process(place: Workplace, employment: Employer) -> None:
    """So that the service manager shows it, rather than half a process limping on."""
    adapter = await employment.start(MODULE, SQS_QUEUE_URL=f"{place.queue_url}-gone")
    assert await adapter.ends() == 1
    assert adapter.events("process.failed")


async def test_without_its_table_it_takes_no_message_that_it_could_only_drop(
    place: Workplace, employment: Employer
) -> None:
    await place.submit()
    adapter = await employment.start(MODULE, DYNAMODB_TABLE="none")
    assert await adapter.ends() == 1
    assert not [said for said in adapter.manager.heard if "READY=1" in said]
    assert not await place.has_no_message()


async def test_a_stop_while_idle_lets_the_open_receive_finish_and_hands_back_what_it_brings(
    api: UnifiedApi, place: Workplace, wire: Wire, employment: Employer
) -> None:
    adapter = await employment.start_ready(COMMAND, RECEIVE_WAIT_S="20", VISIBILITY_TIMEOUT_S="300")
    await until(lambda: wire.count("ReceiveMessage") == 1)
    adapter.process.send(signal.SIGTERM)
    await adapter.says("STOPPING=1")
    assert adapter.process.exit_code is None

    task_id = await place.submit()
    assert await adapter.ends() == 0
    assert await place.next_message()
    record = await place.record(task_id)
    assert (record.status, record.attempt) == (Status.PENDING, 0)
    assert not api.submissions


async def test_a_stop_in_mid_job_waits_for_the_job_and_takes_no_other(
    api: UnifiedApi, place: Workplace, employment: Employer
) -> None:
    adapter = await employment.start_ready(MODULE)
    task_id = await place.submit()
    await until(lambda: bool(api.looks))
    adapter.process.send(signal.SIGTERM)
    await adapter.says("STOPPING=1")
    waiting_id = await place.submit()
    api.end(api.runs[0])
    assert await adapter.ends() == 0

    assert (await place.record(task_id)).result_s3_uri == RESULT
    assert (await place.record(waiting_id)).attempt == 0
    assert await place.next_message()
    assert (await place.worker_record())["active"] == []


async def test_a_stop_that_cannot_wait_gives_back_and_the_next_adapter_adopts(
    api: UnifiedApi, place: Workplace, employment: Employer
) -> None:
    leaving = await employment.start_ready(MODULE, DRAIN_S="0", VISIBILITY_TIMEOUT_S="300")
    task_id = await place.submit()
    await until(lambda: bool(api.looks))
    leaving.process.send(signal.SIGTERM)
    assert await leaving.ends() == 0

    record = await place.record(task_id)
    assert (record.status, record.comfy_job_id, record.lease_until) == (Status.PENDING, api.runs[0], None)
    assert await place.next_message(wait_s=0)

    coming = await employment.start(MODULE)
    await coming.tells("task.adopted")
    api.end(api.runs[0])
    await until(lambda: place.is_done(task_id))
    record = await place.record(task_id)
    assert (record.status, record.result_s3_uri, record.attempt) == (Status.COMPLETED, RESULT, 2)
    assert len(api.submissions) == 1


# dying


async def test_after_a_kill_in_mid_job_the_next_adapter_waits_for_the_silent_upstream_and_adopts(
    api: UnifiedApi, place: Workplace, wire: Wire, employment: Employer
) -> None:
    api.blocks = True
    dying = await employment.start_ready(MODULE)
    task_id = await place.submit()
    await until(lambda: bool(api.looks))
    await dying.process.kill()

    receives = wire.count("ReceiveMessage")
    coming = await employment.start_ready(MODULE)
    healths = api.healths
    await until(lambda: api.healths > healths)
    assert wire.count("ReceiveMessage") == receives
    api.end(api.runs[0])
    await coming.tells("task.adopted")
    await until(lambda: place.is_done(task_id))
    record = await place.record(task_id)
    assert (record.status, record.result_s3_uri, record.attempt) == (Status.COMPLETED, RESULT, 2)
    assert len(api.submissions) == 1


async def test_the_next_job_runs_while_a_result_is_written_and_a_kill_then_loses_neither(
    api: UnifiedApi, place: Workplace, wire: Wire, employment: Employer
) -> None:
    dying = await employment.start_ready(MODULE)
    task_ids = [await place.submit()]
    writing = wire.order("UpdateItem", Fate.HELD_BEFORE, part="#result_s3_uri", task_id=task_ids[0])
    await until(lambda: len(api.runs) == 1)
    task_ids.append(await place.submit())
    api.end(api.runs[0])
    await writing.met.wait()
    await until(lambda: len(api.runs) == 2)
    assert await place.status(task_ids[0]) is Status.PROCESSING
    await dying.process.kill()

    wire.clear()
    api.end(api.runs[1])
    await employment.start(MODULE)
    await until(lambda: all_done(place, task_ids), limit_s=ALL_DONE_S)
    assert [(await place.record(task_id)).status for task_id in task_ids] == [Status.COMPLETED] * 2
    assert len(api.runs) == 2


async def test_killed_between_any_two_effects_the_next_adapter_finishes_with_one_result(
    api: UnifiedApi, place: Workplace, wire: Wire, employment: Employer
) -> None:
    """One adapter with a slot for each boundary is killed when each of its tasks has come to its own."""
    held_up = {
        "after the receive": ("ReceiveMessage", Fate.HELD_AFTER, ""),
        "before the claim": ("UpdateItem", Fate.HELD_BEFORE, "ADD"),
        "after the claim": ("UpdateItem", Fate.HELD_AFTER, "ADD"),
        "before the run is noted": ("UpdateItem", Fate.HELD_BEFORE, "#comfy_job_id"),
        "after the run is noted": ("UpdateItem", Fate.HELD_AFTER, "#comfy_job_id"),
        "before the result is published": ("UpdateItem", Fate.HELD_BEFORE, "#result_s3_uri"),
        "after the result is published": ("UpdateItem", Fate.HELD_AFTER, "#result_s3_uri"),
        "before the message is deleted": ("DeleteMessage", Fate.HELD_BEFORE, ""),
        "after the message is deleted": ("DeleteMessage", Fate.HELD_AFTER, ""),
    }
    task_ids: dict[str, str] = {}
    troubles = []
    for boundary, (operation, fate, part) in held_up.items():
        task_ids[boundary] = await place.submit(prompt=boundary)
        troubles.append(wire.order(operation, fate, part=part, task_id=task_ids[boundary]))
    for boundary in ("posted", "run but not answered", "in mid-job"):
        task_ids[boundary] = await place.submit(prompt=boundary)

    async def accept_or_hang(request: web.Request) -> web.StreamResponse:
        prompt = await prompt_of(request)
        if prompt == "posted":
            return await hang(request)
        if prompt == "run but not answered":
            api.take_in(prompt)
            return await hang(request)
        api.ends_at_once = prompt != "in mid-job"
        return await api.accept(request)

    api.on_submit = accept_or_hang
    slots = str(len(task_ids))
    dying = await employment.start(MODULE, CONCURRENCY=slots)
    await until(lambda: all(trouble.met.is_set() for trouble in troubles), limit_s=ALL_DONE_S)
    await until(lambda: {"posted", "run but not answered", "in mid-job"} <= prompts_seen(api), limit_s=ALL_DONE_S)
    await dying.process.kill()

    wire.clear()
    api.on_submit = api.accept
    api.ends_at_once = True
    for job_id in api.runs:
        api.end(job_id)
    await employment.start(MODULE, CONCURRENCY=slots)
    await until(lambda: all_done(place, list(task_ids.values())), limit_s=ALL_DONE_S)
    await until(place.has_no_message, limit_s=ALL_DONE_S)

    runs = Counter(api.prompts)
    assert runs == dict.fromkeys(task_ids, 1) | {"run but not answered": 2, "before the run is noted": 2}
    for boundary, task_id in task_ids.items():
        record = await place.record(task_id)
        assert (record.status, record.result_s3_uri) == (Status.COMPLETED, RESULT), boundary
        assert runs[boundary] <= record.attempt, boundary


def prompts_seen(api: UnifiedApi) -> set[str]:
    return {submission.body["prompt"] for submission in api.submissions}


@asynccontextmanager
async def metadata_service(instance_id: str) -> AsyncIterator[str]:
    """IMDSv2: a token is needed, and without one there is no answer."""

    async def give_token(request: web.Request) -> web.Response:
        assert request.headers["X-aws-ec2-metadata-token-ttl-seconds"]
        return web.Response(text="token-1")

    async def give_id(request: web.Request) -> web.Response:
        if request.headers.get("X-aws-ec2-metadata-token") != "token-1":
            raise web.HTTPUnauthorized
        return web.Response(text=instance_id)

    app = web.Application()
    app.router.add_put("/latest/api/token", give_token)
    app.router.add_get("/latest/meta-data/instance-id", give_id)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0][:2]
        yield f"http://{host}:{port}"
    finally:
        await runner.cleanup()
