"""The clock-scaled evaluator beside an emulated queue and instance, with a recorder in place of the function."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from services.devstack.alarm import AlarmState
from services.devstack.background import Background
from services.devstack.emulator.client import EmulatorClient
from services.devstack.evaluator import Evaluator
from services.devstack.lambda_function import LambdaError
from services.devstack.resources import Resources
from tests.devstack.emulated import Emulated

SCALE = 3600.0  # an hour in a second
LIMIT_S = 20.0


class Recorder:
    """The function's callers: events as they came."""

    def __init__(self, error: LambdaError | None = None) -> None:
        self.events: list[dict[str, Any]] = []
        self._error = error

    async def invoke(self, event: dict[str, Any]) -> str:
        self.events.append(event)
        if self._error is not None:
            raise self._error
        return "looked"

    @property
    def alarms(self) -> list[dict[str, Any]]:
        return [event for event in self.events if "alarmData" in event]

    @property
    def schedules(self) -> list[dict[str, Any]]:
        return [event for event in self.events if event.get("detail-type") == "Scheduled Event"]

    @property
    def stops(self) -> list[dict[str, Any]]:
        return [event for event in self.events if event.get("source") == "aws.ec2"]


@asynccontextmanager
async def evaluating(
    emulated: Emulated, recorder: Recorder, *, scale: float = SCALE, running: bool = False
) -> AsyncIterator[tuple[Evaluator, Resources]]:
    """An evaluator of a queue and an instance of its own."""
    resources = await asyncio.to_thread(_resources, emulated)
    if running:
        await asyncio.to_thread(emulated.ec2.start_instances, InstanceIds=[resources.instance_id])
        await asyncio.to_thread(emulated.wait_for, resources.instance_id, "running")
    async with EmulatorClient(emulated.endpoint_url) as emulator, Background() as background:
        evaluator = Evaluator(
            emulator=emulator,
            resources=resources,
            invoke=recorder.invoke,
            scale=scale,
        )
        background.start(evaluator.run(), name="evaluator")
        yield evaluator, resources


async def test_every_minute_the_schedule_calls(emulated: Emulated) -> None:
    recorder = Recorder()
    async with evaluating(emulated, recorder) as (evaluator, _resources):
        await _until(lambda: len(recorder.schedules) >= 5)
        assert {event["detail-type"] for event in recorder.schedules} == {"Scheduled Event"}
        await _until(lambda: len(evaluator.invocations) >= 5)
        assert evaluator.invocations[0].result == "looked"


async def test_an_empty_queue_alarms_once(emulated: Emulated) -> None:
    recorder = Recorder()
    async with evaluating(emulated, recorder, running=True) as (evaluator, _resources):
        await _until(lambda: len(recorder.alarms) == 1)
        seen = len(recorder.schedules)
        await _until(lambda: len(recorder.schedules) >= seen + 60)
        assert len(recorder.alarms) == 1
        assert evaluator.alarm.state is AlarmState.ALARM
        assert recorder.alarms[0]["alarmData"]["alarmName"] == "QueueEmptyFor30Min"


async def test_an_empty_queue_is_no_alarm_while_the_instance_is_stopped(emulated: Emulated) -> None:
    recorder = Recorder()
    async with evaluating(emulated, recorder) as (evaluator, _resources):
        await _until(lambda: len(recorder.schedules) >= 60)
        assert (evaluator.alarm.state, recorder.alarms) == (AlarmState.OK, [])


async def test_a_message_that_no_sample_ever_sees_ends_the_alarm(emulated: Emulated) -> None:
    recorder = Recorder()
    async with evaluating(emulated, recorder, running=True) as (evaluator, resources):
        await _until(lambda: evaluator.alarm.state is AlarmState.ALARM)
        await asyncio.to_thread(_send_unseen, emulated, resources.queue_url)
        await _until(lambda: evaluator.alarm.state is AlarmState.OK)
        await _until(lambda: len(recorder.alarms) == 2)


async def test_a_stopped_instance_is_announced(emulated: Emulated) -> None:
    recorder = Recorder()
    async with evaluating(emulated, recorder) as (_evaluator, resources):
        ec2, instance_id = emulated.ec2, resources.instance_id
        await asyncio.to_thread(ec2.start_instances, InstanceIds=[instance_id])
        await asyncio.to_thread(emulated.wait_for, instance_id, "running")
        assert recorder.stops == []
        await asyncio.to_thread(ec2.stop_instances, InstanceIds=[instance_id])
        await _until(lambda: len(recorder.stops) == 1)
        assert recorder.stops[0]["detail"] == {"instance-id": instance_id, "state": "stopped"}


async def test_a_function_that_fails_is_called_again_in_the_next_minute(emulated: Emulated) -> None:
    recorder = Recorder(LambdaError("ClientError", "DynamoDB is down"))
    async with evaluating(emulated, recorder) as (evaluator, _resources):
        await _until(lambda: len(recorder.schedules) >= 3)
        assert evaluator.invocations[0].error == "ClientError: DynamoDB is down"


async def test_a_minute_is_skipped_while_the_last_look_still_runs(emulated: Emulated) -> None:
    let_go = asyncio.Event()
    looks = 0

    class Slow(Recorder):
        async def invoke(self, event: dict[str, Any]) -> str:
            nonlocal looks
            if event.get("detail-type") == "Scheduled Event":
                looks += 1
                await let_go.wait()
            return await super().invoke(event)

    recorder = Slow()
    async with evaluating(emulated, recorder, running=True) as (evaluator, _resources):
        await _until(lambda: evaluator.alarm.state is AlarmState.ALARM)  # thirty minutes have passed
        assert looks == 1
        let_go.set()
        await _until(lambda: looks > 2)


async def test_no_aws_call_is_made_for_the_metrics(emulated: Emulated) -> None:
    recorder = Recorder()
    async with evaluating(emulated, recorder):
        before = await asyncio.to_thread(emulated.ask, "GET", "/devstack/calls")
        seen = len(recorder.schedules)
        await _until(lambda: len(recorder.schedules) >= seen + 10)
        assert await asyncio.to_thread(emulated.ask, "GET", "/devstack/calls") == before


def _resources(emulated: Emulated) -> Resources:
    queue_url = emulated.new_queue()
    return Resources(
        region="us-east-1",
        bucket="unused",
        queue_name=queue_url.rpartition("/")[2],
        queue_url=queue_url,
        dead_letter_queue_name="unused",
        dead_letter_queue_url="unused",
        table="unused",
        instance_id=emulated.new_stopped_instance(),
    )


def _send_unseen(emulated: Emulated, queue_url: str) -> None:
    emulated.sqs.send_message(QueueUrl=queue_url, MessageBody="work", DelaySeconds=900)


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(LIMIT_S):
        while not condition():  # noqa: ASYNC110 (the evaluator announces nothing but its events)
            await asyncio.sleep(0.01)
