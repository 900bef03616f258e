"""One soak: start the system, disturb it, let it settle, balance the books."""

from __future__ import annotations

import asyncio
import shutil
from collections import Counter
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from rich.console import Console
from rich.table import Table

from services.devstack.demo.story import upload_samples
from services.devstack.options import StackOptions
from services.devstack.power import State
from services.devstack.resources import aws_session, client_config
from services.devstack.soak.books import imbalances, live, runs_per_request
from services.devstack.soak.chaos import Chaos
from services.devstack.soak.clients import HANG_MARKER, Clients
from services.devstack.soak.proxy import UpstreamProxy, upstream_proxy
from services.devstack.stack import Stack

_SETTLE_LIMIT_S = 240.0
_LOOK_S = 0.5
_RESULT_URI_STYLES = ("s3", "cdn", "schemeless")


@dataclass(frozen=True, slots=True)
class Verdict:
    """How a soak ended."""

    seed: int
    accepted: int
    completed: int
    failed: Counter[str]
    refusals: int
    mischief: Counter[str]
    vices: Counter[str]
    imbalances: tuple[str, ...]


def soak_options(log_dir: Path, proxy: UpstreamProxy, *, result_uri_style: str) -> StackOptions:
    """A system whose limits are short enough to be met within a soak."""
    return StackOptions(
        scale=180.0,
        visibility_s=4,
        log_dir=log_dir,
        upstream_env={"STEP_S": "0.15", "HANG_ON": HANG_MARKER, "RESULT_URI_STYLE": result_uri_style},
        adapter_env={
            "COMFYUI_API_URL": proxy.url,
            "COMFYUI_WEDGED_S": "4",
            "JOB_DEADLINE_S": "8",
            "DRAIN_S": "2",
        },
        lambda_env={"HOLD_MAX_S": "20"},
    )


async def soak(*, seconds: float, seed: int, folder: Path, console: Console) -> Verdict:
    """Disturb a fresh system for so long, then judge it.

    Args:
        seed: all that is random follows from it; what the scheduler does with it does not.
    """
    random = Random(seed)
    log_dir = folder / f"seed-{seed}"
    shutil.rmtree(log_dir, ignore_errors=True)
    async with AsyncExitStack() as exits:
        proxy = await exits.enter_async_context(upstream_proxy(Random(random.random())))
        options = soak_options(log_dir, proxy, result_uri_style=random.choice(_RESULT_URI_STYLES))
        stack = await exits.enter_async_context(Stack(options))
        proxy.target = f"http://127.0.0.1:{stack.plan.upstream_port}"
        await asyncio.to_thread(upload_samples, stack)
        picture = f"s3://{stack.resources.bucket}/samples/bottle.jpg"
        clients = Clients(stack.base_url, picture=picture, random=Random(random.random()))
        exits.push_async_callback(clients.close)
        chaos = Chaos(stack, proxy=proxy, clients=clients, random=Random(random.random()))
        polling = asyncio.create_task(clients.poll(), name="soak.poll")
        try:
            await asyncio.gather(clients.submit_for(seconds, mean_pause_s=1.5), chaos.reign(seconds))
            await chaos.repair()
            console.print(f"seed {seed}: {len(clients.jobs)} jobs, {chaos.done.total()} faults; settling ...")
            await _settle(stack, clients)
        finally:
            polling.cancel()
            await asyncio.gather(polling, return_exceptions=True)
        return await _judge(seed, stack, clients, chaos, proxy)


async def _settle(stack: Stack, clients: Clients) -> None:
    """Until all jobs are over, the queues empty and the instance asleep, or the time is up; the books tell which."""
    try:
        async with asyncio.timeout(_SETTLE_LIMIT_S):
            while True:
                if await _is_settled(stack, clients):
                    return
                await asyncio.sleep(_LOOK_S)
    except TimeoutError:
        return


async def _is_settled(stack: Stack, clients: Clients) -> bool:
    if not all(job.is_over for job in clients.jobs):
        return False
    depths = (await stack.queues()).values()
    if any(depth.visible or depth.in_flight or depth.delayed for depth in depths):
        return False
    if await stack.instance_state() is not State.STOPPED:
        return False
    return not live(await asyncio.to_thread(_records, stack))


async def _judge(seed: int, stack: Stack, clients: Clients, chaos: Chaos, proxy: UpstreamProxy) -> Verdict:
    records = await asyncio.to_thread(_records, stack)
    found = imbalances(
        jobs=clients.jobs,
        records=records,
        runs=runs_per_request(stack.log_dir / "upstream-runs.jsonl"),
        queues=await stack.queues(),
        instance=await stack.instance_state(),
        mischief=chaos.done,
    )
    accepted = [records[job.job_id] for job in clients.jobs if job.job_id in records]
    return Verdict(
        seed=seed,
        accepted=len(accepted),
        completed=sum(record["status"] == "completed" for record in accepted),
        failed=Counter(str(record["error_code"]) for record in accepted if "error_code" in record),
        refusals=clients.refusals,
        mischief=chaos.done,
        vices=proxy.met,
        imbalances=tuple(found),
    )


def _records(stack: Stack) -> dict[str, dict[str, Any]]:
    """Every task record by id. Blocks."""
    resource: Any = aws_session().resource("dynamodb", endpoint_url=stack.endpoint_url, config=client_config())
    table = resource.Table(stack.resources.table)
    answer = table.scan(ConsistentRead=True)
    items = list(answer["Items"])
    while "LastEvaluatedKey" in answer:
        answer = table.scan(ConsistentRead=True, ExclusiveStartKey=answer["LastEvaluatedKey"])
        items += answer["Items"]
    return {str(item["task_id"]): item for item in items if "status" in item}


def print_verdict(console: Console, verdict: Verdict) -> None:
    """A table, and a line per imbalance."""
    table = Table(title=f"Soak, seed {verdict.seed}", title_justify="left", show_header=False)
    table.add_row("accepted", f"{verdict.accepted} jobs ({verdict.refusals} submissions were refused and repeated)")
    table.add_row("completed", str(verdict.completed))
    table.add_row("failed", _listed(verdict.failed))
    table.add_row("faults", _listed(verdict.mischief))
    table.add_row("upstream vices", _listed(verdict.vices))
    table.add_row("books", "[green]balance[/]" if not verdict.imbalances else "[red]do not balance[/]")
    console.print(table)
    for line in verdict.imbalances:
        console.print(f"[red]✗[/] {line}", highlight=False)


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{count} x {name}" for name, count in sorted(counts.items())) or "none"
