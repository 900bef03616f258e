"""What clients see when AWS fails or is slow, when too many of them come, and when they are slow themselves."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import dataclass

from bench.budget import Budget
from bench.endpoint.client import EndpointControl
from bench.endpoint.conduct import Conduct
from bench.figures import Figures, Sample, at_most, summarize
from bench.http_client import Client, head, request
from bench.load import closed_loop, open_loop
from bench.post import post
from bench.report import Report
from bench.subjects import Subject, open_stage
from bench.tasks import API_PATH, BODY, RawCalls

_RATES = (100, 200, 300)
_HEALTH_RATE = 50
_MANY = 256
_SLOW_AWS_CLIENTS = 30
_SLOW_CLIENTS = 32
_TRICKLE_S = 0.02
_RETRY_AFTER_S = 1.0
# Of a script that has its usual time.
_ERRORS = 300
_WINDOW_S = 2.0

_HEALTH = request("GET", "/health")


async def measure(budget: Budget) -> Report:
    """One trouble after the other."""
    report = Report("Faults and crowds")
    async with AsyncExitStack() as resources:
        stage, aws = await resources.enter_async_context(open_stage())
        ours = await resources.enter_async_context(stage.orchestrator())
        troubles = _Troubles(budget=budget, aws=aws, ours=ours, endpoint_port=stage.endpoint_port, report=report)
        await closed_loop(post, port=ours.port, clients=8, seconds=budget.shortened(1, at_least=0.1))
        await troubles.errors()
        await troubles.arrivals()
        await troubles.slow_aws()
        await troubles.many_clients()
        await troubles.slow_clients()
    return report


@dataclass(frozen=True, slots=True, kw_only=True)
class _Troubles:
    budget: Budget
    aws: EndpointControl
    ours: Subject
    endpoint_port: int
    report: Report

    async def errors(self) -> None:
        """A fifth of all AWS calls fails."""
        count = round(self.budget.shortened(_ERRORS, at_least=20))
        await self.aws.conduct(Conduct(latency_s=0.005))
        calls = self._row("two raw calls, 100/s, AWS 5 ms", await self._calls(100, count))
        await self.aws.conduct(Conduct(latency_s=0.005, error_rate=0.2))
        row = self._row("POST, 100/s, AWS 5 ms, 20 % errors", await self._posts(100, count))
        self.report.find(f"20 % AWS errors: POSTs of {row.count} without 202", row.failed, "POSTs", at_most(0))
        ratio = row.p99_ms / calls.p99_ms
        self.report.find("20 % AWS errors: p99 over that of its two calls without errors", ratio, target=at_most(10))

    async def arrivals(self) -> None:
        """POSTs that wait for nobody."""
        await self.aws.conduct(Conduct(latency_s=0.020))
        for rate in _RATES:
            count = round(rate * self.budget.shortened(_WINDOW_S, at_least=0.2))
            calls, posts = [], []
            for _ in range(self.budget.rounds):
                calls.append(await self._calls(rate, count))
                posts.append(await self._posts(rate, count))
            raw = self._row(f"two raw calls, {rate}/s, AWS 20 ms", *calls)
            row = self._row(f"POST, {rate}/s, AWS 20 ms", *posts)
            ratio = row.p99_ms / raw.p99_ms
            self.report.find(f"open loop {rate}/s: p99 over that of its two calls", ratio, target=at_most(1.25))

    async def slow_aws(self) -> None:
        """Every AWS call takes 2 s, then for ever."""
        for what, conduct in (("AWS at 2 s", Conduct(latency_s=2)), ("AWS silent", Conduct(is_stalled=True))):
            await self.aws.conduct(conduct)
            seconds = self.budget.shortened(_WINDOW_S, at_least=0.5)
            loaded = closed_loop(post, port=self.ours.port, clients=_SLOW_AWS_CLIENTS, seconds=seconds)
            posts, health = await asyncio.gather(loaded, self._health(seconds))
            row = self._row(f"POST, {_SLOW_AWS_CLIENTS} clients, {what}", posts)
            beside = self._row(f"/health meanwhile, {what}", health)
            self.report.find(f"{what}: slowest answer to a POST", row.max_ms, "ms", at_most(1000))
            self.report.find(f"{what}: POSTs without any answer", row.statuses.get(0, 0), "POSTs", at_most(0))
            self.report.find(f"{what}: /health p99", beside.p99_ms, "ms", at_most(20))
        await self.aws.conduct(Conduct(latency_s=0.005))

    async def many_clients(self) -> None:
        """More clients than can be served at once; one that is turned away comes back after a second."""
        seconds = self.budget.shortened(2 * _WINDOW_S, at_least=0.5)
        loaded = closed_loop(_post_patiently, port=self.ours.port, clients=_MANY, seconds=seconds, wanted={202})
        posts, health = await asyncio.gather(loaded, self._health(seconds))
        row = self._row(f"POST, {_MANY} clients, the accepted", posts)
        beside = self._row("/health meanwhile", health)
        self.report.find(f"{_MANY} clients: p99 over p50", row.p99_ms / row.p50_ms, target=at_most(3))
        self.report.find(f"{_MANY} clients: share accepted", row.statuses.get(202, 0) / row.count)
        self.report.find(f"{_MANY} clients: /health p99", beside.p99_ms, "ms")

    async def slow_clients(self) -> None:
        """Others send their bodies a byte at a time."""
        seconds = self.budget.shortened(_WINDOW_S, at_least=0.2)
        slow = [asyncio.create_task(self._trickle()) for _ in range(_SLOW_CLIENTS)]
        try:
            posts = await closed_loop(post, port=self.ours.port, clients=16, seconds=seconds)
        finally:
            for each in slow:
                each.cancel()
            await asyncio.gather(*slow, return_exceptions=True)
        row = self._row(f"POST, 16 clients beside {_SLOW_CLIENTS} slow ones", posts)
        ratio = row.p99_ms / row.p50_ms
        self.report.find(f"beside {_SLOW_CLIENTS} slow clients: p99 over p50", ratio, target=at_most(3))

    async def _calls(self, rate: float, count: int) -> Sample:
        return await open_loop(RawCalls(self.endpoint_port), port=self.endpoint_port, rate=rate, count=count)

    async def _posts(self, rate: float, count: int) -> Sample:
        return await open_loop(post, port=self.ours.port, rate=rate, count=count, pid=self.ours.pid)

    async def _health(self, seconds: float) -> Sample:
        return await open_loop(_ask_health, port=self.ours.port, rate=_HEALTH_RATE, count=round(_HEALTH_RATE * seconds))

    async def _trickle(self) -> None:
        body = BODY.encode()
        async with Client(self.ours.port) as client:
            while True:
                await client.trickle(head("POST", API_PATH, len(body)), body, _TRICKLE_S)

    def _row(self, name: str, *samples: Sample) -> Figures:
        return self.report.add(name, summarize(samples))


async def _ask_health(client: Client) -> int:
    return (await client.ask(_HEALTH)).status


async def _post_patiently(client: Client) -> int:
    status = await post(client)
    if status == 503:
        await asyncio.sleep(_RETRY_AFTER_S)
    return status
