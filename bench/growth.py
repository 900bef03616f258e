"""Growth: what a POST, and a look of the waker, the janitor and the Lambda cost, whatever waits and whatever has ended.

Also what each write of a task costs whose request is as large as may be.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, fields
from statistics import median
from typing import Any

from bench.budget import Budget
from bench.consumption import rss_mb
from bench.direct_calls import ask
from bench.endpoint.client import EndpointControl
from bench.endpoint.conduct import Conduct
from bench.figures import at_most, percentile
from bench.load import closed_loop
from bench.post import AWS_LATENCY_S, post
from bench.report import Grid, Report
from bench.subjects import Stage, open_stage
from bench.tasks import BODY, finished_record, new_record, queue_url
from lib.asyncaws.attributes import serialize_item
from lib.gputask.message import MAX_BODY_BYTES, TaskMessage
from services.devstack.processes import OwnedProcess

SIZES = (100, 1_000, 10_000, 100_000)
STATES = ("waiting", "finished")
LOOKS = ("waker", "janitor", "Lambda")
WRITES = ("create", "resend", "claim", "note_upstream_job", "hold", "finish")
_POST = "POST"
# The janitor looks at up to so many waiting tasks a round, and so is compared from there on.
_MOST_A_ROUND = 2_000
# With so much less time there are fewer sizes, of which two are needed for a ratio.
_LEAST_LARGEST = 1_000
# Windows of a POST, whose time varies more than that of a look.
_POST_WINDOWS = 3
_QUIET_S = 0.3
_FLAT_TIME, _FLAT = at_most(1.5), at_most(1.1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """Of one POST or one look.

    Attributes:
        memory_mb: the most that a look holds at any moment; for a POST, what the orchestrator's process has.
        items: read from the table or its index.
    """

    p50_ms: float
    max_ms: float
    memory_mb: float
    items: float
    read_units: float
    write_units: float


@dataclass(frozen=True, slots=True)
class Scene:
    """So many tasks are in that state, and no others."""

    state: str
    size: int


Costs = Mapping[tuple[str, Scene], Cost]

_MEASURES = {"p50_ms": "p50 ms", "memory_mb": "memory MB", "read_units": "read units", "write_units": "write units"}


async def measure(budget: Budget) -> Report:
    """Rounds of all scenes in turn, then a small and a large task's writes."""
    sizes = [size for size in SIZES if size <= budget.shortened(SIZES[-1], at_least=_LEAST_LARGEST)]
    scenes = [Scene(state, size) for state in STATES for size in sizes]
    window_s = budget.window_s(len(scenes) * (len(LOOKS) + _POST_WINDOWS))
    rounds: defaultdict[tuple[str, Scene], list[Cost]] = defaultdict(list)
    async with AsyncExitStack() as resources:
        stage, aws = await resources.enter_async_context(open_stage())
        await aws.conduct(Conduct(latency_s=AWS_LATENCY_S))
        looks = await resources.enter_async_context(stage.piped("bench.looks"))
        await _warm_up(looks)
        for _ in range(budget.rounds):
            for scene in scenes:
                for who, cost in (await _measure_scene(scene, stage, aws, looks, window_s)).items():
                    rounds[who, scene].append(cost)
        writes = {size: await _measure_writes(size, aws, looks) for size in (len(BODY), MAX_BODY_BYTES)}
    return _report({key: _medians(costs) for key, costs in rounds.items()}, sizes, writes)


async def _warm_up(looks: OwnedProcess) -> None:
    """The first call of a client loads its endpoint's rules."""
    for who in LOOKS:
        await ask(looks, {"look": who, "seconds": 0})


async def _measure_scene(
    scene: Scene, stage: Stage, aws: EndpointControl, looks: OwnedProcess, window_s: float
) -> dict[str, Cost]:
    await aws.reset()
    await aws.fill(**contents(scene, queue_url(stage.endpoint_port)))
    costs = {who: await _measure_look(who, aws, looks, window_s) for who in LOOKS}
    return {_POST: await _measure_post(stage, aws, window_s), **costs}


def contents(scene: Scene, url: str) -> dict[str, Any]:
    """What the endpoint is to be filled with; tasks that wait have their messages in the queue at `url`."""
    if scene.state == "finished":
        return {"item": serialize_item(finished_record().to_item()), "count": scene.size}
    record = new_record()
    body = TaskMessage(record.task_id, record.job_type, record.request_body).to_json()
    return {"item": serialize_item(record.to_item()), "count": scene.size, "queue_url": url, "body": body}


async def _measure_look(who: str, aws: EndpointControl, looks: OwnedProcess, window_s: float) -> Cost:
    before = _used(await aws.books())
    answer = await ask(looks, {"look": who, "seconds": window_s})
    after = _used(await aws.books())
    times_s = answer["latencies_s"]
    looked = len(times_s) + 1  # once more, for the memory
    return Cost(
        p50_ms=percentile(times_s, 0.5) * 1000,
        max_ms=max(times_s) * 1000,
        memory_mb=answer["peak_bytes"] / 1e6,
        **{name: (after[name] - before[name]) / looked for name in before},
    )


async def _measure_post(stage: Stage, aws: EndpointControl, window_s: float) -> Cost:
    async with stage.orchestrator() as subject:
        await _first_looks_end(aws)
        sample = await closed_loop(post, port=subject.port, clients=1, seconds=window_s * _POST_WINDOWS)
        memory_mb = rss_mb(subject.pid)
    books = await aws.books()
    # What waker and janitor read meanwhile stands in their own rows.
    used = books["usage"]["PutItem"]["write_units"] / books["calls"]["PutItem"]
    return Cost(
        p50_ms=percentile(sample.latencies_s, 0.5) * 1000,
        max_ms=max(sample.latencies_s) * 1000,
        memory_mb=memory_mb,
        items=0,
        read_units=0,
        write_units=used,
    )


async def _first_looks_end(aws: EndpointControl) -> None:
    """The orchestrator has looked at what waits, as it does at its start, and makes no calls any more."""
    calls: Mapping[str, int] | None = None
    while calls != (now := (await aws.books())["calls"]):
        calls = now
        await asyncio.sleep(_QUIET_S)


async def _measure_writes(request_bytes: int, aws: EndpointControl, looks: OwnedProcess) -> dict[str, float]:
    """The write units of each."""
    units = {}
    for verb in WRITES:
        before = _used(await aws.books())
        await ask(looks, {"write": verb, "request_bytes": request_bytes})
        units[verb] = _used(await aws.books())["write_units"] - before["write_units"]
    return units


def _used(books: Mapping[str, Any]) -> dict[str, float]:
    names = ("items", "read_units", "write_units")
    return {name: sum(usage[name] for usage in books["usage"].values()) for name in names}


def _medians(costs: Sequence[Cost]) -> Cost:
    return Cost(**{field.name: median(getattr(cost, field.name) for cost in costs) for field in fields(Cost)})


def _report(costs: Costs, sizes: Sequence[int], writes: Mapping[int, Mapping[str, float]]) -> Report:
    report = Report(f"Growth, {sizes[0]:,} to {sizes[-1]:,} tasks, AWS latency {AWS_LATENCY_S * 1000:g} ms")
    for who in (_POST, *LOOKS):
        for state in STATES:
            _find_growth(report, costs, who, state, sizes)
    most_mb = max(cost.memory_mb for (who, _), cost in costs.items() if who == "Lambda")
    report.find("Lambda, the most memory that a look holds", most_mb, "MB", at_most(16))
    small, large = (writes[size] for size in sorted(writes))
    for verb in WRITES[1:]:
        what = f"write units of {verb}, request of {MAX_BODY_BYTES // 1024} KB over one of {len(BODY)} bytes"
        report.find(what, large[verb] / small[verb], target=at_most(1))
    report.grids += [_growth_grid(costs, sizes), _writes_grid(writes)]
    return report


def _find_growth(report: Report, costs: Costs, who: str, state: str, sizes: Sequence[int]) -> None:
    is_bounded = (who, state) == ("janitor", "waiting")
    base = next((size for size in sizes if size >= _MOST_A_ROUND), sizes[-1]) if is_bounded else sizes[0]
    if base == sizes[-1]:
        return
    few, many = costs[who, Scene(state, base)], costs[who, Scene(state, sizes[-1])]
    for name, heading in _MEASURES.items():
        if before := getattr(few, name):
            what = f"{who}, {heading}, {sizes[-1]:,} {state} over {base:,}"
            report.find(what, getattr(many, name) / before, target=_FLAT_TIME if name == "p50_ms" else _FLAT)


def _growth_grid(costs: Costs, sizes: Sequence[int]) -> Grid:
    headings = ["who", "state", "tasks", "max ms", "items read"]
    for heading in _MEASURES.values():
        headings += [heading, f"{heading} / at {sizes[0]:,}"]
    keys = [(who, Scene(state, size)) for who in (_POST, *LOOKS) for state in STATES for size in sizes]
    return Grid(headings, [_growth_row(*key, costs, sizes[0]) for key in keys])


def _growth_row(who: str, scene: Scene, costs: Costs, smallest: int) -> Sequence[str | float]:
    cost, least = costs[who, scene], costs[who, Scene(scene.state, smallest)]
    row: list[str | float] = [who, scene.state, scene.size, cost.max_ms, cost.items]
    for name in _MEASURES:
        value, base = getattr(cost, name), getattr(least, name)
        row += [value, value / base if base else ""]
    return row


def _writes_grid(writes: Mapping[int, Mapping[str, float]]) -> Grid:
    headings = ["write", *(f"units, request of {size:,} bytes" for size in writes)]
    return Grid(headings, [[verb, *(units[verb] for units in writes.values())] for verb in WRITES])
