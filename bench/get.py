"""GET: its own overhead over its one AWS call, its cost beside the peers', unknown ids, and a crowd that polls."""

from __future__ import annotations

import asyncio
import itertools
from collections import defaultdict
from contextlib import AsyncExitStack
from uuid import uuid4

from bench import post
from bench.budget import Budget
from bench.direct_calls import through_asyncaws
from bench.endpoint.conduct import Conduct
from bench.figures import Figures, Sample, at_least, at_most, summarize
from bench.http_client import Client
from bench.load import Step, closed_loop, open_loop
from bench.report import Report
from bench.subjects import Stage, Subject, open_stage
from bench.tasks import get_item, get_job, seed
from services.devstack.processes import OwnedProcess

AWS_LATENCY_S = 0.005
CLIENTS = (1, 16, 64)
MOST = CLIENTS[-1]
POLLERS = 1000
POLL_EVERY_S = 2.0
_TASKS = 200
# Per round: raw calls, asyncaws, minimal, orchestrator at each number of clients; naive; unknown ids; POST beside them.
_WINDOWS = 4 * len(CLIENTS) + 3
_POLLING_S = 6.0

Samples = dict[str, list[Sample]]


class Requests:
    """One of several requests after the other, as a step."""

    def __init__(self, requests: list[bytes]) -> None:
        self._requests = itertools.cycle(requests)

    async def __call__(self, client: Client) -> int:
        return (await client.ask(next(self._requests))).status


async def measure(budget: Budget) -> Report:
    """Rounds of all contenders in turn, then the crowd."""
    samples: Samples = defaultdict(list)
    async with AsyncExitStack() as resources:
        stage, aws = await resources.enter_async_context(open_stage())
        job_ids = await seed(stage.endpoint_port, _TASKS)
        await aws.conduct(Conduct(latency_s=AWS_LATENCY_S))
        contenders = await _Contenders.start(stage, resources, job_ids)
        for _ in range(budget.rounds):
            await contenders.run(samples, budget.window_s(_WINDOWS))
        samples[_CROWD].append(await contenders.run_crowd(budget.shortened(_POLLING_S, at_least=0.2)))
    return _report({name: summarize(rounds) for name, rounds in samples.items()})


class _Contenders:
    def __init__(
        self, *, stage: Stage, job_ids: list[str], ours: Subject, others: dict[str, Subject], asyncaws: OwnedProcess
    ) -> None:
        self._raw_calls = Requests([get_item(job_id) for job_id in job_ids])
        self._gets = Requests([get_job(job_id) for job_id in job_ids])
        self._unknown = Requests([get_job(str(uuid4())) for _ in range(_TASKS)])
        self._endpoint_port = stage.endpoint_port
        self._ours = ours
        self._others = others
        self._asyncaws = asyncaws

    @classmethod
    async def start(cls, stage: Stage, resources: AsyncExitStack, job_ids: list[str]) -> _Contenders:
        return cls(
            stage=stage,
            job_ids=job_ids,
            ours=await resources.enter_async_context(stage.orchestrator()),
            others={name: await resources.enter_async_context(stage.peer(name)) for name in ("minimal", "naive")},
            asyncaws=await resources.enter_async_context(stage.piped("bench.asyncaws_calls")),
        )

    async def run(self, samples: Samples, seconds: float) -> None:
        minimal, naive = self._others["minimal"], self._others["naive"]
        for clients in CLIENTS:
            raw = closed_loop(self._raw_calls, port=self._endpoint_port, clients=clients, seconds=seconds)
            samples[_name("raw call", clients)].append(await raw)
            asyncaws = through_asyncaws(self._asyncaws, "get", clients=clients, seconds=seconds)
            samples[_name("lib.asyncaws", clients)].append(await asyncaws)
            samples[_name("orchestrator", clients)].append(await _load(self._gets, self._ours, clients, seconds))
            samples[_name("minimal", clients)].append(await _load(self._gets, minimal, clients, seconds))
        samples[_name("naive peer", MOST)].append(await _load(self._gets, naive, MOST, seconds))
        samples[_UNKNOWN].append(await _load(self._unknown, self._ours, MOST, seconds))
        beside, _ = await asyncio.gather(
            _load(post.post, self._ours, 1, seconds), _load(self._unknown, self._ours, 8, seconds)
        )
        samples[_BESIDE_UNKNOWN].append(beside)

    async def run_crowd(self, seconds: float) -> Sample:
        rate = POLLERS / POLL_EVERY_S
        return await open_loop(
            self._gets,
            port=self._ours.port,
            rate=rate,
            count=round(rate * seconds),
            connections=POLLERS,
            pid=self._ours.pid,
        )


_UNKNOWN = "orchestrator, unknown ids, 64 clients"
_BESIDE_UNKNOWN = "orchestrator, a POST beside 8 clients with unknown ids"
_CROWD = f"orchestrator, {POLLERS} clients, each every {POLL_EVERY_S:g} s"


def _report(figures: dict[str, Figures]) -> Report:
    report = Report(f"GET, AWS latency {AWS_LATENCY_S * 1000:g} ms")
    ours, naive, minimal = (figures[_name(name, MOST)] for name in ("orchestrator", "naive peer", "minimal"))
    report.find("requests/s at 64 clients, ours over naive peer", ours.rate / naive.rate, target=at_least(18))
    report.find("CPU per request, naive peer over ours", naive.cpu_us / ours.cpu_us)
    report.find("CPU per request, ours over minimal", ours.cpu_us / minimal.cpu_us)
    asyncaws = figures[_name("lib.asyncaws", MOST)]
    report.find("CPU per request, ours over lib.asyncaws", ours.cpu_us / asyncaws.cpu_us)
    for clients in CLIENTS:
        row = figures[_name("orchestrator", clients)]
        for call in ("raw call", "lib.asyncaws"):
            report.find(
                f"p50 over its call ({call}), {clients} clients", row.p50_ms / figures[_name(call, clients)].p50_ms
            )
    unknown, beside, crowd = figures[_UNKNOWN], figures[_BESIDE_UNKNOWN], figures[_CROWD]
    report.find("unknown ids, p99 over p50", unknown.p99_ms / unknown.p50_ms, target=at_most(3))
    report.find("a POST beside unknown ids, p99", beside.p99_ms, "ms", at_most(1000))
    report.find("crowd, slowest answer", crowd.max_ms, "ms", at_most(POLL_EVERY_S * 1000))
    report.find("crowd, share of one core", crowd.rate * crowd.cpu_us / 1e6, "cores", at_most(1))
    report.find("crowd, p99 over p50", crowd.p99_ms / crowd.p50_ms, target=at_most(3))
    report.find("known ids not answered 200", ours.failed + crowd.failed, "requests", at_most(0))
    for name, row in figures.items():
        report.add(name, row)
    return report


async def _load(step: Step, subject: Subject, clients: int, seconds: float) -> Sample:
    return await closed_loop(step, port=subject.port, clients=clients, seconds=seconds, pid=subject.pid)


def _name(who: str, clients: int) -> str:
    return f"{who}, {clients} clients"
