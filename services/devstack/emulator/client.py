"""The emulator's control paths for asyncio callers."""

import asyncio
from dataclasses import asdict, dataclass
from types import TracebackType
from typing import Any, Self

import aiohttp

from services.devstack.emulator.faults import Fault, Mode
from services.devstack.emulator.queue_depth import QueueDepth
from services.devstack.power import Interval, State


@dataclass(frozen=True, slots=True)
class InstanceView:
    """An instance's state, the number of transitions it made, and its history, oldest interval first."""

    state: State
    version: int
    intervals: tuple[Interval, ...]


@dataclass(frozen=True, slots=True)
class Calls:
    """Calls since the start, service -> action -> count. S3's actions are HTTP methods."""

    attempted: dict[str, dict[str, int]]
    failed: dict[str, dict[str, int]]

    def count(self, service: str, action: str | None = None) -> int:
        """Calls of one action, or of a whole service."""
        actions = self.attempted.get(service, {})
        return sum(actions.values()) if action is None else actions.get(action, 0)


class EmulatorClient:
    """One connection pool to one emulator; an async context manager."""

    def __init__(self, endpoint_url: str, *, answer_limit_s: float = 10.0) -> None:
        """`answer_limit_s`: how long an answer may take beyond the wait that was asked for; then `TimeoutError`."""
        self._endpoint_url = endpoint_url
        self._answer_limit_s = answer_limit_s
        self._http: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        # Limits are ours: when aiohttp's own total timeout and a cancellation come together, its nested timers can take
        # the cancellation for theirs, and a task that was told to end goes on.
        limits = aiohttp.ClientTimeout(total=None, sock_connect=None)
        self._http = aiohttp.ClientSession(self._endpoint_url, raise_for_status=True, timeout=limits)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._http is not None:
            await self._http.close()

    async def is_healthy(self) -> bool:
        """Whether the emulator answers."""
        try:
            await self._ask("GET", "/devstack/health")
        except (aiohttp.ClientError, TimeoutError):
            return False
        return True

    async def calls(self) -> Calls:
        """The call counters."""
        return Calls(**await self._ask("GET", "/devstack/calls"))

    async def queues(self) -> dict[str, QueueDepth]:
        """Every queue by name."""
        answer = await self._ask("GET", "/devstack/queues")
        return {name: QueueDepth(**depth) for name, depth in answer.items()}

    async def instance(self, instance_id: str, *, after: int = -1, wait_s: float = 0.0) -> InstanceView:
        """The instance as soon as it has a version later than `after`, or as it is when `wait_s` have passed."""
        path = f"/devstack/instances/{instance_id}"
        return _instance(await self._ask("GET", path, wait_s=wait_s, params={"after": after, "wait_s": wait_s}))

    async def report_halted(self, instance_id: str) -> InstanceView:
        """Say that the machine has shut down; ends `stopping`."""
        return _instance(await self._ask("POST", f"/devstack/instances/{instance_id}/halt"))

    async def order(self, fault: Fault) -> None:
        """Put a failure in force."""
        order = {**asdict(fault), "mode": Mode(fault.mode).value}
        await self._ask("POST", "/devstack/faults", json=order)

    async def clear_faults(self, service: str | None = None) -> None:
        """End the failures of a service, or all."""
        await self._ask("DELETE", "/devstack/faults", params={} if service is None else {"service": service})

    async def _ask(self, method: str, path: str, *, wait_s: float = 0.0, **options: Any) -> Any:
        if self._http is None:
            raise RuntimeError("EmulatorClient is an async context manager")
        async with (
            asyncio.timeout(wait_s + self._answer_limit_s),
            self._http.request(method, path, **options) as response,
        ):
            return await response.json()


def _instance(view: dict[str, Any]) -> InstanceView:
    intervals = tuple(Interval(State(i["state"]), i["since_s"], i["until_s"]) for i in view["intervals"])
    return InstanceView(State(view["state"]), view["version"], intervals)
