"""What Terraform makes of queues, table, Lambda and schedule, on a second emulator: there the function really runs.

Applied as far as that emulator goes; most of the time is the provider's own waiting, and the schedule's minute.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from services.devstack.orchestrator_process import OrchestratorProcess
from services.devstack.ports import ReservedPort
from services.devstack.processes import owned_process
from services.devstack.python_module import module_command
from services.devstack.surroundings import surroundings
from tests.ministack import ministack
from tests.system.client import eventually
from tests.terraform.cli import Terraform
from tests.terraform.deployment import adapter_environment, finished, put_picture, submit, upstream_environment
from tests.terraform.world import KEY, KEY_HASH, World, given_world, tfvars

TARGETS = (
    "aws_cloudwatch_event_target.every_minute",
    "aws_lambda_function_event_invoke_config.shutdown",
    "aws_lambda_permission.every_minute",
    "aws_sqs_queue_redrive_allow_policy.dead_letters",
    "aws_ec2_tag.gpu",
)
MINUTE_S = 75.0


@pytest.fixture
def world(terraform: Terraform, tmp_path: Path) -> Iterator[World]:
    with ministack(tmp_path) as endpoint_url:
        world = given_world(endpoint_url, terraform)
        variables = terraform.directory / "terraform.tfvars"
        own = {"lambda_zip": str(terraform.lambda_zip), "table_deletion_protection": False}
        variables.write_text(tfvars({**world.variables, **own}))
        yield world
        for left in (variables, *terraform.directory.glob("*.tfstate*")):
            left.unlink()


@pytest.mark.long(minutes=2)
@pytest.mark.timeout(600)
def test_function_schedule_and_dead_letters_are_really_carried_out(world: World, tmp_path: Path) -> None:
    outputs = world.apply(*(f"-target={target}" for target in TARGETS))
    put_picture(world)
    asyncio.run(tell_the_story(world, outputs, tmp_path))


async def tell_the_story(world: World, outputs: Mapping[str, Any], folder: Path) -> None:
    function = Function(world, outputs["shutdown_function_name"])
    instance_id = outputs["gpu_instance_id"]
    assert function.invoke()["decision"] == "leave"  # it was launched not long ago
    function.shorten_idle_time()
    function.invoke()
    await eventually(lambda: is_in(world, instance_id, "stopped"))

    async with orchestrator(world, folder) as http:
        job_id = await submit(http)
        await eventually(lambda: is_in(world, instance_id, "running"))
        answer = function.invoke()
        assert (answer["decision"], answer["facts"]["waiting"]) == ("leave", 1)
        async with worker(world, outputs, folder):
            assert (await finished(http, job_id))["status"] == "completed"

        dead_id = await submit(http)
        assert receive_too_often(world, outputs["queue_url"]) == dead_id
        # Nobody ever claimed it, so what the queue gave up is sent again.
        async with worker(world, outputs, folder):
            assert (await finished(http, dead_id))["status"] == "completed"

        await eventually(lambda: is_in(world, instance_id, "stopped"), limit_s=MINUTE_S)
        assert ("schedule", "stop") in {(line["trigger"]["kind"], line["decision"]) for line in function.log()}


class Function:
    """The deployed function."""

    def __init__(self, world: World, name: str) -> None:
        self._lambda, self._logs, self._name = world.client("lambda"), world.client("logs"), name

    def invoke(self) -> dict[str, Any]:
        answer = self._lambda.invoke(FunctionName=self._name, Payload=b"{}")
        payload: dict[str, Any] = json.load(answer["Payload"])
        assert "FunctionError" not in answer, payload
        return payload

    def shorten_idle_time(self) -> None:
        """Nobody waits for 30 minutes here."""
        created = self._lambda.get_function_configuration(FunctionName=self._name)["Environment"]["Variables"]
        variables = {**created, "IDLE_S": "1"}
        self._lambda.update_function_configuration(FunctionName=self._name, Environment={"Variables": variables})

    def log(self) -> list[dict[str, Any]]:
        """What it decided, as its log group tells."""
        group = f"/aws/lambda/{self._name}"
        streams = self._logs.describe_log_streams(logGroupName=group)["logStreams"]
        lines = [
            event["message"]
            for stream in streams
            for event in self._logs.get_log_events(logGroupName=group, logStreamName=stream["logStreamName"])["events"]
        ]
        return [json.loads(line) for line in lines if '"shutdown.decided"' in line]


@asynccontextmanager
async def orchestrator(world: World, folder: Path) -> AsyncIterator[aiohttp.ClientSession]:
    """A client of the orchestrator, which has the environment of its task definition."""
    with ReservedPort() as port:
        base_url = f"http://127.0.0.1:{port.number}"
        own = {"HOST": "127.0.0.1", "PORT": str(port.number), "API_KEYS": f"frontend:{KEY_HASH}"}
        process = OrchestratorProcess(
            command=module_command("services.orchestrator"),
            env=surroundings(
                world.endpoint_url,
                {**world.local("orchestrator_environment"), **own, "WAKER_INTERVAL_S": "1", "JANITOR_INTERVAL_S": "1"},
            ),
            base_url=base_url,
            log_path=folder / "orchestrator.log",
            end_limit_s=30.0,
        )
        await process.start()
        try:
            await process.wait_ready()
            async with aiohttp.ClientSession(base_url, headers={"X-API-Key": KEY}) as http:
                yield http
        finally:
            await process.end()


@asynccontextmanager
async def worker(world: World, outputs: Mapping[str, Any], folder: Path) -> AsyncIterator[None]:
    """Adapter and Unified API, as on the GPU instance."""
    async with AsyncExitStack() as exits:
        port = exits.enter_context(ReservedPort())
        for module, own in (
            ("services.devstack.upstream", upstream_environment(port.number, folder)),
            ("services.adapter", adapter_environment(outputs, port.number)),
        ):
            await exits.enter_async_context(
                owned_process(
                    module,
                    module_command(module),
                    env=surroundings(world.endpoint_url, own),
                    log_path=folder / f"{module}.log",
                    end_limit_s=10.0,
                )
            )
        yield


async def is_in(world: World, instance_id: str, state: str) -> bool:
    (reservation,) = world.client("ec2").describe_instances(InstanceIds=[instance_id])["Reservations"]
    return bool(reservation["Instances"][0]["State"]["Name"] == state)


def receive_too_often(world: World, queue_url: str) -> str:
    """Receive the one message and put it back until the queue has enough of it; its task's id.

    Another message of the same task says so as well: the janitor has found the dead letter.
    """
    sqs, found, first = world.client("sqs"), "", ""
    for _ in range(20):
        messages = sqs.receive_message(QueueUrl=queue_url, VisibilityTimeout=0).get("Messages", [])
        if found and (not messages or messages[0]["MessageId"] != first):
            return found
        found, first = json.loads(messages[0]["Body"])["task_id"], messages[0]["MessageId"]
    raise AssertionError("the queue never has enough")
