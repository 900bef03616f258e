"""More clients than can be served, one that takes what it can get, and some that only hold connections."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from hashlib import sha256

from bench.budget import Budget
from bench.endpoint.conduct import Conduct
from bench.figures import Figures, Sample, at_least, at_most, summarize
from bench.http_client import Client, request
from bench.load import Step, closed_loop
from bench.report import Report
from bench.subjects import Subject, open_stage
from bench.tasks import API_PATH, BODY

_CLIENTS = (16, 64, 256, 1000)
_MOST = _CLIENTS[-1]
_GREEDY = 512
_HOLDERS = 600
_AWS_LATENCY_S = 0.005
# A window must be longer than what the shed wait before they come back.
_WINDOW_S = 8.0
_HALF_HEAD = b"GET / HTTP/1.1\r\nHost: x\r\n"
_HEAD_WITHOUT_BODY = request("POST", API_PATH, b"", "Content-Type: application/json\r\n").replace(
    b"Content-Length: 0", b"Content-Length: 1000"
)


async def measure(budget: Budget) -> Report:
    """Crowds on a whole core and on a quarter, then single offenders."""
    report = Report("Overload, AWS latency 5 ms")
    window_s = budget.shortened(_WINDOW_S, at_least=0.3)
    async with AsyncExitStack() as resources:
        stage, aws = await resources.enter_async_context(open_stage())
        await aws.conduct(Conduct(latency_s=_AWS_LATENCY_S))
        keys = ",".join(f"{name}:{sha256(name.encode()).hexdigest()}" for name in ("greedy", "modest"))
        async with stage.orchestrator() as ours:
            await _crowds(report, ours, "one core", window_s)
            async with stage.on_a_quarter(ours):
                await _crowds(report, ours, "a quarter", window_s)
            await _holders(report, ours, window_s)
        async with stage.orchestrator(API_KEYS=keys) as ours:
            await _shares(report, ours, window_s)
    return report


async def _crowds(report: Report, ours: Subject, where: str, window_s: float) -> None:
    goodputs, costs_us = {}, {}
    await closed_loop(post_as("modest"), port=ours.port, clients=8, seconds=window_s / 4)
    for clients in _CLIENTS:
        sample = await closed_loop(
            post_as("modest"), port=ours.port, clients=clients, seconds=window_s, pid=ours.pid, wanted={202}
        )
        row = report.add(f"POST, {clients} clients, {where}, the accepted", summarize([sample]))
        goodputs[clients], costs_us[clients] = row.rate, row.cpu_us
        report.find(f"{clients} clients, {where}: slowest 202", row.max_ms, "ms", at_most(1000))
    share = goodputs[_MOST] / max(goodputs.values())
    report.find(f"{where}: goodput at {_MOST} clients over the best", share, target=at_least(0.8))
    # The same where the load and the endpoint, which share a core, are what is slow.
    saved = min(costs_us.values()) / costs_us[_MOST]
    report.find(f"{where}: 202s for the same CPU at {_MOST} clients over the best", saved, target=at_least(0.8))


async def _shares(report: Report, ours: Subject, window_s: float) -> None:
    """One client floods; another asks once at a time."""
    greedy, modest = await asyncio.gather(
        closed_loop(post_as("greedy"), port=ours.port, clients=_GREEDY, seconds=window_s, wanted={202}),
        closed_loop(post_as("modest"), port=ours.port, clients=1, seconds=window_s),
    )
    report.add(f"POST, a client with {_GREEDY} connections, the accepted", summarize([greedy]))
    row = report.add("POST, another client beside it", summarize([modest]))
    share = row.statuses.get(202, 0) / row.count
    report.find(f"beside {_GREEDY} connections of one client: share of another's that get 202", share, "", at_least(1))


async def _holders(report: Report, ours: Subject, window_s: float) -> None:
    """Others hold connections with half a request."""
    calm = report.add("POST, 16 clients, nobody else", summarize([await _sixteen(ours, window_s)]))
    for what, sent in (("half heads", _HALF_HEAD), ("uploads that do not come", _HEAD_WITHOUT_BODY)):
        async with _holding(ours.port, sent):
            row = report.add(f"POST, 16 clients beside {_HOLDERS} {what}", summarize([await _sixteen(ours, window_s)]))
        _compare(report, f"beside {_HOLDERS} {what}", row, calm)


def _compare(report: Report, what: str, row: Figures, calm: Figures) -> None:
    report.find(f"{what}: p99 over that without", row.p99_ms / calm.p99_ms, target=at_most(2))
    report.find(f"{what}: requests not answered 202", row.failed, "requests", at_most(0))


async def _sixteen(ours: Subject, window_s: float) -> Sample:
    return await closed_loop(post_as("modest"), port=ours.port, clients=16, seconds=window_s)


@asynccontextmanager
async def _holding(port: int, sent: bytes) -> AsyncIterator[None]:
    writers = [(await asyncio.open_connection("127.0.0.1", port))[1] for _ in range(_HOLDERS)]
    for writer in writers:
        writer.write(sent)
    try:
        yield
    finally:
        for writer in writers:
            writer.close()


def post_as(key: str) -> Step:
    """A submission of a client that comes back when it is told to."""
    asked = request("POST", API_PATH, BODY.encode(), f"Content-Type: application/json\r\nX-API-Key: {key}\r\n")

    async def post(client: Client) -> int:
        answer = await client.ask(asked)
        if answer.status == 503:
            await asyncio.sleep(answer.retry_after_s)
        return answer.status

    return post
