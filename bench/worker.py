"""The adapter: how much of the GPU's time it wastes, what a job and a message cost; and both services' starts."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from itertools import pairwise
from statistics import mean, median
from typing import Any

from bench.budget import Budget
from bench.consumption import cpu_s, rss_mb
from bench.endpoint.client import EndpointControl
from bench.endpoint.conduct import Conduct
from bench.figures import at_least, at_most
from bench.http_client import Client, request
from bench.report import Report
from bench.subjects import Stage, Subject, open_stage
from bench.tasks import BODY, seed

AWS_LATENCY_S = 0.020
_JOB_S = 2.0
_JOBS = 5
_NO_OP_JOBS = 400
_NO_OP_MESSAGES = 2000
_NO_OP_SLOTS = 64
# Measured side by side on one machine at this latency: taskiq-aio-sqs took 750 messages/s where a bare loop with
# batched deletes took 1,363. To be reached is 1.5 times the former.
_TO_REACH_OF_BARE = 1.5 * 750 / 1363


@dataclass(frozen=True, slots=True, kw_only=True)
class _Case:
    """One way to run a backlog of jobs."""

    name: str
    is_blocking: bool
    slots: int
    settings: Mapping[str, str]
    idle_share: float


_QUICK = {"POLL_INTERVAL_S": "0.05"}
_CASES = (
    _Case(name="blocking upstream, 1 slot", is_blocking=True, slots=1, settings={}, idle_share=0.02),
    _Case(name="polite upstream, 1 slot", is_blocking=False, slots=1, settings={}, idle_share=0.02),
    _Case(
        name="polite upstream, 1 slot, polled every 50 ms", is_blocking=False, slots=1, settings=_QUICK, idle_share=0.02
    ),
    _Case(name="polite upstream, 2 slots", is_blocking=False, slots=2, settings={}, idle_share=0),
)


async def measure(budget: Budget) -> Report:
    """Backlogs of jobs that take time, of jobs that take none, and starts."""
    report = Report(f"Worker, AWS latency {AWS_LATENCY_S * 1000:g} ms")
    async with open_stage() as (stage, aws):
        durations_s = _durations_s(budget)
        scene = _Scene(stage=stage, aws=aws, report=report, durations_s=durations_s)
        starts_s = [await scene.backlog(case) for case in _CASES]
        await scene.no_op_jobs(round(budget.shortened(_NO_OP_JOBS, at_least=40)))
        await scene.no_op_messages(round(budget.shortened(_NO_OP_MESSAGES, at_least=200)))
        report.find("adapter, start to READY", median(starts_s), "s", at_most(1.5))
        await scene.orchestrator_starts(budget.rounds)
    return report


@dataclass(frozen=True, slots=True, kw_only=True)
class _Scene:
    stage: Stage
    aws: EndpointControl
    report: Report
    durations_s: Sequence[float]

    async def backlog(self, case: _Case) -> float:
        """Jobs that wait one behind the other; returns the adapter's seconds to READY."""
        await self._empty()
        for duration_s in self.durations_s:
            await seed(self.stage.endpoint_port, 1, body=_body(duration_s), queued=True)
        async with AsyncExitStack() as resources:
            upstream = await resources.enter_async_context(self.stage.upstream(is_blocking=case.is_blocking))
            settings = {"CONCURRENCY": str(case.slots), **case.settings}
            await self.aws.conduct(Conduct(latency_s=AWS_LATENCY_S))
            adapter = await resources.enter_async_context(self.stage.adapter(upstream.port, **settings))
            used_s = cpu_s(adapter.pid)
            completed_at = await self._wait_for_end(len(self.durations_s))
            used_s = cpu_s(adapter.pid) - used_s
            runs = await _runs(upstream)
            rss = rss_mb(adapter.pid)
        self._judge(case, runs, completed_at, used_s / len(runs), rss)
        return adapter.ready_s

    def _judge(
        self,
        case: _Case,
        runs: Mapping[str, tuple[float, float]],
        completed_at: Mapping[str, float],
        job_cpu_s: float,
        rss: float,
    ) -> None:
        in_order = sorted(runs.values())
        gaps_s = [after[0] - before[1] for before, after in pairwise(in_order)]
        idle_share = mean(gaps_s) / (mean(gaps_s) + _JOB_S)
        lags_s = [completed_at[task_id] - run[1] for task_id, run in runs.items()]
        find, name = self.report.find, case.name
        find(f"{name}: GPU idle, jobs of {_JOB_S:g} s", round(idle_share * 100, 1), "%", at_most(case.idle_share * 100))
        find(f"{name}: gap between jobs, median", median(gaps_s) * 1000, "ms")
        lag_bound_ms = 50 + AWS_LATENCY_S * 1000
        find(f"{name}: job end to completed, median", median(lags_s) * 1000, "ms", at_most(lag_bound_ms))
        find(f"{name}: CPU per job", job_cpu_s * 1000, "ms", at_most(50))
        find(f"{name}: RSS of the adapter", rss, "MB")

    async def no_op_jobs(self, count: int) -> None:
        """Jobs that take no time, for the whole of the adapter's own work."""
        for slots in (1, 16):
            await self._empty()
            await seed(self.stage.endpoint_port, count, body=_body(0), queued=True)
            async with AsyncExitStack() as resources:
                upstream = await resources.enter_async_context(self.stage.upstream(is_blocking=False))
                settings = {"CONCURRENCY": str(slots), "POLL_INTERVAL_S": "0.01"}
                adapter = await resources.enter_async_context(self.stage.adapter(upstream.port, **settings))
                used_s = cpu_s(adapter.pid)
                completed_at = sorted((await self._wait_for_end(count)).values())
                used_s = cpu_s(adapter.pid) - used_s
            rate = (count - 1) / (completed_at[-1] - completed_at[0])
            self.report.find(f"no-op jobs, {slots} slots: whole adapter", rate, "jobs/s")
            self.report.find(f"no-op jobs, {slots} slots: CPU per job", used_s / count * 1000, "ms", at_most(50))

    async def no_op_messages(self, count: int) -> None:
        """Receive and delete, nothing in between: our consumer beside a bare loop with batches."""
        answers: dict[str, Any] = {}
        async with self.stage.piped("bench.queue_consumers") as process:
            for kind in ("bare", "ours"):
                await self._empty()
                await seed(self.stage.endpoint_port, count, queued=True)
                await self.aws.conduct(Conduct(latency_s=AWS_LATENCY_S))
                order = {"kind": kind, "count": count, "slots": _NO_OP_SLOTS}
                process.stdin.write(json.dumps(order).encode() + b"\n")
                answers[kind] = json.loads(await process.stdout.readline())
        ours, bare = answers["ours"], answers["bare"]
        for name, answer in ((f"our consumer, {_NO_OP_SLOTS} slots", ours), ("bare aiobotocore, batches of 10", bare)):
            self.report.find(f"no-op messages: {name}", count / answer["elapsed_s"], "messages/s")
            self.report.find(f"no-op messages: {name}, CPU", answer["cpu_s"] / count * 1e6, "us/message")
        ratio = bare["elapsed_s"] / ours["elapsed_s"]
        self.report.find("no-op messages: ours over bare", ratio, target=at_least(round(_TO_REACH_OF_BARE, 2)))

    async def orchestrator_starts(self, rounds: int) -> None:
        """To READY, several times."""
        starts_s, rss = [], []
        for _ in range(rounds):
            async with self.stage.orchestrator() as orchestrator:
                starts_s.append(orchestrator.ready_s)
                rss.append(rss_mb(orchestrator.pid))
        self.report.find("orchestrator, start to READY", median(starts_s), "s", at_most(1.5))
        self.report.find("orchestrator, RSS when READY", median(rss), "MB", at_most(120))

    async def _empty(self) -> None:
        """An empty queue and table, and no latency while they are filled."""
        await self.aws.reset()
        await self.aws.conduct(Conduct())

    async def _wait_for_end(self, count: int) -> Mapping[str, float]:
        """When each task's record became `completed`."""
        async with asyncio.timeout(120):
            while True:
                books = await self.aws.books()
                completed_at: Mapping[str, float] = books["completed_at"]
                if len(completed_at) >= count and not any(books["depths"].values()):
                    return completed_at
                await asyncio.sleep(0.05)


def _durations_s(budget: Budget) -> Sequence[float]:
    """A little different each, so that no poll interval happens to fit."""
    chance, job_s = random.Random(1), budget.shortened(_JOB_S, at_least=0.05)
    return [chance.uniform(0.85, 1.15) * job_s for _ in range(round(budget.shortened(_JOBS, at_least=3)))]


def _body(duration_s: float) -> str:
    return json.dumps({**json.loads(BODY), "prompt": f"{duration_s:.3f}"})


async def _runs(upstream: Subject) -> Mapping[str, tuple[float, float]]:
    """Start and end of each task's job."""
    async with Client(upstream.port) as client:
        answer = await client.ask(request("GET", "/bench/jobs"))
    return {task_id: (started_at, ended_at) for task_id, (started_at, ended_at) in json.loads(answer.body).items()}
