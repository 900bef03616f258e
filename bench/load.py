"""Load on a server: closed loop (clients that wait for their answer) and open loop (arrivals that wait for nobody)."""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Container
from contextlib import AsyncExitStack

from bench.consumption import cpu_s
from bench.figures import Sample
from bench.http_client import Client

# One round of what a client does, e.g. a POST, or two calls to AWS in a row; returns the (last) HTTP status.
Step = Callable[[Client], Awaitable[int]]

_WARM_UP_SHARE = 0.25
_PATIENCE_S = 30.0
_END_S = 2.0
_NO_ANSWER = 0


class _Record:
    """Collects what ends while it is open: every status, and the latencies of the wanted ones.

    Attributes:
        has_some: set at the first latency.
    """

    def __init__(self, wanted: Container[int] | None) -> None:
        self.is_open = False
        self.has_some = asyncio.Event()
        self._wanted = wanted
        self.latencies_s: list[float] = []
        self.statuses: Counter[int] = Counter()

    def note(self, latency_s: float, status: int) -> None:
        if not self.is_open:
            return
        self.statuses[status] += 1
        if self._wanted is None or status in self._wanted:
            self.latencies_s.append(latency_s)
            self.has_some.set()


class _Meter:
    """Time and CPU since it was made."""

    def __init__(self, pid: int | None) -> None:
        self._pid = pid
        self._started_s = time.perf_counter()
        self._used_s = cpu_s(pid) if pid else 0.0

    def sample(self, record: _Record) -> Sample:
        return Sample(
            latencies_s=record.latencies_s,
            elapsed_s=time.perf_counter() - self._started_s,
            statuses=record.statuses,
            cpu_s=cpu_s(self._pid) - self._used_s if self._pid else None,
        )


async def closed_loop(
    step: Step,
    *,
    port: int,
    clients: int,
    seconds: float,
    pid: int | None = None,
    wanted: Container[int] | None = None,
) -> Sample:
    """`clients` repeat `step` without a pause; what ends in a window of `seconds` counts, after some warming up.

    The window stays open until at least one has ended.

    Args:
        pid: whose CPU time is measured.
        wanted: whose latencies count; None: all.
    """
    record, stop = _Record(wanted), asyncio.Event()
    async with AsyncExitStack() as open_clients:
        connected = [await open_clients.enter_async_context(Client(port)) for _ in range(clients)]
        repeating = [asyncio.create_task(_repeat(step, client, record, stop)) for client in connected]
        try:
            await asyncio.sleep(seconds * _WARM_UP_SHARE)
            sample = await _open_window(record, seconds, pid)
        finally:
            stop.set()
            await _end(repeating)
    return sample


async def _end(repeating: list[asyncio.Task[None]]) -> None:
    """Those under way may end; those that were told to come back much later are not waited for."""
    _, late = await asyncio.wait(repeating, timeout=_END_S)
    for each in late:
        each.cancel()
    await asyncio.gather(*late, return_exceptions=True)
    for each in repeating:
        if not each.cancelled():
            each.result()


async def _open_window(record: _Record, seconds: float, pid: int | None) -> Sample:
    meter = _Meter(pid)
    record.is_open = True
    await asyncio.sleep(seconds)
    await record.has_some.wait()
    record.is_open = False
    return meter.sample(record)


async def _repeat(step: Step, client: Client, record: _Record, stop: asyncio.Event) -> None:
    while not stop.is_set():
        asked = time.perf_counter()
        status = await _attempt(step, client)
        record.note(time.perf_counter() - asked, status)


async def open_loop(
    step: Step, *, port: int, rate: float, count: int, connections: int = 0, pid: int | None = None
) -> Sample:
    """`count` arrivals, evenly spaced, `rate` a second; latency counts from the moment each was due.

    Args:
        connections: how many take turns; 0: as many as are needed at once.
        pid: whose CPU time is measured.
    """
    record = _Record(None)
    record.is_open = True
    async with AsyncExitStack() as open_clients:
        idle: deque[Client] = deque()
        for _ in range(connections or 8):
            idle.append(await open_clients.enter_async_context(Client(port)))

        async def arrive(due: float) -> None:
            client = idle.popleft() if idle else await open_clients.enter_async_context(Client(port))
            status = await _attempt(step, client)
            record.note(time.perf_counter() - due, status)
            # In turn when there is a fixed number of them; else the warmest first.
            (idle.append if connections else idle.appendleft)(client)

        meter, started = _Meter(pid), time.perf_counter()
        async with asyncio.TaskGroup() as arrivals:
            for number in range(count):
                due = started + number / rate
                await asyncio.sleep(max(due - time.perf_counter(), 0))
                arrivals.create_task(arrive(due))
        return meter.sample(record)


async def _attempt(step: Step, client: Client) -> int:
    try:
        async with asyncio.timeout(_PATIENCE_S):
            return await step(client)
    except (ConnectionError, TimeoutError):
        return _NO_ANSWER
