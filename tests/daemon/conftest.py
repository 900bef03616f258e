from __future__ import annotations

import asyncio
import os
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

Start = Callable[..., Awaitable[Process]]

ROOT = Path(__file__).parents[2]


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    """Starts one of our sample programs; none outlives its test."""
    started: list[Process] = []

    async def start_one(*arguments: str, environment: dict[str, str] | None = None) -> Process:
        command = (sys.executable, "-m", "tests.daemon.programs", *arguments)
        process = await asyncio.create_subprocess_exec(
            *command, cwd=ROOT, env=os.environ | (environment or {}), stdin=PIPE, stdout=PIPE, stderr=PIPE
        )
        started.append(process)
        return process

    yield start_one
    for process in started:
        if process.returncode is None:
            process.kill()
        await process.communicate()
