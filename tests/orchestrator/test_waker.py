from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
from structlog.testing import capture_logs

from lib.asyncaws.errors import AuthenticationAwsError
from lib.gputask.gpu import UpstreamHealth, WorkerRecord, instance_key, worker_key
from lib.gputask.record import ErrorCode, Status, TaskRecord
from services.devstack.emulator.faults import Mode
from services.orchestrator.waker import REFUSAL_OF_A_MOMENT_S, Waker
from services.orchestrator.waking import STOPPING_LIMIT_S, backoff_s
from tests.orchestrator.aws_world import AwsWorld, CallsSince, Gpu, eventually

CAPACITY = "InsufficientInstanceCapacity"


def waker_of(world: AwsWorld, gpu: Gpu, *, interval_s: float = 0.05, spacing_s: float = 0.05) -> Waker:
    """A waker that looks without a pause, unless told otherwise."""
    return Waker(
        store=world.tasks, table=world.table, instance=gpu.instance, interval_s=interval_s, spacing_s=spacing_s
    )


@pytest.fixture
def waker(world: AwsWorld, gpu: Gpu) -> Waker:
    return waker_of(world, gpu)


@pytest.fixture
def events() -> Iterator[list[Any]]:
    """What is logged."""
    with capture_logs() as events:
        yield events


@asynccontextmanager
async def looking(waker: Waker) -> AsyncIterator[asyncio.Task[None]]:
    """The waker at work."""
    stop = asyncio.Event()
    running = asyncio.create_task(waker.run(stop))
    try:
        yield running
    finally:
        stop.set()
        async with asyncio.timeout(15):
            await running


async def looks(calls: CallsSince, count: int) -> None:
    """Wait until EC2 has been asked that often."""
    await calls.reach("ec2", "DescribeInstances", count)


async def noted(events: list[Any], name: str, count: int) -> Any:
    """Wait until an event was logged that often; returns the last one."""

    async def is_noted() -> bool:
        return [event["event"] for event in events].count(name) >= count

    await eventually(is_noted)
    return [event for event in events if event["event"] == name][-1]


@pytest.mark.parametrize("status", [Status.PENDING, Status.PROCESSING])
async def test_a_task_in_the_table_wakes_a_stopped_gpu_unasked(
    world: AwsWorld, gpu: Gpu, waker: Waker, status: Status
) -> None:
    # What was accepted before a restart is known from nothing but the table.
    await world.add_task(status=status)
    async with looking(waker):
        await gpu.reach("pending", "running")


async def test_a_nudge_alone_wakes_it_since_the_index_may_not_know_the_task_yet(world: AwsWorld, gpu: Gpu) -> None:
    patient = waker_of(world, gpu, interval_s=300)
    calls = await world.calls()
    async with looking(patient):
        await calls.reach("dynamodb", "Query", 2)
        patient.nudge()
        await gpu.reach("pending", "running")


async def test_many_nudges_make_one_start(world: AwsWorld, gpu: Gpu, waker: Waker) -> None:
    await world.add_task()
    calls = await world.calls()
    async with looking(waker):
        while not await gpu.is_in("running"):
            waker.nudge()
        before = await calls.count("ec2", "DescribeInstances")
        waker.nudge()
        await looks(calls, before + 1)
    assert await calls.count("ec2", "StartInstances") == 1
    assert await gpu.launches() == 1


async def test_however_fast_the_nudges_come_ec2_is_asked_only_so_often(world: AwsWorld, gpu: Gpu) -> None:
    await gpu.start()
    task = await world.add_task()
    calls = await world.calls()
    slow = waker_of(world, gpu, interval_s=600, spacing_s=300)
    async with looking(slow):
        await looks(calls, 1)
        for _ in range(20):
            slow.nudge()
            assert await world.tasks.get(task.task_id)
    assert await calls.count("ec2", "DescribeInstances") == 1


async def test_without_demand_ec2_is_not_asked(world: AwsWorld, gpu: Gpu, waker: Waker) -> None:
    task = await world.add_task()
    await world.tasks.give_up(task.task_id, code=ErrorCode.EXPIRED, message="too old")
    calls = await world.calls()
    async with looking(waker):
        await calls.reach("dynamodb", "Query", 4)
    assert await calls.count("ec2") == 0


async def test_a_nudge_counts_as_demand_once(world: AwsWorld, gpu: Gpu, waker: Waker) -> None:
    await gpu.start()
    calls = await world.calls()
    waker.nudge()
    async with looking(waker):
        await looks(calls, 1)
        await calls.reach("dynamodb", "Query", 4)
    assert await calls.count("ec2", "DescribeInstances") == 1


async def test_a_running_gpu_is_left_alone(world: AwsWorld, gpu: Gpu, waker: Waker) -> None:
    await gpu.start()
    task = await world.add_task()
    calls = await world.calls()
    async with looking(waker):
        await looks(calls, 2)
    assert await calls.count("ec2", "StartInstances") == 0
    assert waker.stage_of(task) == "waiting: GPU is running, its adapter has not reported yet"


async def test_a_stopping_gpu_is_started_once_it_has_stopped(world: AwsWorld, gpu: Gpu, waker: Waker) -> None:
    await gpu.start()
    await gpu.begin_stop()
    task = await world.add_task()
    calls = await world.calls()
    async with looking(waker):
        await looks(calls, 2)
        assert await calls.count("ec2", "StartInstances") == 0
        assert waker.stage_of(task) == "waiting: GPU is stopping, it starts again after that"
        await gpu.halt()
        await gpu.reach("pending", "running")
    assert await gpu.launches() == 2


async def test_a_start_without_capacity_is_tried_again_later_and_later(
    world: AwsWorld, gpu: Gpu, waker: Waker, events: list[Any]
) -> None:
    task = await world.add_task()
    await world.fail("ec2", Mode.ERROR, "StartInstances", code=CAPACITY)
    calls = await world.calls()
    async with looking(waker):
        for refusals in (1, 2):
            event = await noted(events, "instance.start_refused", refusals)
            assert CAPACITY in event["reason"]
            assert (event["refusals"], event["retry_in_s"]) == (refusals, backoff_s(refusals))
            assert waker.stage_of(task) == f"waiting: GPU start refused ({CAPACITY}), trying again"
            world.clock.advance(backoff_s(refusals) - 1)
            await looks(calls, await calls.count("ec2", "DescribeInstances") + 2)
            assert [event["event"] for event in events].count("instance.start_refused") == refusals
            if refusals == 2:
                await world.mend()
            world.clock.advance(1)
        await gpu.reach("pending", "running")
    assert waker.stage_of(task) == "waiting: GPU is starting"


async def test_a_start_that_falls_back_to_stopped_is_tried_again_later_and_later(
    world: AwsWorld, gpu: Gpu, events: list[Any]
) -> None:
    task = await world.add_task()
    waker = waker_of(world, gpu, interval_s=3600)
    async with looking(waker):
        for refusals in (1, 2):
            await noted(events, "instance.start_ordered", refusals)
            # It does not see the machine run, which here it does for a moment.
            await world.fail("ec2", Mode.ERROR, "DescribeInstances")
            await gpu.reach("running")
            await gpu.begin_stop()
            await gpu.halt()
            await world.mend()
            waker.nudge()
            event = await noted(events, "instance.fell_back", refusals)
            assert (event["refusals"], event["retry_in_s"]) == (refusals, backoff_s(refusals))
            assert waker.stage_of(task) == "waiting: GPU start refused (StoppedAgain), trying again"
            assert await gpu.launches() == refusals
            world.clock.advance(backoff_s(refusals))
            waker.nudge()
        await gpu.reach("running")
        waker.nudge()
        await eventually(lambda: is_stage(waker, task, "waiting: GPU is running, its adapter has not reported yet"))


async def is_stage(waker: Waker, task: TaskRecord, stage: str) -> bool:
    return waker.stage_of(task) == stage


@pytest.mark.parametrize("code", ["UnauthorizedOperation", "RequestLimitExceeded", "IncorrectInstanceState"])
async def test_a_refused_start_of_any_kind_is_tried_again(
    world: AwsWorld, gpu: Gpu, waker: Waker, events: list[Any], code: str
) -> None:
    await world.add_task()
    await world.fail("ec2", Mode.ERROR, "StartInstances", code=code)
    async with looking(waker):
        event = await noted(events, "instance.start_refused", 1)
        # What only the operator can mend is an error; what may pass by itself a warning.
        assert event["log_level"] == ("error" if code == "UnauthorizedOperation" else "warning")
        await world.mend()
        world.clock.advance(backoff_s(1))
        await gpu.reach("pending", "running")


async def test_a_hold_is_respected_until_it_is_over(world: AwsWorld, gpu: Gpu, waker: Waker) -> None:
    task = await world.add_task()
    hold = {"hold_until": world.clock.now + 900, "hold_count": 1, "hold_reason": "no worker", "updated_at": 1}
    await world.table.put({"task_id": instance_key(gpu.id), **hold})
    calls = await world.calls()
    async with looking(waker):
        world.clock.advance(899)
        await looks(calls, 2)
        assert await calls.count("ec2", "StartInstances") == 0
        assert waker.stage_of(task) == "waiting: GPU is on hold after a start without a working worker"
        world.clock.advance(1)
        await gpu.reach("pending", "running")


async def test_a_gpu_that_is_gone_is_said_to_be_gone(world: AwsWorld, gpu: Gpu, waker: Waker) -> None:
    task = await world.add_task()
    await gpu.client.terminate_instances(InstanceIds=[gpu.id])
    calls = await world.calls()
    async with looking(waker):
        await looks(calls, 2)
    assert await calls.count("ec2", "StartInstances") == 0
    assert waker.stage_of(task) == "waiting: GPU is terminated for good"


@pytest.mark.parametrize(
    ("service", "action", "code"),
    [
        ("dynamodb", "Query", "AccessDeniedException"),
        ("dynamodb", "GetItem", "ServiceUnavailable"),
        ("ec2", "DescribeInstances", "UnauthorizedOperation"),
        ("ec2", "DescribeInstances", "RequestLimitExceeded"),
    ],
)
async def test_errors_of_aws_do_not_end_the_waker(
    world: AwsWorld, gpu: Gpu, waker: Waker, events: list[Any], service: str, action: str, code: str
) -> None:
    await world.add_task()
    await world.fail(service, Mode.ERROR, action, code=code)
    async with looking(waker) as running:
        event = await noted(events, "waker.look_failed", 1)
        assert code in event["error"]
        assert event["log_level"] == (
            "error" if code in {"AccessDeniedException", "UnauthorizedOperation"} else "warning"
        )
        await world.mend()
        await gpu.reach("pending", "running")
        assert not running.done()


@pytest.mark.parametrize("code", ["VcpuLimitExceeded", "UnauthorizedOperation"])
async def test_a_start_that_only_the_operator_can_cure_is_named(
    world: AwsWorld, gpu: Gpu, waker: Waker, code: str
) -> None:
    await world.add_task()
    await world.fail("ec2", Mode.ERROR, "StartInstances", code=code)
    async with looking(waker):
        await eventually(lambda: is_problem(waker, f"GPU start refused ({code})"))
        await world.mend()
        world.clock.advance(backoff_s(1))
        await gpu.reach("pending", "running")
        await eventually(lambda: is_problem(waker, None))


async def test_a_start_that_may_succeed_later_is_no_problem_for_an_operator(
    world: AwsWorld, gpu: Gpu, waker: Waker, events: list[Any]
) -> None:
    await world.add_task()
    await world.fail("ec2", Mode.ERROR, "StartInstances", code=CAPACITY)
    async with looking(waker):
        await noted(events, "instance.start_refused", 1)
        assert waker.problem is None


async def test_one_start_refused_over_credentials_needs_no_operator_and_three_do(
    world: AwsWorld, gpu: Gpu, waker: Waker, events: list[Any]
) -> None:
    await world.add_task()
    await world.fail("ec2", Mode.ERROR, "StartInstances", code="AuthFailure")
    async with looking(waker):
        for count in (1, 2, 3):
            await noted(events, "instance.start_refused", count)
            assert (waker.problem is not None) is (count == 3)
            world.clock.advance(backoff_s(count))
        await world.mend()
        await gpu.reach("pending", "running")


async def test_a_look_refused_over_credentials_needs_an_operator_when_it_lasts(
    world: AwsWorld, waker: Waker, events: list[Any]
) -> None:
    await world.add_task()
    await world.fail("ec2", Mode.ERROR, "DescribeInstances", code="AuthFailure")
    async with looking(waker) as running:
        await noted(events, "waker.look_failed", 2)
        assert waker.problem is None
        world.clock.advance(REFUSAL_OF_A_MOMENT_S)
        await eventually(lambda: is_problem(waker, "GPU cannot be looked up (AuthFailure), trying again"))
        assert not running.done()
        await world.mend()
        await eventually(lambda: is_problem(waker, None))


async def test_credentials_that_are_refused_for_longer_than_a_renewal_end_the_process(
    world: AwsWorld, waker: Waker, events: list[Any]
) -> None:
    """Static ones have expired: what a new process finds may be better, and /ready would be 503 for ever."""
    await world.fail("dynamodb", Mode.ERROR, "Query", code="ExpiredTokenException")
    running = asyncio.create_task(waker.run(asyncio.Event()))
    await noted(events, "waker.look_failed", 2)
    assert not running.done()
    world.clock.advance(REFUSAL_OF_A_MOMENT_S)
    with pytest.raises(AuthenticationAwsError):
        async with asyncio.timeout(15):
            await running


async def test_credentials_that_are_refused_now_and_then_end_nothing(
    world: AwsWorld, waker: Waker, events: list[Any]
) -> None:
    async with looking(waker) as running:
        for round_ in range(1, 4):
            await world.fail("dynamodb", Mode.ERROR, "Query", code="ExpiredTokenException", times=1)
            await noted(events, "waker.look_failed", round_)
            calls = await world.calls()
            await looks(calls, 1)
            world.clock.advance(REFUSAL_OF_A_MOMENT_S)
        assert not running.done()


async def test_an_instance_that_stops_for_over_ten_minutes_needs_an_operator(
    world: AwsWorld, gpu: Gpu, waker: Waker
) -> None:
    await gpu.start()
    await gpu.begin_stop()
    task = await world.add_task()
    async with looking(waker):
        await eventually(lambda: is_stage(waker, task, "waiting: GPU is stopping, it starts again after that"))
        world.clock.advance(STOPPING_LIMIT_S)
        reason = "GPU has been stopping for more than 10 min"
        await eventually(lambda: is_problem(waker, reason))
        assert waker.stage_of(task) == f"waiting: {reason}"
        await gpu.halt()
        await gpu.reach("pending", "running")
        await eventually(lambda: is_problem(waker, None))


@pytest.mark.parametrize("code", ["UnauthorizedOperation", "InvalidInstanceID.NotFound", "RequestLimitExceeded"])
async def test_a_failed_look_is_a_stage_of_its_own_and_no_line_for_each_try(
    world: AwsWorld, gpu: Gpu, waker: Waker, events: list[Any], code: str
) -> None:
    task = await world.add_task()
    await world.fail("ec2", Mode.ERROR, "DescribeInstances", code=code)
    calls = await world.calls()
    async with looking(waker):
        await looks(calls, 13)
        assert waker.stage_of(task) == f"waiting: GPU cannot be looked up ({code}), trying again"
        operator_helps = code != "RequestLimitExceeded"
        assert (waker.problem is not None) is operator_helps
        assert 2 <= [event["event"] for event in events].count("waker.look_failed") <= 5
        await world.mend()
        await gpu.reach("pending", "running")


async def test_a_missing_permission_shows_at_the_start_and_its_end_without_demand(
    world: AwsWorld, gpu: Gpu, waker: Waker
) -> None:
    await world.fail("ec2", Mode.ERROR, "DescribeInstances", code="UnauthorizedOperation")
    await waker.examine()
    assert waker.problem == "GPU cannot be looked up (UnauthorizedOperation), trying again"
    await world.mend()
    async with looking(waker):
        await eventually(lambda: is_problem(waker, None))
    assert await gpu.launches() == 0


async def test_a_stale_index_wakes_nobody(world: AwsWorld, gpu: Gpu, waker: Waker) -> None:
    task = await world.add_task(expires_at=int(world.clock.now) - 1)  # stays in index and table until TTL gets to it
    calls = await world.calls()
    async with looking(waker):
        await calls.reach("dynamodb", "GetItem", 2)
    assert await calls.count("ec2") == 0
    assert waker.stage_of(task) == "waiting: GPU will be started"


async def test_live_records_that_nobody_can_read_hide_no_task(world: AwsWorld, gpu: Gpu, waker: Waker) -> None:
    for number in range(6):
        await world.add_task(created_at=float(number + 1), expires_at=1)
    await world.add_task()
    async with looking(waker):
        await gpu.reach("pending", "running")


async def test_a_task_waits_in_the_queue_only_while_the_worker_could_take_it(
    world: AwsWorld, gpu: Gpu, waker: Waker
) -> None:
    await gpu.start()
    task = await world.add_task()
    async with looking(waker):
        await eventually(lambda: is_stage(waker, task, "waiting: GPU is running, its adapter has not reported yet"))
        for health, stage in (
            (UpstreamHealth.UNHEALTHY, "waiting: GPU is running, ComfyUI is not ready"),
            (UpstreamHealth.HEALTHY, "waiting: in the queue"),
        ):
            now = world.clock.now
            record = WorkerRecord(instance_id=gpu.id, started_at=now, beat_at=now, upstream=health)
            await world.table.update(worker_key(gpu.id), record.to_change())
            await eventually(partial(is_stage, waker, task, stage))
        world.clock.advance(331)
        await eventually(lambda: is_stage(waker, task, "waiting: GPU is running, its adapter has not reported yet"))


async def is_problem(waker: Waker, problem: str | None) -> bool:
    return waker.problem == problem


async def test_a_nudge_in_the_middle_of_a_look_is_not_lost(world: AwsWorld, gpu: Gpu) -> None:
    await gpu.start()
    await world.add_task()
    patient = waker_of(world, gpu, interval_s=300)
    await world.fail("ec2", Mode.SLOW, "DescribeInstances", delay_s=0.3, times=1)
    calls = await world.calls()
    async with looking(patient):
        await looks(calls, 1)
        patient.nudge()
        await looks(calls, 2)


async def test_what_a_waker_saw_is_forgotten_when_the_demand_is_over(
    world: AwsWorld, gpu: Gpu, waker: Waker, events: list[Any]
) -> None:
    task = await world.add_task()
    await world.fail("ec2", Mode.ERROR, "StartInstances", code=CAPACITY)
    async with looking(waker):
        await noted(events, "instance.start_refused", 1)
        await world.tasks.give_up(task.task_id, code=ErrorCode.EXPIRED, message="too old")
        calls = await world.calls()
        await calls.reach("dynamodb", "Query", 4)
        assert waker.stage_of(task) == "waiting: GPU will be started"
        await world.mend()
        await world.add_task()
        # Without waiting for the end of the old refusal.
        await gpu.reach("pending", "running")


@pytest.mark.parametrize(
    ("status", "stage"),
    [
        (Status.PENDING, "waiting: GPU will be started"),
        (Status.PROCESSING, "running"),
        (Status.COMPLETED, "completed"),
        (Status.FAILED, "failed"),
    ],
)
def test_the_stage_of_a_task_before_the_first_look(status: Status, stage: str) -> None:
    unused: Any = None
    waker = Waker(store=unused, table=unused, instance=unused, interval_s=30)
    task = TaskRecord(task_id="t", status=status, job_type="/", created_at=1.0, updated_at=1.0)
    assert waker.stage_of(task) == stage
