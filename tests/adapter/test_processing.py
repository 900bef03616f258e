"""From a message to a finished record, over HTTP: what becomes of task, message and GPU run, whatever goes wrong."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from structlog.testing import capture_logs

from lib.asyncaws.consumer import Delivery, Unserviceable
from lib.asyncaws.errors import AuthenticationAwsError
from lib.gputask.kinds import CAMERA_ANGLE
from lib.gputask.record import ErrorCode, Status
from services.adapter.dialect import for_client
from services.adapter.upstream import UnifiedApi as UnifiedApiClient
from tests.adapter import unified_api
from tests.adapter.unified_api import RESULT, UnifiedApi, answering, hang, showing
from tests.adapter.waiting import until
from tests.adapter.wire import Fate, Wire
from tests.adapter.workplace import PROMPT, Adapter, Workplace, open_adapter

OpenAdapter = Callable[..., Adapter]

STOP_S = 15.0  # less than systemd leaves after the drain


@pytest.fixture
def hire(place: Workplace, client: UnifiedApiClient) -> OpenAdapter:
    """Opens one more adapter."""
    return partial(open_adapter, place, client)


@pytest.fixture
def adapter(hire: OpenAdapter) -> Adapter:
    return hire()


def last_visibility_s(wire: Wire) -> int:
    """How long the message was last hidden for; 5 where somebody shall take it again soon."""
    return visibilities_s(wire)[-1]


def visibilities_s(wire: Wire) -> list[int]:
    calls = [call for call in wire.calls if call.operation == "ChangeMessageVisibility"]
    return [json.loads(call.text)["VisibilityTimeout"] for call in calls]


# the usual way


async def test_a_task_is_run_published_and_its_message_deleted_last(
    api: UnifiedApi, place: Workplace, hire: OpenAdapter, wire: Wire
) -> None:
    api.ends_at_once = True
    task_id = await place.submit()
    await hire(heartbeat_s=29).take_next()

    record = await place.record(task_id)
    assert (record.status, record.result_s3_uri, record.attempt) == (Status.COMPLETED, RESULT, 1)
    assert record.comfy_job_id == api.runs[0]
    assert record.lease_until is None
    assert record.finished_at is not None
    assert await place.has_no_message()
    verbs = [call.operation for call in wire.calls if call.operation in ("UpdateItem", "DeleteMessage")]
    # Claim, note the run, finish; on a slow machine a renewal or two among them.
    assert verbs.count("UpdateItem") >= 3
    assert verbs.index("DeleteMessage") == len(verbs) - 1


async def test_the_body_goes_on_as_the_client_sent_it(api: UnifiedApi, place: Workplace, adapter: Adapter) -> None:
    api.ends_at_once = True
    await place.submit(request_id="request-7")
    await adapter.take_next()
    [submission] = api.submissions
    assert submission.body == {"image_url": "s3://pictures/cat.png", "prompt": PROMPT, "cfg": 1.0}
    assert isinstance(submission.body["cfg"], float)
    assert submission.headers["X-Request-ID"] == "request-7"


async def test_a_task_goes_where_its_path_says(api: UnifiedApi, place: Workplace, adapter: Adapter) -> None:
    api.ends_at_once = True
    task_id = await place.submit(job_type=CAMERA_ANGLE.api_path)
    await place.queue.delete((await place.queue.receive(limit=1, wait_s=5, visibility_s=30))[0].receipt)
    await place.send(await place.record(task_id))
    await adapter.take_next()
    assert api.submissions[0].api_path == CAMERA_ANGLE.api_path


async def test_a_failed_job_fails_its_task(api: UnifiedApi, place: Workplace, adapter: Adapter) -> None:
    task_id = await place.submit()
    working = asyncio.create_task(adapter.take_next())
    await until(lambda: bool(api.looks))
    api.fail(api.runs[0], "No output images generated")
    await working
    record = await place.record(task_id)
    assert (record.status, record.error_code) == (Status.FAILED, ErrorCode.UPSTREAM_FAILED)
    assert record.error_message == for_client("No output images generated")
    assert await place.has_no_message()


async def test_a_refused_request_fails_its_task_for_good(api: UnifiedApi, place: Workplace, adapter: Adapter) -> None:
    api.on_submit = answering(422, {"detail": [{"loc": ["body", "image_url"], "msg": "Field required"}]})
    task_id = await place.submit()
    await adapter.take_next()
    record = await place.record(task_id)
    assert (record.status, record.error_code, record.attempt) == (Status.FAILED, ErrorCode.UPSTREAM_REJECTED, 1)
    assert "image_url: Field required" in (record.error_message or "")
    assert await place.has_no_message()


async def test_the_deadline_fails_a_task_while_its_request_hangs(
    api: UnifiedApi, place: Workplace, hire: OpenAdapter
) -> None:
    adapter = hire(deadline_s=0.3)
    api.on_look = hang
    task_id = await place.submit()
    await adapter.take_next()
    record = await place.record(task_id)
    assert (record.status, record.error_code) == (Status.FAILED, ErrorCode.DEADLINE)
    assert await place.has_no_message()


async def test_the_lease_is_renewed_while_the_upstream_is_silent(
    api: UnifiedApi, place: Workplace, adapter: Adapter
) -> None:
    api.blocks = True
    task_id = await place.submit()
    working = asyncio.create_task(adapter.take_next())
    await until(lambda: bool(api.looks))
    first = (await place.record(task_id)).lease_until

    async def is_renewed() -> bool:
        return (await place.record(task_id)).lease_until != first

    await until(is_renewed)
    api.end(api.runs[0])
    await working
    assert await place.is_done(task_id)


# what a message may find


@pytest.mark.parametrize("status", [Status.COMPLETED, Status.FAILED])
async def test_the_message_of_a_finished_task_is_deleted(
    api: UnifiedApi, place: Workplace, adapter: Adapter, status: Status
) -> None:
    task_id = await place.submit(status=status, result_s3_uri=RESULT)
    before = await place.record(task_id)
    await adapter.take_next()
    assert await place.has_no_message()
    assert await place.record(task_id) == before
    assert not api.submissions
    assert adapter.worker.record().last_service_at is not None


async def test_the_message_of_an_unknown_task_is_kept(api: UnifiedApi, place: Workplace, adapter: Adapter) -> None:
    """As after a table was restored from a backup; after its last receive it is kept as a dead letter."""
    task_id = await place.submit()
    await place.forget(task_id)
    await adapter.take_next()
    assert not await place.has_no_message()
    assert not api.submissions
    assert await place.store.get(task_id) is None


async def test_a_task_held_elsewhere_is_left_alone_and_comes_again_after_its_lease(
    api: UnifiedApi, place: Workplace, hire: OpenAdapter
) -> None:
    api.ends_at_once = True
    adapter = hire()
    task_id = await place.submit()
    lease_until = round(time.time() + 1, 3)
    held = await place.overwrite(
        task_id, status=Status.PROCESSING, attempt=1, worker="another", lease_until=lease_until
    )

    await adapter.take_next()
    assert await place.record(task_id) == held
    assert await place.next_message(wait_s=0) is None
    assert not api.submissions

    await adapter.take_next()
    assert time.time() > lease_until
    record = await place.record(task_id)
    assert (record.status, record.attempt) == (Status.COMPLETED, 2)


async def test_a_lease_that_ends_while_it_is_looked_at_is_no_end_of_the_task(
    api: UnifiedApi, place: Workplace, adapter: Adapter
) -> None:
    """The claim finds the lease alive, the next look at the clock finds it over: attempts are left all the same."""
    lease_until = round(time.time(), 3)
    times = itertools.chain([lease_until - 0.001], itertools.repeat(lease_until + 1))
    processor = replace(adapter.processor, store=replace(adapter.processor.store, clock=lambda: next(times)))
    task_id = await place.submit()
    held = await place.overwrite(
        task_id, status=Status.PROCESSING, attempt=1, worker="another", lease_until=lease_until
    )
    await replace(adapter, processor=processor).take_next()
    assert await place.record(task_id) == held
    assert await place.next_message()


async def test_a_poison_message_comes_back_at_once_and_reaches_the_dead_letters(
    api: UnifiedApi, place: Workplace, adapter: Adapter
) -> None:
    await place.queue.send('{"task_id": "task-1", "api_path": "/api/v1/qwen-image-edit/jobs"}', {})
    for _ in range(5):
        await adapter.take_next()
    assert await place.next_message(wait_s=1) is None
    [dead] = await place.dead_letters.receive(limit=1, wait_s=5)
    assert "task-1" in dead.body
    assert not api.submissions


@pytest.mark.parametrize(
    "body",
    [
        "",
        "not JSON",
        "[]",
        '{"task_id": 7, "api_path": "/api/v1/qwen-image-edit/jobs", "request_body": {}}',
        '{"task_id": "task-1", "api_path": "/api/v1/unknown/jobs", "request_body": {}}',
        '{"task_id": "task-1", "api_path": "/api/v1/qwen-image-edit/jobs", "request_body": "{}"}',
    ],
)
async def test_poison_is_handed_back(api: UnifiedApi, place: Workplace, adapter: Adapter, body: str) -> None:
    await place.queue.send(body or " ", {})
    await adapter.take_next(visibility_s=300)
    assert await place.next_message(wait_s=1)
    assert not api.submissions


async def test_after_the_last_attempt_the_task_fails_by_name(
    api: UnifiedApi, place: Workplace, hire: OpenAdapter
) -> None:
    """Restarted under every attempt, the upstream forgets each run."""
    adapter = hire(max_attempts=2)
    api.on_look = answering(404, {"detail": "Job not found"})
    task_id = await place.submit()
    await adapter.take_next()
    await adapter.take_next()
    assert await place.status(task_id) is Status.PENDING

    await adapter.take_next()

    record = await place.record(task_id)
    assert (record.status, record.error_code) == (Status.FAILED, ErrorCode.ATTEMPTS_EXHAUSTED)
    assert "2 attempts" in (record.error_message or "")
    assert await place.has_no_message()
    assert len(api.runs) == 2


async def test_a_worker_that_dies_in_the_last_attempt_is_named(
    api: UnifiedApi, place: Workplace, adapter: Adapter
) -> None:
    task_id = await place.submit()
    await place.overwrite(task_id, status=Status.PROCESSING, attempt=3, worker="dead", lease_until=time.time() - 1)
    await adapter.take_next()
    record = await place.record(task_id)
    assert (record.status, record.error_code) == (Status.FAILED, ErrorCode.WORKER_LOST)
    assert await place.has_no_message()
    assert not api.submissions


async def test_a_run_the_upstream_forgot_is_run_again(api: UnifiedApi, place: Workplace, adapter: Adapter) -> None:
    task_id = await place.submit()
    working = asyncio.create_task(adapter.take_next())
    await until(lambda: bool(api.looks))
    await api.restart()
    await working
    record = await place.record(task_id)
    assert (record.status, record.comfy_job_id) == (Status.PENDING, None)

    api.ends_at_once = True
    await adapter.take_next()
    record = await place.record(task_id)
    assert (record.status, record.attempt, len(api.runs)) == (Status.COMPLETED, 2, 2)


async def test_an_upstream_that_dies_over_the_submission_costs_an_attempt(
    api: UnifiedApi, place: Workplace, adapter: Adapter, wire: Wire
) -> None:
    dying: list[asyncio.Task[None]] = []

    async def die(request: web.Request) -> web.StreamResponse:
        dying.append(asyncio.create_task(api.stop()))
        return await hang(request)

    api.on_submit = die
    task_id = await place.submit()
    await adapter.take_next()
    await dying[0]
    record = await place.record(task_id)
    assert (record.status, record.attempt) == (Status.PENDING, 1)
    assert not await place.has_no_message()
    assert last_visibility_s(wire) <= 10


async def test_a_lost_answer_of_a_living_upstream_is_not_run_again(
    api: UnifiedApi, place: Workplace, adapter: Adapter
) -> None:
    async def lose(request: web.Request) -> web.StreamResponse:
        api.take_in()
        return await unified_api.reset(request)

    api.on_submit = lose
    task_id = await place.submit()
    await adapter.take_next()
    record = await place.record(task_id)
    assert (record.status, record.error_code) == (Status.FAILED, ErrorCode.UPSTREAM_FAILED)
    assert len(api.runs) == 1
    assert await place.has_no_message()


async def test_nothing_is_claimed_or_submitted_once_the_upstream_has_failed(
    api: UnifiedApi, place: Workplace, adapter: Adapter, wire: Wire
) -> None:
    """A long poll takes up to 20 s: the upstream that was healthy before may not be any more."""
    api.comfyui_status = "unhealthy"
    task_id = await place.submit()
    before = await place.record(task_id)
    await adapter.take_next(visibility_s=300)
    assert await place.record(task_id) == before
    assert not api.submissions
    assert not await place.has_no_message()
    assert last_visibility_s(wire) <= 10


# whose fault it was


@pytest.mark.parametrize(
    ("attempts", "error", "comfyui_status", "ends"),
    [
        (3, "Connection refused", "unhealthy", (Status.PENDING, None)),
        (3, "Failed to upload the result", "healthy", (Status.PENDING, None)),
        (1, "Connection refused", "unhealthy", (Status.FAILED, "Connection refused")),  # the last attempt
        (3, "a torn picture", "healthy", (Status.FAILED, "a torn picture")),
    ],
)
async def test_a_job_is_not_blamed_for_its_upstream_while_it_has_attempts_left(
    api: UnifiedApi,
    place: Workplace,
    hire: OpenAdapter,
    attempts: int,
    error: str,
    comfyui_status: str,
    ends: tuple[Status, str | None],
) -> None:
    async def fail(request: web.Request) -> web.StreamResponse:
        api.comfyui_status = comfyui_status
        return await showing("failed", error=error)(request)

    api.on_look = fail
    task_id = await place.submit()
    await hire(max_attempts=attempts).take_next()
    record = await place.record(task_id)
    assert (record.status, record.error_message) == ends
    assert await place.has_no_message() is (record.status is Status.FAILED)


async def test_a_job_that_may_still_run_is_not_repeated_over_a_stop(
    api: UnifiedApi, place: Workplace, adapter: Adapter
) -> None:
    api.on_submit = unified_api.reset
    adapter.processor.stop.set()
    task_id = await place.submit()
    await adapter.take_next()
    assert await place.status(task_id) is Status.FAILED


async def test_a_claim_that_the_upstream_took_no_job_for_is_no_attempt(
    api: UnifiedApi, place: Workplace, adapter: Adapter, wire: Wire
) -> None:
    api.on_submit = answering(503)
    task_id = await place.submit()
    for _ in range(2):
        await adapter.take_next()
        await place.send(await place.record(task_id))  # sooner than the one that is hidden
    record = await place.record(task_id)
    assert (record.status, record.attempt, record.attempts_used) == (Status.PENDING, 2, 0)
    assert visibilities_s(wire) == [30, 60]


async def test_different_jobs_that_fail_in_a_row_are_given_back_and_the_restart_is_asked_for(
    api: UnifiedApi, place: Workplace, hire: OpenAdapter, tmp_path: Path
) -> None:
    adapter = hire(restart_file=tmp_path / "restart")
    api.on_look = showing("failed", error="CUDA out of memory")
    tasks = []
    for number in range(3):
        tasks.append(await place.submit(prompt=f"picture {number}"))
        await adapter.take_next()
    assert [await place.status(task_id) for task_id in tasks] == [Status.FAILED, Status.PENDING, Status.PENDING]
    assert (tmp_path / "restart").exists()
    assert not await adapter.gate.is_open()


async def test_one_bad_input_that_is_sent_again_and_again_blocks_nobody(
    api: UnifiedApi, place: Workplace, hire: OpenAdapter, tmp_path: Path
) -> None:
    adapter = hire(restart_file=tmp_path / "restart")
    api.on_look = showing("failed", error="No output images generated")
    for _ in range(4):
        task_id = await place.submit()
        await adapter.take_next()
        assert await place.status(task_id) is Status.FAILED
    assert await adapter.gate.is_open()
    assert not (tmp_path / "restart").exists()


# losing the task


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"attempt": 2, "worker": "another"}, id="taken-by-another"),
        pytest.param({"status": Status.FAILED, "error_code": ErrorCode.RULE_B, "lease_until": None}, id="rule-b"),
    ],
)
async def test_a_task_lost_in_mid_job_is_let_go_and_nothing_is_published(
    api: UnifiedApi, place: Workplace, adapter: Adapter, change: dict[str, Any]
) -> None:
    api.on_look = hang
    task_id = await place.submit()
    working = asyncio.create_task(adapter.take_next())
    await until(lambda: bool(api.looks))
    changed = await place.overwrite(task_id, **change)
    await working
    assert await place.record(task_id) == changed
    assert not adapter.worker.has_work
    assert not await place.has_no_message()  # whoever gets it next finds in the record what to do


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"attempt": 2, "worker": "another"}, id="taken-by-another"),
        pytest.param({"status": Status.FAILED, "error_code": ErrorCode.RULE_B, "lease_until": None}, id="rule-b"),
    ],
)
@pytest.mark.parametrize("end", ["completed", "failed", "forgotten"])
async def test_a_task_lost_before_its_outcome_is_published_keeps_its_record(
    api: UnifiedApi, place: Workplace, hire: OpenAdapter, change: dict[str, Any], end: str
) -> None:
    """No heartbeat comes in between: it is the write itself that is fenced."""
    adapter = hire(heartbeat_s=29)
    changed = []

    async def overtake(request: web.Request) -> web.StreamResponse:
        changed.append(await place.overwrite(task_id, **change))
        answers = {
            "completed": unified_api.showing("completed", result_s3_uri=RESULT),
            "failed": unified_api.showing("failed", error="no"),
            "forgotten": answering(404, {"detail": "Job not found"}),
        }
        return await answers[end](request)

    api.on_look = overtake
    task_id = await place.submit()
    await adapter.take_next()
    assert [await place.record(task_id)] == changed[-1:]


async def test_a_task_lost_before_its_run_is_noted_is_let_go(
    api: UnifiedApi, place: Workplace, hire: OpenAdapter
) -> None:
    adapter = hire(heartbeat_s=29)

    async def overtake(request: web.Request) -> web.StreamResponse:
        await place.overwrite(task_id, attempt=2, worker="another")
        return await api.accept(request)

    api.on_submit = overtake
    task_id = await place.submit()
    await adapter.take_next()
    record = await place.record(task_id)
    assert (record.worker, record.comfy_job_id) == ("another", None)
    assert not api.looks


async def test_a_duplicate_delivery_is_one_run(api: UnifiedApi, place: Workplace, hire: OpenAdapter) -> None:
    """SQS may deliver twice; here both copies are received at once, by two workers."""
    one, other = hire(), hire()
    task_id = await place.submit()
    await place.send(await place.record(task_id))
    working = [asyncio.create_task(adapter.take_next()) for adapter in (one, other)]
    await until(lambda: bool(api.looks))
    api.end(api.runs[0])
    await asyncio.gather(*working)
    record = await place.record(task_id)
    assert (record.status, record.attempt, len(api.runs)) == (Status.COMPLETED, 1, 1)


async def test_of_many_who_claim_at_once_one_wins(api: UnifiedApi, place: Workplace, hire: OpenAdapter) -> None:
    adapters = [hire() for _ in range(6)]
    task_id = await place.submit()
    record = await place.record(task_id)
    for _ in adapters[1:]:
        await place.send(record)
    working = [asyncio.create_task(adapter.take_next()) for adapter in adapters]
    await until(lambda: sum(task.done() for task in working) == len(adapters) - 1)
    api.end(api.runs[0])
    await asyncio.gather(*working)
    record = await place.record(task_id)
    assert (record.status, record.attempt, len(api.runs)) == (Status.COMPLETED, 1, 1)


async def test_two_slots_that_claim_in_the_same_instant_are_told_apart(
    api: UnifiedApi, place: Workplace, adapter: Adapter
) -> None:
    """A duplicate, received by the same process in the same millisecond: one of the claims is no echo of the other."""
    now = round(time.time(), 3)
    still = replace(adapter.processor, store=replace(adapter.processor.store, clock=lambda: now))
    task_id = await place.submit()
    await place.send(await place.record(task_id))
    slots = [asyncio.create_task(replace(adapter, processor=still).take_next()) for _ in range(2)]
    await until(lambda: any(slot.done() for slot in slots) or len(api.runs) > 1)
    for job_id in api.runs:
        api.end(job_id)
    await asyncio.gather(*slots)
    assert await place.is_done(task_id)
    assert len(api.runs) == 1


# AWS on a bad day


async def test_a_claim_that_fails_hands_the_message_back(
    api: UnifiedApi, place: Workplace, adapter: Adapter, wire: Wire
) -> None:
    wire.order("UpdateItem", Fate.UNAVAILABLE, times=1)
    task_id = await place.submit()
    await adapter.take_next(visibility_s=300)
    assert await place.status(task_id) is Status.PENDING
    assert not api.submissions
    assert not await place.has_no_message()
    assert last_visibility_s(wire) <= 10


async def test_claims_that_fail_again_and_again_use_up_the_queues_receives_slowly(
    place: Workplace, adapter: Adapter, wire: Wire
) -> None:
    """Ten receives make a dead letter; ten quick ones would bury a healthy task over two bad minutes of the table."""
    wire.order("UpdateItem", Fate.UNAVAILABLE)
    await place.submit()
    for receive_count in (1, 2, 3, 7, 1000):
        (message,) = await adapter.source.receive(limit=1, wait_s=1)
        delivery = Delivery(replace(message, receive_count=receive_count), adapter.answers)
        await adapter.processor.handle(delivery)
        await delivery.hand_back()
    assert visibilities_s(wire)[::2] == [5, 10, 20, 300, 300]


async def test_a_claim_that_is_refused_for_good_ends_the_adapter_and_burns_no_receives(
    api: UnifiedApi, place: Workplace, adapter: Adapter, wire: Wire
) -> None:
    wire.order("UpdateItem", Fate.FORBIDDEN)
    task_id = await place.submit()
    with pytest.raises(Unserviceable) as refusal:
        await adapter.take_next()
    assert "AccessDeniedException" in str(refusal.value.__cause__)
    assert await place.status(task_id) is Status.PENDING
    assert not api.submissions


async def test_a_stop_does_not_wait_for_credentials_that_never_come(
    api: UnifiedApi, place: Workplace, hire: OpenAdapter, wire: Wire
) -> None:
    refused = wire.order("UpdateItem", Fate.EXPIRED)
    await place.submit()
    adapter = hire(lease_s=600)
    taking = asyncio.create_task(adapter.take_next())
    await refused.met.wait()
    adapter.processor.stop.set()
    async with asyncio.timeout(STOP_S):
        with pytest.raises(Unserviceable):
            await taking
    assert not api.submissions


async def test_a_stop_that_cannot_wait_does_not_wait_for_credentials_either(
    api: UnifiedApi, place: Workplace, hire: OpenAdapter, wire: Wire
) -> None:
    """The run is noted: the next worker fetches its result."""
    refused = wire.order("UpdateItem", Fate.EXPIRED, part="#result_s3_uri")
    api.ends_at_once = True
    task_id = await place.submit()
    adapter = hire(lease_s=600)
    taking = asyncio.create_task(adapter.take_next())
    await refused.met.wait()
    adapter.processor.abandon.set()
    async with asyncio.timeout(STOP_S):
        with pytest.raises(AuthenticationAwsError):
            await taking
    assert (await place.record(task_id)).comfy_job_id == api.runs[0]


async def test_a_refusal_that_lasts_is_one_line_and_a_summary(
    api: UnifiedApi, place: Workplace, adapter: Adapter, wire: Wire
) -> None:
    wire.order("UpdateItem", Fate.EXPIRED, part="#claimed_at", times=3)
    api.ends_at_once = True
    await place.submit()
    with capture_logs() as events:
        await adapter.take_next()
    told = [event for event in events if event["event"].startswith("retry.")]
    assert [event["event"] for event in told] == ["retry.failed", "retry.recovered"]
    assert told[-1]["failed"] == 3


@pytest.mark.parametrize("part", ["#claimed_at", "#comfy_job_id", "#result_s3_uri"])
async def test_a_refusal_of_a_moment_in_the_middle_of_a_job_costs_nothing(
    api: UnifiedApi, place: Workplace, adapter: Adapter, wire: Wire, part: str
) -> None:
    """A token that is just being renewed, on the claim, on noting the upstream's id, or on the result."""
    moment = wire.order("UpdateItem", Fate.EXPIRED, part=part, times=2)
    api.ends_at_once = True
    task_id = await place.submit()
    await adapter.take_next()
    assert moment.met_count == 2
    record = await place.record(task_id)
    assert (record.status, record.attempt) == (Status.COMPLETED, 1)
    assert len(api.runs) == 1


async def test_a_result_is_published_once_the_table_is_back(
    api: UnifiedApi, place: Workplace, adapter: Adapter, wire: Wire
) -> None:
    outage = wire.order("UpdateItem", Fate.UNAVAILABLE, part="#result_s3_uri", times=3)
    api.ends_at_once = True
    task_id = await place.submit()
    await adapter.take_next()
    assert outage.met_count == 3
    assert (await place.record(task_id)).result_s3_uri == RESULT
    assert await place.has_no_message()
    assert len(api.runs) == 1


async def test_a_run_is_noted_once_the_table_is_back(
    api: UnifiedApi, place: Workplace, adapter: Adapter, wire: Wire
) -> None:
    """Given up for a failed write, it would be run again."""
    outage = wire.order("UpdateItem", Fate.UNAVAILABLE, part="#comfy_job_id", times=3)
    api.ends_at_once = True
    task_id = await place.submit()
    await adapter.take_next()
    assert outage.met_count == 3
    record = await place.record(task_id)
    assert (record.status, record.comfy_job_id, record.attempt) == (Status.COMPLETED, api.runs[0], 1)
    assert len(api.runs) == 1


@pytest.mark.parametrize("part", ["#comfy_job_id", "#result_s3_uri"])
async def test_a_write_whose_answer_is_lost_is_not_taken_for_a_lost_lease(
    api: UnifiedApi, place: Workplace, adapter: Adapter, wire: Wire, part: str
) -> None:
    wire.order("UpdateItem", Fate.LOST_AFTER, part=part, times=1)
    api.ends_at_once = True
    task_id = await place.submit()
    await adapter.take_next()
    assert await place.is_done(task_id)
    assert await place.has_no_message()
    assert len(api.runs) == 1


async def test_an_acknowledgement_that_fails_is_made_up_for_by_the_next_delivery(
    api: UnifiedApi, place: Workplace, hire: OpenAdapter, wire: Wire
) -> None:
    adapter = hire(lease_s=1)
    wire.order("DeleteMessage", Fate.UNAVAILABLE, times=1)
    api.ends_at_once = True
    task_id = await place.submit()
    await adapter.take_next()
    assert await place.is_done(task_id)
    assert not await place.has_no_message()

    await adapter.take_next()
    assert await place.has_no_message()
    assert len(api.runs) == 1


# stopping


async def test_a_stop_that_cannot_wait_gives_the_task_back_with_its_run(
    api: UnifiedApi, place: Workplace, adapter: Adapter
) -> None:
    task_id = await place.submit()
    working = asyncio.create_task(adapter.take_next())
    await until(lambda: bool(api.looks))
    adapter.processor.abandon.set()
    await working
    record = await place.record(task_id)
    assert (record.status, record.comfy_job_id, record.worker) == (Status.PENDING, api.runs[0], None)
    assert await place.next_message(wait_s=0)


async def test_what_is_given_back_is_adopted_without_a_second_run(
    api: UnifiedApi, place: Workplace, hire: OpenAdapter
) -> None:
    leaving, coming = hire(), hire()
    task_id = await place.submit()
    working = asyncio.create_task(leaving.take_next())
    await until(lambda: bool(api.looks))
    leaving.processor.abandon.set()
    await working

    api.end(api.runs[0])
    await coming.take_next()
    record = await place.record(task_id)
    assert (record.status, record.attempt, len(api.submissions)) == (Status.COMPLETED, 2, 1)


@pytest.mark.parametrize(("max_attempts", "status"), [(2, Status.PENDING), (1, Status.FAILED)])
async def test_what_fails_while_the_machine_goes_down_gets_another_attempt_if_there_is_one(
    api: UnifiedApi, place: Workplace, hire: OpenAdapter, max_attempts: int, status: Status
) -> None:
    """ComfyUI is told to stop as well, and may be faster: its job then fails with a broken connection."""
    adapter = hire(max_attempts=max_attempts)
    api.on_look = showing("failed", error="[Errno 104] Connection reset by peer")
    adapter.processor.stop.set()
    task_id = await place.submit()
    await adapter.take_next()
    record = await place.record(task_id)
    assert (record.status, record.comfy_job_id is None) == (status, status is Status.PENDING)


async def test_after_a_stop_that_cannot_wait_nothing_is_submitted(
    api: UnifiedApi, place: Workplace, adapter: Adapter
) -> None:
    adapter.processor.abandon.set()
    task_id = await place.submit()
    await adapter.take_next()
    assert await place.status(task_id) is Status.PENDING
    assert await place.next_message(wait_s=0)
    assert not api.submissions


# the pool


async def test_a_pool_holds_no_more_messages_than_it_has_slots(
    api: UnifiedApi, place: Workplace, adapter: Adapter
) -> None:
    task_ids = [await place.submit() for _ in range(4)]
    stop = asyncio.Event()
    pool = asyncio.create_task(adapter.consumer(slots=2).run(stop))
    await until(lambda: len(api.looks) > 4)
    assert len(api.runs) == 2
    assert [await place.status(task_id) for task_id in task_ids].count(Status.PENDING) == 2
    api.ends_at_once = True
    for job_id in api.runs:
        api.end(job_id)

    async def all_done() -> bool:
        return all([await place.is_done(task_id) for task_id in task_ids])

    await until(all_done)
    stop.set()
    await pool
    assert len(api.runs) == 4
    assert await place.has_no_message()


async def test_nothing_is_received_while_the_upstream_is_not_healthy(
    api: UnifiedApi, place: Workplace, adapter: Adapter, wire: Wire
) -> None:
    api.comfyui_status = "unhealthy"
    api.ends_at_once = True
    task_id = await place.submit()
    stop = asyncio.Event()
    pool = asyncio.create_task(adapter.consumer(slots=1).run(stop))
    await until(lambda: api.healths > 2)
    assert wire.count("ReceiveMessage") == 0

    api.comfyui_status = "healthy"
    await until(lambda: place.is_done(task_id))
    stop.set()
    await pool


async def test_a_blocked_upstream_serves_a_pool_one_by_one(api: UnifiedApi, place: Workplace, adapter: Adapter) -> None:
    api.blocks = True
    task_ids = [await place.submit() for _ in range(3)]
    stop = asyncio.Event()
    pool = asyncio.create_task(adapter.consumer(slots=2).run(stop))
    for number in range(1, 4):
        await until(lambda number=number: len(api.runs) == number)
        await until(lambda: bool(api.looks))
        api.end(api.runs[-1])

    async def all_done() -> bool:
        return all([await place.is_done(task_id) for task_id in task_ids])

    await until(all_done)
    stop.set()
    await pool
    assert [(await place.record(task_id)).attempt for task_id in task_ids] == [1, 1, 1]
    assert len(api.runs) == 3


# telling


async def test_logs_tell_the_story_without_the_body(api: UnifiedApi, place: Workplace, adapter: Adapter) -> None:
    api.ends_at_once = True
    await place.submit()
    with capture_logs() as events:
        await adapter.take_next()
    told = [event["event"] for event in events if event["event"].startswith("task.")]
    assert told == ["task.claimed", "task.submitted", "task.completed"]
    assert PROMPT not in str(events)
