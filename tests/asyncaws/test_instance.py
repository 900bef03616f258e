from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest
from aiohttp import web

from lib.asyncaws.errors import PermanentAwsError, TransientAwsError
from lib.asyncaws.instance import Instance, InstanceState, own_instance_id
from lib.asyncaws.session import BACKGROUND, AwsSession, CallPolicy
from tests.asyncaws.unreliable import Refusal, unreliable_aws
from tests.conftest import REGION

pytestmark = pytest.mark.emulators("moto", "ministack")

ONCE = CallPolicy(total_s=60.0, read_timeout_s=30.0)
IDENTITY = "i-0fedcba9876543210"


@pytest.fixture
async def instance(aws: AwsSession) -> Instance:
    client = await aws.ec2(BACKGROUND)
    answer = await client.run_instances(ImageId="ami-12c6146b", MinCount=1, MaxCount=1)
    return Instance(client, answer["Instances"][0]["InstanceId"], BACKGROUND)


async def test_an_instance_tells_its_state(instance: Instance) -> None:
    assert await instance.state() is InstanceState.RUNNING
    await instance.client.stop_instances(InstanceIds=[instance.id])
    assert await instance.state() is InstanceState.STOPPED


async def test_a_stopped_instance_is_started(instance: Instance) -> None:
    await instance.client.stop_instances(InstanceIds=[instance.id])
    await instance.start()
    assert await instance.state() is InstanceState.RUNNING


async def test_starting_a_running_instance_changes_nothing(instance: Instance) -> None:
    await instance.start()
    assert await instance.state() is InstanceState.RUNNING


async def test_an_instance_that_does_not_exist_is_a_permanent_error(aws: AwsSession) -> None:
    nobody = Instance(await aws.ec2(BACKGROUND), "i-00000000000000000", BACKGROUND)
    with pytest.raises(PermanentAwsError) as failure:
        await nobody.state()
    assert failure.value.code == "InvalidInstanceID.NotFound"
    with pytest.raises(PermanentAwsError):
        await nobody.start()


@pytest.mark.parametrize(
    ("refusal", "kind"),
    [
        (Refusal(500, "InsufficientInstanceCapacity"), TransientAwsError),
        (Refusal(400, "IncorrectInstanceState"), TransientAwsError),
        (Refusal(503, "RequestLimitExceeded"), TransientAwsError),
        (Refusal(403, "UnauthorizedOperation"), PermanentAwsError),
    ],
    ids=lambda value: value.code if isinstance(value, Refusal) else "",
)
async def test_a_start_that_ec2_refuses_says_whether_it_may_later(
    aws_endpoint: str, aws_environment: None, refusal: Refusal, kind: type[Exception]
) -> None:
    async with unreliable_aws(aws_endpoint, refusal) as wire, AwsSession(region=REGION, endpoint_url=wire.url) as aws:
        with pytest.raises(kind) as failure:
            await Instance(await aws.ec2(ONCE), IDENTITY, ONCE).start()
        assert type(failure.value) is kind
        assert refusal.code in str(failure.value)
        assert wire.calls == ["StartInstances"]


async def test_an_answer_without_the_instance_means_there_is_none(aws_environment: None) -> None:
    """Describe lags: an instance may be missing from an answer that is otherwise right."""

    async def describe(request: web.Request) -> web.Response:
        reservations = "<reservationSet><item><reservationId>r-1</reservationId></item></reservationSet>"
        text = f"<DescribeInstancesResponse><requestId>1</requestId>{reservations}</DescribeInstancesResponse>"
        return web.Response(text=text, content_type="text/xml")

    app = web.Application()
    app.router.add_post("/", describe)
    async with serving(app) as url, AwsSession(region=REGION, endpoint_url=url) as aws:
        with pytest.raises(PermanentAwsError) as failure:
            await Instance(await aws.ec2(ONCE), IDENTITY, ONCE).state()
    assert failure.value.code == "InvalidInstanceID.NotFound"


class MetadataService:
    """IMDSv2: https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/instancedata-data-retrieval.html."""

    def __init__(self, *, failures: int = 0) -> None:
        self.failures = failures
        self.asked = 0

    async def give_token(self, request: web.Request) -> web.Response:
        self.asked += 1
        if self.asked <= self.failures:
            raise web.HTTPServiceUnavailable
        if "X-aws-ec2-metadata-token-ttl-seconds" not in request.headers:
            raise web.HTTPBadRequest
        return web.Response(text="the-token")

    async def give_id(self, request: web.Request) -> web.Response:
        if request.headers.get("X-aws-ec2-metadata-token") != "the-token":
            raise web.HTTPUnauthorized
        return web.Response(text=IDENTITY)

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_put("/latest/api/token", self.give_token)
        app.router.add_get("/latest/meta-data/instance-id", self.give_id)
        return app


@asynccontextmanager
async def serving(app: web.Application) -> AsyncIterator[str]:
    runner = web.AppRunner(app, shutdown_timeout=0, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0][:2]
        yield f"http://{host}:{port}"
    finally:
        await runner.cleanup()


@pytest.mark.parametrize("failures", [0, 2])
async def test_an_instance_learns_who_it_is_even_from_a_service_that_is_late(
    monkeypatch: pytest.MonkeyPatch, failures: int
) -> None:
    service = MetadataService(failures=failures)
    async with serving(service.app()) as url:
        monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", f"{url}/")
        assert await own_instance_id() == IDENTITY
    assert service.asked == failures + 1


async def test_what_runs_elsewhere_learns_that_nobody_knows_it(monkeypatch: pytest.MonkeyPatch) -> None:
    service = MetadataService(failures=1_000)
    async with serving(service.app()) as url:
        monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", url)
        with pytest.raises(TransientAwsError) as failure:
            await own_instance_id()
    assert failure.value.operation == "InstanceMetadata"
    assert isinstance(failure.value.__cause__, aiohttp.ClientResponseError)
    assert service.asked == 5
