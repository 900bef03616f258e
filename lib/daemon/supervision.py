"""How a process of ours lives and ends.

Signals set a stop event. Background work has an owner and a name; what ends before it was asked to takes the process
with it, with a non-zero code, so that the service manager starts all of it afresh rather than half of it limping on.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any, TypeVar

import structlog

log = structlog.stdlib.get_logger(__name__)

T = TypeVar("T")
Main = Callable[[asyncio.Event], Awaitable[None]]


class CannotStart(Exception):
    """Something outside is not as it must be, say a port is taken; the text is a sentence for the operator."""


class StoppedBeforeStart(Exception):
    """A stop came while the process still waited for what it needs; there is nothing to drain."""


class EndedEarly(RuntimeError):
    """A part of the process ended although nobody had asked it to."""


def run(main: Main) -> int:
    """Run `main(stop)` to its end; SIGTERM and SIGINT set `stop`. Returns the process's exit code."""
    try:
        asyncio.run(_with_signals(main))
    except StoppedBeforeStart:
        log.info("process.stopped_before_start")
    except Exception as error:  # the edge of the process: its last word goes to the log, in the log's form
        if isinstance(error.__cause__, CannotStart):
            log.error("process.cannot_start", reason=str(error.__cause__))  # noqa: TRY400  a bug would have a traceback
        else:
            log.exception("process.failed")
        return 1
    return 0


async def unless_stopped(stop: asyncio.Event, start: Coroutine[Any, Any, T]) -> T:
    """What `start` makes; a stop cancels it. For what may wait for its surroundings longer than a stop may take.

    Raises:
        StoppedBeforeStart: the stop came first.
    """
    starting, stopping = asyncio.create_task(start), asyncio.create_task(stop.wait())
    try:
        await asyncio.wait((starting, stopping), return_when=asyncio.FIRST_COMPLETED)
        if not starting.done():
            raise StoppedBeforeStart
        return starting.result()
    finally:
        for task in (starting, stopping):
            task.cancel()
        await asyncio.gather(starting, stopping, return_exceptions=True)


async def supervise(stop: asyncio.Event, parts: Mapping[str, Coroutine[Any, Any, None]]) -> None:
    """Run all parts until `stop`, after which each ends by itself.

    Raises:
        EndedEarly: a part ended before; the others were asked to stop and have ended, too.
    """
    tasks = {asyncio.create_task(part, name=name) for name, part in parts.items()}
    try:
        done, rest = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        early = sorted(task.get_name() for task in done) if not stop.is_set() else []
        stop.set()
        results = await asyncio.gather(*done, *rest, return_exceptions=True)
    finally:
        for task in tasks:
            task.cancel()
    failures = [result for result in results if isinstance(result, Exception)]
    if failures:
        raise EndedEarly(f"{', '.join(early) or 'a part'} failed") from failures[0]
    if early:
        raise EndedEarly(f"{', '.join(early)} ended")


async def cut_off(stop: asyncio.Event, part: Coroutine[Any, Any, None], *, after_s: float) -> None:
    """Run a part that may be left unfinished: `after_s` seconds after `stop` it is cancelled.

    For work that anybody may take up where it was left; else a call that hangs would hold up the end of the process.
    """
    working = asyncio.create_task(part)
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait((working, stopping), return_when=asyncio.FIRST_COMPLETED)
        done, _ = await asyncio.wait((working,), timeout=after_s)
    finally:
        stopping.cancel()
        working.cancel()
    if done:
        working.result()
        return
    log.warning("part.cut_off", after_s=after_s)
    await asyncio.wait((working,))


async def _with_signals(main: Main) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, _request_stop, stop, number)
    await main(stop)


def _request_stop(stop: asyncio.Event, number: signal.Signals) -> None:
    log.info("process.stop_requested", signal=number.name)
    stop.set()
