"""POST: its own overhead over its two AWS calls, and its cost beside the peers'."""

from __future__ import annotations

from collections import defaultdict
from contextlib import AsyncExitStack

from bench.budget import Budget
from bench.consumption import rss_mb
from bench.direct_calls import through_asyncaws
from bench.endpoint.client import EndpointControl
from bench.endpoint.conduct import Conduct
from bench.figures import Figures, Sample, at_least, at_most, summarize
from bench.http_client import Client
from bench.load import closed_loop
from bench.report import Report
from bench.subjects import Stage, Subject, open_stage
from bench.tasks import RawCalls, post_job
from services.devstack.processes import OwnedProcess

AWS_LATENCY_S = 0.005
CLIENTS = (1, 16, 64)
MOST = CLIENTS[-1]
# Per round, at each number of clients: raw calls, asyncaws, minimal, orchestrator; and the naive peer, which is slow.
_NAIVE_WINDOWS = 3
_WINDOWS = 4 * len(CLIENTS) + _NAIVE_WINDOWS

Samples = dict[str, list[Sample]]

_POST = post_job()


async def post(client: Client) -> int:
    """One submission."""
    return (await client.ask(_POST)).status


async def measure(budget: Budget) -> Report:
    """Rounds of all contenders in turn."""
    samples: Samples = defaultdict(list)
    async with AsyncExitStack() as resources:
        stage, aws = await resources.enter_async_context(open_stage())
        await aws.conduct(Conduct(latency_s=AWS_LATENCY_S))
        contenders = await _Contenders.start(stage, resources)
        for _ in range(budget.rounds):
            await contenders.run(samples, aws, budget.window_s(_WINDOWS))
        rss = contenders.rss_mb
    report = _report({name: summarize(rounds) for name, rounds in samples.items()})
    report.find("RSS of the orchestrator afterwards", rss, "MB", at_most(120))
    return report


class _Contenders:
    def __init__(
        self, *, stage: Stage, ours: Subject, minimal: Subject, naive: Subject, asyncaws: OwnedProcess
    ) -> None:
        self._raw_calls = RawCalls(stage.endpoint_port)
        self._endpoint_port = stage.endpoint_port
        self._servers = {"orchestrator": ours, "minimal": minimal}
        self._naive = naive
        self._asyncaws = asyncaws

    @classmethod
    async def start(cls, stage: Stage, resources: AsyncExitStack) -> _Contenders:
        return cls(
            stage=stage,
            ours=await resources.enter_async_context(stage.orchestrator()),
            minimal=await resources.enter_async_context(stage.peer("minimal")),
            naive=await resources.enter_async_context(stage.peer("naive")),
            asyncaws=await resources.enter_async_context(stage.piped("bench.asyncaws_calls")),
        )

    @property
    def rss_mb(self) -> float:
        return rss_mb(self._servers["orchestrator"].pid)

    async def run(self, samples: Samples, aws: EndpointControl, window_s: float) -> None:
        for clients in CLIENTS:
            await aws.reset()
            raw = closed_loop(self._raw_calls, port=self._endpoint_port, clients=clients, seconds=window_s)
            samples[_name("raw calls", clients)].append(await raw)
            asyncaws = through_asyncaws(self._asyncaws, "post", clients=clients, seconds=window_s)
            samples[_name("lib.asyncaws", clients)].append(await asyncaws)
            for name, server in self._servers.items():
                loaded = closed_loop(post, port=server.port, clients=clients, seconds=window_s, pid=server.pid)
                samples[_name(name, clients)].append(await loaded)
        seconds, naive = window_s * _NAIVE_WINDOWS, self._naive
        loaded = closed_loop(post, port=naive.port, clients=MOST, seconds=seconds, pid=naive.pid)
        samples[_name("naive peer", MOST)].append(await loaded)


def _report(figures: dict[str, Figures]) -> Report:
    report = Report(f"POST, AWS latency {AWS_LATENCY_S * 1000:g} ms")
    ours, naive, minimal = (figures[_name(name, MOST)] for name in ("orchestrator", "naive peer", "minimal"))
    report.find("CPU per request, naive peer over ours", naive.cpu_us / ours.cpu_us, target=at_least(25))
    report.find("requests/s at 64 clients, ours over naive peer", ours.rate / naive.rate, target=at_least(35))
    report.find("CPU per request, ours over minimal", ours.cpu_us / minimal.cpu_us)
    report.find("CPU per request, ours over lib.asyncaws", ours.cpu_us / figures[_name("lib.asyncaws", MOST)].cpu_us)
    for clients in CLIENTS:
        row, minimal = figures[_name("orchestrator", clients)], figures[_name("minimal", clients)]
        for calls in ("raw calls", "lib.asyncaws"):
            what = f"p50 to 202 over its two calls ({calls}), {clients} clients"
            report.find(what, row.p50_ms / figures[_name(calls, clients)].p50_ms)
        report.find(f"p50 to 202, ours over minimal, {clients} clients", row.p50_ms / minimal.p50_ms)
    for name, row in figures.items():
        report.add(name, row)
    report.find("requests not answered 202", ours.failed, "requests", at_most(0))
    return report


def _name(who: str, clients: int) -> str:
    return f"{who}, {clients} clients"
