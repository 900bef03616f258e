"""Small services that live and end as ours do, to be run as processes of their own."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable, Coroutine
from typing import Any

import structlog
from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings

from lib.daemon.configuration import load_settings
from lib.daemon.logs import LogFormat, configure_logging
from lib.daemon.supervision import run, supervise

LINES = 20_000

log = structlog.stdlib.get_logger("services.sample")


class Settings(BaseSettings):
    """Two settings, one of them secret."""

    sample_port: int = Field(ge=1)
    sample_key: SecretStr


def configured() -> int:
    """Print the port."""
    print(load_settings(Settings).sample_port)
    return 0


def supervised(scenario: str) -> int:
    """Say ready, run parts until they are stopped, and say which have ended."""

    async def wait_for_stop(stop: asyncio.Event, name: str) -> None:
        await stop.wait()
        print(f"{name} stopped", flush=True)

    async def end() -> None:
        await asyncio.sleep(0)

    async def fail() -> None:
        raise ValueError("a bug")

    async def fail_at_the_end(stop: asyncio.Event) -> None:
        await stop.wait()
        raise ValueError("a bug in the drain")

    async def main(stop: asyncio.Event) -> None:
        parts: dict[str, Coroutine[Any, Any, None]] = {"server": wait_for_stop(stop, "server")}
        match scenario:
            case "until-stopped":
                parts["waker"] = wait_for_stop(stop, "waker")
            case "ends":
                parts["waker"] = end()
            case "fails":
                parts["waker"] = fail()
            case "fails-at-the-end":
                parts["waker"] = fail_at_the_end(stop)
        print("ready", flush=True)
        await supervise(stop, parts)
        print("ended", flush=True)

    configure_logging("sample", form=LogFormat.JSON, level="INFO")
    return run(main)


def logging_everything(form: str, journal_path: str) -> int:
    """Log what a service logs: events, bound ids, a library's words, and an error with a secret in its frames."""
    configure_logging("sample", form=LogFormat(form), level="INFO", journal_path=journal_path)
    log.debug("task.looked_at")
    with structlog.contextvars.bound_contextvars(job_id="j-1"):
        log.info("task.claimed", attempt=2, worker=None, text="two\nlines \N{SNOWMAN}")
    logging.getLogger("aiohttp.access").info("chatter")
    logging.getLogger("aiohttp.client").warning("unclosed %s", "session")
    logging.getLogger("lib.sample").info("ours, said plainly")
    try:
        _break("hunter" + "2")
    except ValueError:
        log.exception("task.failed", job_id="j-2")
        logging.getLogger("aiohttp.server").exception("unhandled")
    return 0


def _break(password: str) -> None:
    try:
        int("x")
    except ValueError as error:
        raise ValueError("wrong") from error


def chatter(form: str, journal_path: str) -> int:
    """Say more than anybody holds on to, then a last word when told to."""
    configure_logging("sample", form=LogFormat(form), level="INFO", journal_path=journal_path or "unused")
    for number in range(LINES):
        log.info("task.looked_at", number=number)
    print("went on", flush=True)
    sys.stdin.readline()
    log.info("the last word")
    return 0


def repeating(form: str, journal_path: str) -> int:
    """Warn of the same thing again and again, of another once, and go on as usual."""
    configure_logging("sample", form=LogFormat(form), level="INFO", journal_path=journal_path or "unused")
    for number in range(1000):
        log.warning("aws.failed", number=number)
        logging.getLogger("asyncio").error("accept() failed, %s", number)
        log.info("task.looked_at")
    log.warning("disk.full")
    return 0


PROGRAMS: dict[str, Callable[..., int]] = {
    "configured": configured,
    "supervised": supervised,
    "logging": logging_everything,
    "chatter": chatter,
    "repeating": repeating,
}

if __name__ == "__main__":
    _, name, *arguments = sys.argv
    sys.exit(PROGRAMS[name](*arguments))
