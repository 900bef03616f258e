"""The whole system, running: emulated AWS, the orchestrator, the shutdown Lambda, a GPU box with adapter and upstream.

    async with Stack(StackOptions(scale=120)) as stack:
        ...  # talk to stack.base_url

Every process is a child of this one and dies with it; leaving the block leaves no process and no open port.
"""

import asyncio
import signal
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import structlog

from services.devstack.background import Background
from services.devstack.billing import running_s
from services.devstack.box import GpuBox, Unit, UnitFile
from services.devstack.emulator.client import Calls, EmulatorClient, InstanceView
from services.devstack.emulator.faults import Fault, Mode
from services.devstack.emulator.queue_depth import QueueDepth
from services.devstack.environments import (
    ADAPTER_DRAIN_S,
    ORCHESTRATOR_DRAIN_S,
    RECEIVE_WAIT_S,
    Plan,
    adapter_environment,
    doctor_environment,
    lambda_environment,
    orchestrator_environment,
    upstream_environment,
)
from services.devstack.evaluator import Evaluator
from services.devstack.lambda_function import RETRY_DELAYS_S, LambdaFunction, lambda_function
from services.devstack.options import StackOptions
from services.devstack.orchestrator_process import OrchestratorProcess
from services.devstack.path_unit import RestartPath
from services.devstack.ports import ReservedPort
from services.devstack.power import State
from services.devstack.processes import owned_process
from services.devstack.python_module import module_command
from services.devstack.resources import Resources, create_resources
from services.devstack.surroundings import surroundings

log = structlog.stdlib.get_logger(__name__)

_READY_LIMIT_S = 60.0
_END_LIMIT_S = 5.0
_RESTART_LIMIT_S = 1.0


class Stack:
    """One running system. Several may run side by side: ports, folders and emulators are its own."""

    plan: Plan
    emulator: EmulatorClient
    orchestrator: OrchestratorProcess
    evaluator: Evaluator
    box: GpuBox
    shutdown: LambdaFunction
    restart_path: RestartPath

    def __init__(self, options: StackOptions | None = None) -> None:
        self.options = options or StackOptions()
        self._exits = AsyncExitStack()
        self.endpoint_url = ""

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as exits:
            await self._start(exits)
            self._exits = exits.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._exits.__aexit__(kind, error, trace)

    @property
    def base_url(self) -> str:
        """The orchestrator's."""
        return f"http://127.0.0.1:{self.plan.orchestrator_port}"

    @property
    def resources(self) -> Resources:
        return self.plan.resources

    @property
    def log_dir(self) -> Path:
        return self.plan.log_dir

    @property
    def adapter(self) -> Unit:
        return self.box.units["adapter"]

    @property
    def upstream(self) -> Unit:
        return self.box.units["upstream"]

    def doctor_environment(self) -> dict[str, str]:
        """What `services.doctor` has to be told."""
        return doctor_environment(self.plan, self.endpoint_url)

    async def instance(self) -> InstanceView:
        """The instance's state and history, without an AWS call."""
        return await self.emulator.instance(self.resources.instance_id)

    async def instance_state(self) -> State:
        return (await self.instance()).state

    async def wait_for_instance(self, state: State, *, limit_s: float) -> InstanceView:
        """The instance once it is in `state`.

        Raises:
            TimeoutError: it was not within `limit_s`.
        """
        async with asyncio.timeout(limit_s):
            view = await self.instance()
            while view.state is not state:
                view = await self.emulator.instance(self.resources.instance_id, after=view.version, wait_s=limit_s)
        return view

    async def gpu_seconds(self) -> float:
        """Real seconds in `running` so far."""
        return running_s((await self.instance()).intervals, now_s=time.time())

    async def calls(self) -> Calls:
        """AWS calls so far, by service and action."""
        return await self.emulator.calls()

    async def queues(self) -> dict[str, QueueDepth]:
        """Depth of queue and dead letter queue by name, without an AWS call."""
        return await self.emulator.queues()

    async def refuse(self, action: str, code: str, *, times: int | None = None, service: str = "ec2") -> None:
        """Have AWS answer `action` with the error `code`: the next `times` calls, or until `heal`."""
        await self.emulator.order(Fault(service=service, mode=Mode.ERROR, action=action, code=code, times=times))

    async def fail(
        self,
        service: str,
        mode: Mode | str,
        *,
        action: str | None = None,
        times: int | None = None,
        seconds: float | None = None,
        delay_s: float = 0.0,
    ) -> None:
        """Break "dynamodb", "sqs", "ec2" or "s3" as `Mode` says, until `times`, `seconds` or `heal` end it."""
        await self.emulator.order(
            Fault(service=service, mode=Mode(mode), action=action, times=times, seconds=seconds, delay_s=delay_s)
        )

    async def heal(self, service: str | None = None) -> None:
        """End what `refuse` and `fail` ordered; calls that hang are answered now."""
        await self.emulator.clear_faults(service)

    def kill_adapter(self, number: signal.Signals = signal.SIGKILL) -> int:
        """Send a signal to the adapter; the box starts it again when it ends. Returns the process id.

        Raises:
            ProcessLookupError: it does not run.
        """
        return self.adapter.send(number)

    def kill_upstream(self, number: signal.Signals = signal.SIGKILL) -> int:
        """The same for the stand-in Unified API."""
        return self.upstream.send(number)

    async def kill_orchestrator(self, number: signal.Signals = signal.SIGKILL) -> int:
        """Send a signal to the orchestrator and wait for its end. Returns the exit code. Nobody starts it again.

        Raises:
            ProcessLookupError: it does not run.
        """
        return await self.orchestrator.kill(number)

    async def restart_orchestrator(self) -> None:
        """End the orchestrator if it runs, start a new one on the same port, and wait until it serves."""
        await self.orchestrator.end()
        await self.orchestrator.start()
        await self.orchestrator.wait_ready()

    async def invoke_shutdown(self, event: Any = None) -> Any:
        """Invoke the shutdown Lambda once, synchronously, as a test event would.

        Raises:
            LambdaError: it raised.
        """
        return await self.shutdown.invoke({} if event is None else event)

    async def _start(self, exits: AsyncExitStack) -> None:
        log_dir = self.options.log_dir or Path(exits.enter_context(tempfile.TemporaryDirectory(prefix="devstack-")))
        log_dir.mkdir(parents=True, exist_ok=True)
        await self._start_emulator(exits, log_dir)
        self.plan = Plan(
            options=self.options,
            resources=await asyncio.to_thread(
                create_resources,
                self.endpoint_url,
                visibility_s=self.options.visibility_s,
                max_receive_count=self.options.max_receive_count,
            ),
            orchestrator_port=exits.enter_context(ReservedPort(self.options.port)).number,
            upstream_port=exits.enter_context(ReservedPort()).number,
            comfyui_port=exits.enter_context(ReservedPort()).number,
            log_dir=log_dir,
        )
        await self._start_orchestrator(exits)
        await self._warm_lambda(exits)
        await self.orchestrator.wait_ready()
        await self._start_background(exits)
        log.info("devstack.started", base_url=self.base_url, endpoint_url=self.endpoint_url, log_dir=str(log_dir))

    async def _start_emulator(self, exits: AsyncExitStack, log_dir: Path) -> None:
        port = exits.enter_context(ReservedPort()).number
        self.endpoint_url = f"http://127.0.0.1:{port}"
        command = module_command(
            "services.devstack.emulator",
            f"--port={port}",
            f"--pending-s={self.options.pending_s}",
            f"--power-cut-s={self.options.power_cut_s}",
        )
        process = await exits.enter_async_context(
            owned_process(
                "emulator",
                command,
                env=surroundings(self.endpoint_url),
                log_path=log_dir / "emulator.log",
                end_limit_s=_END_LIMIT_S,
            )
        )
        self.emulator = await exits.enter_async_context(EmulatorClient(self.endpoint_url))
        await process.wait_ready(self.emulator.is_healthy, limit_s=_READY_LIMIT_S)

    async def _start_orchestrator(self, exits: AsyncExitStack) -> None:
        self.orchestrator = OrchestratorProcess(
            command=self.options.orchestrator_command,
            env=surroundings(self.endpoint_url, orchestrator_environment(self.plan)),
            base_url=self.base_url,
            log_path=self.log_dir / "orchestrator.log",
            end_limit_s=ORCHESTRATOR_DRAIN_S + _END_LIMIT_S,
        )
        exits.push_async_callback(self.orchestrator.end)
        await self.orchestrator.start()

    async def _warm_lambda(self, exits: AsyncExitStack) -> None:
        function = LambdaFunction(
            self.options.lambda_handler,
            env=surroundings(self.endpoint_url, lambda_environment(self.plan)),
            log_path=self.log_dir / "lambda.log",
            retry_delays_s=[delay_s / self.options.scale for delay_s in RETRY_DELAYS_S],
        )
        self.shutdown = await exits.enter_async_context(lambda_function(function))

    async def _start_background(self, exits: AsyncExitStack) -> None:
        self.evaluator = Evaluator(
            emulator=self.emulator,
            resources=self.resources,
            invoke=self.shutdown.invoke_asynchronously,
            scale=self.options.scale,
        )
        self.box = GpuBox(
            emulator=self.emulator,
            instance_id=self.resources.instance_id,
            boot_s=self.options.boot_s,
            units=self._unit_files(),
            log_dir=self.log_dir,
        )
        background = await exits.enter_async_context(Background())
        background.start(self.box.run(), name="devstack.box")
        background.start(self.evaluator.run(), name="devstack.evaluator")
        self.restart_path = RestartPath(self.plan.restart_file, self.upstream, stop_limit_s=_RESTART_LIMIT_S)
        background.start(self.restart_path.run(), name="devstack.restart_path")

    def _unit_files(self) -> list[UnitFile]:
        return [
            UnitFile(
                "upstream",
                self.options.upstream_command,
                env=surroundings(self.endpoint_url, upstream_environment(self.plan)),
                stop_limit_s=_END_LIMIT_S,
            ),
            UnitFile(
                "adapter",
                self.options.adapter_command,
                env=surroundings(self.endpoint_url, adapter_environment(self.plan)),
                stop_limit_s=RECEIVE_WAIT_S + ADAPTER_DRAIN_S + _END_LIMIT_S,
            ),
        ]
