"""The real services on what Terraform made: each with the environment it was given there, its times shortened."""

from __future__ import annotations

import asyncio
import base64
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from services.devstack.background import Background
from services.devstack.box import GpuBox, UnitFile
from services.devstack.demo.story import SAMPLES
from services.devstack.deployed import Watched, read_wiring
from services.devstack.emulator.client import EmulatorClient
from services.devstack.evaluator import Evaluator
from services.devstack.lambda_function import RETRY_DELAYS_S, LambdaFunction, lambda_function
from services.devstack.orchestrator_process import OrchestratorProcess
from services.devstack.ports import ReservedPort
from services.devstack.power import State
from services.devstack.python_module import module_command
from services.devstack.resources import BUCKET_NAME, Resources
from services.devstack.surroundings import REGION, surroundings
from services.devstack.wiring import Wiring
from services.shutdown.trigger import name_trigger
from tests.system.client import CAMERA, eventually
from tests.terraform.world import KEY, World

SCALE = 240.0  # 30 minutes in 7.5 s
PICTURE = "house-on-a-hill.jpg"
_LIMIT_S = 60.0


@dataclass(slots=True)
class Events:
    """What AWS hands to the function; `lost`: kinds of triggers that get lost on the way there."""

    invoke: Callable[[Any], Awaitable[Any]]
    lost: set[str] = field(default_factory=set)
    answers: list[dict[str, Any]] = field(default_factory=list)

    async def hand_over(self, event: Any) -> Any:
        if name_trigger(event).kind in self.lost:
            return None
        answer = await self.invoke(event)
        self.answers.append(answer)
        return answer

    def stops(self) -> list[tuple[str, str]]:
        """What has called for each stop, and by which rule it was one."""
        return [
            (answer["trigger"]["kind"], answer["rule"]) for answer in self.answers if answer["outcome"] == "stopped"
        ]

    def called_by(self, kind: str) -> list[dict[str, Any]]:
        """The answers to that kind of trigger."""
        return [answer for answer in self.answers if answer["trigger"]["kind"] == kind]


@dataclass(frozen=True, slots=True)
class Deployment:
    """Everything at work.

    Attributes:
        base_url: the orchestrator's.
        function: the Lambda, from the package that was uploaded.
        wiring: alarm and rules as they were created.
    """

    world: World
    outputs: Mapping[str, Any]
    base_url: str
    emulator: EmulatorClient
    http: aiohttp.ClientSession
    function: LambdaFunction
    wiring: Wiring

    @property
    def instance_id(self) -> str:
        return str(self.outputs["gpu_instance_id"])

    @asynccontextmanager
    async def evaluated(self, *, lost: set[str] | None = None) -> AsyncIterator[tuple[Evaluator, Events]]:
        """CloudWatch and EventBridge, doing what they were told by what was created."""
        events = Events(self.function.invoke_asynchronously, lost or set())
        evaluator = Evaluator(
            emulator=self.emulator,
            resources=_resources(self.outputs),
            invoke=events.hand_over,
            scale=SCALE,
            wiring=self.wiring,
        )
        async with Background() as background:
            background.start(evaluator.run(), name="evaluator")
            yield evaluator, events

    def start_by_hand(self) -> None:
        self.world.client("ec2").start_instances(InstanceIds=[self.instance_id])

    def stop_by_hand(self) -> None:
        self.world.client("ec2").stop_instances(InstanceIds=[self.instance_id])

    async def reaches(self, state: State) -> None:
        """Wait until the instance is in that state."""
        async with asyncio.timeout(_LIMIT_S):
            view = await self.emulator.instance(self.instance_id)
            while view.state is not state:
                view = await self.emulator.instance(self.instance_id, after=view.version, wait_s=_LIMIT_S)

    async def state(self) -> State:
        return (await self.emulator.instance(self.instance_id)).state


@asynccontextmanager
async def deployed(world: World, outputs: Mapping[str, Any], folder: Path) -> AsyncIterator[Deployment]:
    """The orchestrator serving, the Lambda warm, and adapter and Unified API on the GPU instance whenever it runs."""
    put_picture(world)
    async with AsyncExitStack() as exits:
        port = exits.enter_context(ReservedPort())
        upstream_port = exits.enter_context(ReservedPort())
        base_url = f"http://127.0.0.1:{port.number}"
        orchestrator = OrchestratorProcess(
            command=module_command("services.orchestrator"),
            env=surroundings(world.endpoint_url, {**orchestrator_environment(world), "PORT": str(port.number)}),
            base_url=base_url,
            log_path=folder / "orchestrator.log",
            end_limit_s=30.0,
        )
        exits.push_async_callback(orchestrator.end)
        await orchestrator.start()
        function = await exits.enter_async_context(lambda_function(_function(world, outputs, folder)))
        emulator = await exits.enter_async_context(EmulatorClient(world.endpoint_url))
        box = GpuBox(
            emulator=emulator,
            instance_id=str(outputs["gpu_instance_id"]),
            boot_s=0.5,
            units=_units(world, outputs, upstream_port.number, folder),
            log_dir=folder,
        )
        background = await exits.enter_async_context(Background())
        background.start(box.run(), name="box")
        await orchestrator.wait_ready()
        headers = {"X-API-Key": KEY}
        http = await exits.enter_async_context(aiohttp.ClientSession(base_url, headers=headers))
        wiring = await asyncio.to_thread(_wiring, world, outputs)
        yield Deployment(world, outputs, base_url, emulator, http, function, wiring)


def orchestrator_environment(world: World) -> dict[str, str]:
    """That of the task definition, with its secret."""
    ecs = world.client("ecs")
    (definition,) = ecs.list_task_definitions(familyPrefix="gpu-orchestrator")["taskDefinitionArns"]
    (container,) = ecs.describe_task_definition(taskDefinition=definition)["taskDefinition"]["containerDefinitions"]
    environment = {variable["name"]: variable["value"] for variable in container["environment"]}
    for secret in container["secrets"]:
        name = secret["valueFrom"].partition(":parameter")[2]
        parameter = world.client("ssm").get_parameter(Name=name, WithDecryption=True)["Parameter"]
        environment[secret["name"]] = parameter["Value"]
    return {**environment, "HOST": "127.0.0.1", "WAKER_INTERVAL_S": "1", "JANITOR_INTERVAL_S": "1"}


async def submit(http: aiohttp.ClientSession, prompt: str = "from above") -> str:
    """The id of an accepted job; a busy machine may be too slow for the promised second, and says so."""
    body = {"image_url": f"s3://{BUCKET_NAME}/{PICTURE}", "prompt": prompt, "steps": 1}

    async def accepted() -> str | None:
        async with http.post(CAMERA, json=body) as answer:
            assert answer.status in (202, 503), await answer.text()
            return str((await answer.json())["job_id"]) if answer.status == 202 else None

    return await eventually(accepted)


async def finished(http: aiohttp.ClientSession, job_id: str) -> dict[str, Any]:
    """The job, once it is completed or failed."""

    async def ended() -> dict[str, Any] | None:
        async with http.get(f"/api/v1/jobs/{job_id}") as answer:
            job: dict[str, Any] = await answer.json()
        return job if job.get("status") in ("completed", "failed") else None

    return await eventually(ended)


def upstream_environment(port: int, folder: Path) -> dict[str, str]:
    """For the stand-in Unified API."""
    return {
        "PORT": str(port),
        "RESULT_BUCKET": BUCKET_NAME,
        "STEP_S": "0.1",
        "HANG_ON": "hang",
        "RUN_LOG": str(folder / "runs.jsonl"),
    }


def adapter_environment(outputs: Mapping[str, Any], upstream_port: int) -> dict[str, str]:
    """That of the environment file in Terraform's outputs."""
    return {
        **dict(line.split("=", 1) for line in outputs["adapter_environment"].splitlines()),
        "COMFYUI_API_URL": f"http://127.0.0.1:{upstream_port}",
        "RECEIVE_WAIT_S": "1",
        "HEALTH_INTERVAL_S": "0.5",
        "DRAIN_S": "1",
    }


def put_picture(world: World) -> None:
    """The bucket with one picture, where jobs fetch it."""
    s3 = world.client("s3")
    s3.create_bucket(Bucket=BUCKET_NAME)
    s3.upload_file(str(SAMPLES / PICTURE), BUCKET_NAME, PICTURE)


def _units(world: World, outputs: Mapping[str, Any], upstream_port: int, folder: Path) -> list[UnitFile]:
    return [
        UnitFile(name, module_command(module), env=surroundings(world.endpoint_url, env), stop_limit_s=5.0)
        for name, module, env in (
            ("upstream", "services.devstack.upstream", upstream_environment(upstream_port, folder)),
            ("adapter", "services.adapter", adapter_environment(outputs, upstream_port)),
        )
    ]


def _function(world: World, outputs: Mapping[str, Any], folder: Path) -> LambdaFunction:
    package = world.terraform.lambda_zip
    created = world.client("lambda").get_function_configuration(FunctionName=outputs["shutdown_function_name"])
    assert base64.b64decode(created["CodeSha256"]) == hashlib.sha256(package.read_bytes()).digest()
    variables = created["Environment"]["Variables"]
    return LambdaFunction(
        created["Handler"],
        package=package,
        env=surroundings(
            world.endpoint_url,
            {
                **variables,
                "IDLE_S": f"{float(variables['IDLE_S']) / SCALE:g}",
                # However fast the clock runs, a busy machine takes its seconds to start two processes.
                "WORKER_GRACE_S": "40",
            },
        ),
        log_path=folder / "lambda.log",
        timeout_s=created["Timeout"],
        retry_delays_s=[delay_s / SCALE for delay_s in RETRY_DELAYS_S],
    )


def _wiring(world: World, outputs: Mapping[str, Any]) -> Wiring:
    return read_wiring(
        world.client("cloudwatch"),
        world.client("events"),
        world.client("lambda"),
        alarm=outputs["idle_alarm_name"],
        function=outputs["shutdown_function_name"],
        watched=Watched(_resources(outputs).queue_name, outputs["gpu_instance_id"]),
    )


def _resources(outputs: Mapping[str, Any]) -> Resources:
    return Resources(
        region=REGION,
        bucket=BUCKET_NAME,
        queue_name=outputs["queue_url"].rpartition("/")[2],
        queue_url=outputs["queue_url"],
        dead_letter_queue_name=outputs["dead_letter_queue_url"].rpartition("/")[2],
        dead_letter_queue_url=outputs["dead_letter_queue_url"],
        table=outputs["table_name"],
        instance_id=outputs["gpu_instance_id"],
    )
