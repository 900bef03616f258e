"""How a process of ours ends: with real processes and signals, and the rules of it without."""

from __future__ import annotations

import asyncio
import json
import signal
from asyncio.subprocess import Process
from typing import Any

import pytest
import structlog

from lib.daemon.supervision import EndedEarly, StoppedBeforeStart, cut_off, supervise, unless_stopped
from tests.daemon.conftest import Start


async def rest_of(process: Process) -> tuple[list[str], list[dict[str, Any]]]:
    """What it still says until it has ended: lines, and events of its log."""
    out, err = await process.communicate()
    return out.decode().splitlines(), [json.loads(line) for line in err.decode().splitlines()]


async def ready(process: Process) -> None:
    assert process.stdout is not None
    assert await process.stdout.readline() == b"ready\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_lets_every_part_end_and_the_process_succeed(start: Start, number: signal.Signals) -> None:
    process = await start("supervised", "until-stopped")
    await ready(process)
    process.send_signal(number)
    lines, events = await rest_of(process)
    assert sorted(lines[:-1]) == ["server stopped", "waker stopped"]
    assert lines[-1] == "ended"
    assert [(event["event"], event["signal"]) for event in events] == [("process.stop_requested", number.name)]
    assert process.returncode == 0


@pytest.mark.parametrize("scenario", ["ends", "fails"])
async def test_a_part_that_ends_by_itself_takes_the_process_with_it(start: Start, scenario: str) -> None:
    process = await start("supervised", scenario)
    await ready(process)
    lines, events = await rest_of(process)
    assert lines == ["server stopped"]
    assert [event["event"] for event in events] == ["process.failed"]
    assert process.returncode == 1
    errors = [f"{error['exc_type']}: {error['exc_value']}" for error in events[0]["exception"]]
    if scenario == "ends":
        assert errors == ["EndedEarly: waker ended"]
    else:
        assert errors == ["EndedEarly: waker failed", "ValueError: a bug"]


async def test_a_part_that_fails_while_it_is_stopped_makes_the_process_fail(start: Start) -> None:
    process = await start("supervised", "fails-at-the-end")
    await ready(process)
    process.send_signal(signal.SIGTERM)
    lines, events = await rest_of(process)
    assert lines == ["server stopped"]
    assert [event["event"] for event in events] == ["process.stop_requested", "process.failed"]
    assert events[1]["exception"][-1]["exc_value"] == "a bug in the drain"
    assert process.returncode == 1


async def until(stop: asyncio.Event) -> None:
    await stop.wait()


async def end() -> None:
    return


async def fail() -> None:
    raise ValueError("a bug")


async def test_parts_that_end_once_stopped_are_a_success() -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().call_soon(stop.set)
    await supervise(stop, {"one": until(stop), "two": until(stop)})


async def test_all_that_ended_early_are_named() -> None:
    stop = asyncio.Event()
    with pytest.raises(EndedEarly, match=r"^one, two ended$"):
        await supervise(stop, {"two": end(), "one": end(), "three": until(stop)})
    assert stop.is_set()


async def test_a_failure_is_the_cause() -> None:
    stop = asyncio.Event()
    with pytest.raises(EndedEarly, match=r"^one failed$") as failure:
        await supervise(stop, {"one": fail(), "two": until(stop)})
    assert isinstance(failure.value.__cause__, ValueError)


async def test_a_part_that_was_cancelled_from_elsewhere_has_ended_early() -> None:
    stop = asyncio.Event()

    async def cancelled() -> None:
        raise asyncio.CancelledError

    with pytest.raises(EndedEarly, match=r"^one ended$"):
        await supervise(stop, {"one": cancelled(), "two": until(stop)})


async def test_cancelling_the_supervision_cancels_its_parts() -> None:
    stop, running = asyncio.Event(), asyncio.Event()
    ended: list[str] = []

    async def part() -> None:
        running.set()
        try:
            await stop.wait()
        finally:
            ended.append("part")

    supervision = asyncio.create_task(supervise(stop, {"part": part()}))
    await running.wait()
    supervision.cancel()
    with pytest.raises(asyncio.CancelledError):
        await supervision
    assert ended == ["part"]


async def test_a_part_that_ends_before_the_stop_is_not_cut_off() -> None:
    await cut_off(asyncio.Event(), end(), after_s=0)


async def test_a_part_that_fails_is_not_cut_off_in_silence() -> None:
    with pytest.raises(ValueError, match="a bug"):
        await cut_off(asyncio.Event(), fail(), after_s=0)


async def test_a_part_may_end_by_itself_after_the_stop() -> None:
    stop = asyncio.Event()
    ended: list[str] = []

    async def part() -> None:
        await stop.wait()
        ended.append("part")

    asyncio.get_running_loop().call_soon(stop.set)
    with structlog.testing.capture_logs() as events:
        await cut_off(stop, part(), after_s=60)
    assert ended == ["part"]
    assert events == []


async def test_a_part_that_hangs_is_cut_off_once_its_time_is_over() -> None:
    stop = asyncio.Event()
    ended: list[str] = []

    async def part() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("part")

    asyncio.get_running_loop().call_soon(stop.set)
    with structlog.testing.capture_logs() as events:
        await cut_off(stop, part(), after_s=0.01)
    assert ended == ["part"]
    assert [event["event"] for event in events] == ["part.cut_off"]


async def test_before_the_stop_no_time_runs_out() -> None:
    stop, proceed = asyncio.Event(), asyncio.Event()
    ended: list[str] = []

    async def part() -> None:
        await proceed.wait()
        ended.append("part")

    supervision = asyncio.create_task(cut_off(stop, part(), after_s=0))
    await asyncio.wait([supervision], timeout=0.05)
    assert not supervision.done()
    proceed.set()
    await supervision
    assert ended == ["part"]


async def test_a_start_that_ends_is_what_it_made() -> None:
    async def make() -> str:
        return "made"

    assert await unless_stopped(asyncio.Event(), make()) == "made"


async def test_a_start_that_fails_says_why() -> None:
    async def fail() -> None:
        raise ValueError("no credentials")

    with pytest.raises(ValueError, match="no credentials"):
        await unless_stopped(asyncio.Event(), fail())


async def test_a_stop_ends_a_start_that_still_waits() -> None:
    stop, is_cancelled = asyncio.Event(), asyncio.Event()

    async def wait_for_ever() -> None:
        stop.set()
        try:
            await asyncio.Event().wait()
        finally:
            is_cancelled.set()

    with pytest.raises(StoppedBeforeStart):
        await unless_stopped(stop, wait_for_ever())
    assert is_cancelled.is_set()
