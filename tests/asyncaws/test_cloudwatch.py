from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from lib.asyncaws.cloudwatch import CloudWatch
from lib.asyncaws.errors import PermanentAwsError, TransientAwsError
from lib.asyncaws.metrics import Kind, Metric, Series, Unit
from lib.asyncaws.session import METERING, AwsSession, CallPolicy
from tests.asyncaws.unreliable import Fate, Refusal, unreliable_aws
from tests.conftest import REGION

if TYPE_CHECKING:
    from types_aiobotocore_cloudwatch import CloudWatchClient
    from types_aiobotocore_cloudwatch.type_defs import DatapointTypeDef

DONE = Metric("Done", Unit.COUNT, Kind.SUM)
TIME = Metric("Time", Unit.SECONDS, Kind.EACH)


@pytest.fixture
async def client(aws: AwsSession) -> CloudWatchClient:
    return await aws.cloudwatch(METERING)


@pytest.fixture
def namespace() -> str:
    return f"test-{uuid.uuid4()}"


@pytest.fixture
def cloudwatch(client: CloudWatchClient, namespace: str) -> CloudWatch:
    return CloudWatch(client, namespace=namespace, policy=METERING)


async def statistics(client: CloudWatchClient, namespace: str, metric: Metric) -> DatapointTypeDef:
    """Of everything that was ever published of it."""
    now = datetime.now(UTC)
    answer = await client.get_metric_statistics(
        Namespace=namespace,
        MetricName=metric.name,
        Dimensions=[{"Name": name, "Value": value} for name, value in metric.dimensions],
        StartTime=now - timedelta(hours=1),
        EndTime=now + timedelta(hours=1),
        Period=86_400,
        Statistics=["Sum", "SampleCount", "Minimum", "Maximum"],
    )
    (point,) = answer["Datapoints"]
    return point


async def test_what_is_published_can_be_read(client: CloudWatchClient, cloudwatch: CloudWatch, namespace: str) -> None:
    await cloudwatch.publish([Series(DONE, {5: 1})])
    await cloudwatch.publish([Series(DONE, {3: 1})])
    done = await statistics(client, namespace, DONE)
    assert (done["Sum"], done["SampleCount"], done["Unit"]) == (8, 2, "Count")


async def test_each_cause_is_a_metric_of_its_own(
    client: CloudWatchClient, cloudwatch: CloudWatch, namespace: str
) -> None:
    await cloudwatch.publish(
        [Series(DONE, {3: 1}), *(Series(DONE.by(Cause=c), {n: 1}) for c, n in (("a", 1), ("b", 2)))]
    )
    assert (await statistics(client, namespace, DONE.by(Cause="a")))["Sum"] == 1
    assert (await statistics(client, namespace, DONE.by(Cause="b")))["Sum"] == 2
    listed = (await client.list_metrics(Namespace=namespace))["Metrics"]
    assert [(metric["MetricName"], metric["Dimensions"]) for metric in listed] == [
        ("Done", []),
        ("Done", [{"Name": "Cause", "Value": "a"}]),
        ("Done", [{"Name": "Cause", "Value": "b"}]),
    ]


async def test_times_keep_their_distribution(client: CloudWatchClient, cloudwatch: CloudWatch, namespace: str) -> None:
    await cloudwatch.publish([Series(TIME, {0.5: 3, 20.0: 1})])
    times = await statistics(client, namespace, TIME)
    assert (times["SampleCount"], times["Sum"], times["Minimum"], times["Maximum"]) == (4, 21.5, 0.5, 20.0)
    assert times["Unit"] == "Seconds"


@pytest.mark.parametrize("number", [1, 150, 151, 1000])
async def test_more_than_150_values_are_published_in_parts(
    client: CloudWatchClient, cloudwatch: CloudWatch, namespace: str, number: int
) -> None:
    await cloudwatch.publish([Series(TIME, {float(value): 2 for value in range(number)})])
    times = await statistics(client, namespace, TIME)
    assert (times["SampleCount"], times["Sum"]) == (2 * number, number * (number - 1))


async def test_no_part_has_more_than_150(aws_endpoint: str, aws_environment: None) -> None:
    """moto takes any number."""
    async with unreliable_aws(aws_endpoint) as wire, AwsSession(region=REGION, endpoint_url=wire.url) as session:
        cloudwatch = CloudWatch(await session.cloudwatch(METERING), namespace="test", policy=METERING)
        await cloudwatch.publish([Series(TIME, {float(value): 2 for value in range(400)})])
        (sent,) = wire.bodies
    assert [len(datum["Values"]) for datum in sent["MetricData"]] == [150, 150, 100]
    assert [datum["Counts"] for datum in sent["MetricData"]] == [[2] * 150, [2] * 150, [2] * 100]


async def test_a_refusal_is_permanent_and_a_silence_is_not(aws_endpoint: str, aws_environment: None) -> None:
    async with unreliable_aws(aws_endpoint) as wire, AwsSession(region=REGION, endpoint_url=wire.url) as session:
        impatient = CallPolicy(total_s=0.5, read_timeout_s=0.5)
        patient = CallPolicy(total_s=30.0, read_timeout_s=30.0)  # as long as a busy machine may need to answer
        wire.fates.extend([Refusal(403, "AccessDenied"), Fate.LEFT_HANGING, Fate.RESET])
        outcomes = ((patient, PermanentAwsError), (impatient, TransientAwsError), (patient, TransientAwsError))
        for policy, error in outcomes:
            with pytest.raises(error):
                await publish_one(session, policy)
        await publish_one(session, patient)
        assert wire.calls == ["PutMetricData"] * 4


async def publish_one(session: AwsSession, policy: CallPolicy) -> None:
    cloudwatch = CloudWatch(await session.cloudwatch(policy), namespace="test", policy=policy)
    await cloudwatch.publish([Series(DONE, {1: 1})])


def test_nothing_is_repeated_within_the_minute() -> None:
    """What failed goes with the next; repeated by the SDK as well, it would count more often than twice."""
    assert METERING.sdk_attempts == METERING.attempts == 1
