"""What a newcomer sees first."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from tests.system.client import eventually
from tests.system.test_soak import processes_writing_below

INTERRUPTED = 130


async def start_demo(folder: Path, *arguments: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "services.devstack",
        *(arguments or ("demo",)),
        cwd=folder,
        env=os.environ | {"TMPDIR": str(folder)},
        stdout=asyncio.subprocess.PIPE,
    )


@pytest.mark.timeout(300)
async def test_the_demo_tells_the_story_without_a_terminal_and_exits_0(tmp_path: Path) -> None:
    demo = await start_demo(tmp_path)
    output = (await demo.communicate())[0].decode()
    assert demo.returncode == 0, output
    assert "GPU instance is stopping" in output
    assert "$53.81 a day" in output
    pictures = sorted(picture.name for picture in (tmp_path / "demo-results").glob("*.png"))
    assert pictures == ["camera-angle.png", "line-art.png", "over-http.png", "three-images.png"]
    assert processes_writing_below(tmp_path) == []


@pytest.mark.timeout(120)
async def test_ctrl_c_leaves_no_process_behind(tmp_path: Path) -> None:
    demo = await start_demo(tmp_path)

    async def adapter_runs() -> bool:
        return (tmp_path / "demo-results" / "logs" / "adapter.log").exists()

    await eventually(adapter_runs)
    demo.send_signal(signal.SIGINT)
    await demo.communicate()
    assert demo.returncode == INTERRUPTED
    assert processes_writing_below(tmp_path) == []


@pytest.mark.timeout(120)
async def test_ctrl_c_is_how_the_system_that_is_left_running_ends(tmp_path: Path) -> None:
    up = await start_demo(tmp_path, "up", "--port", "0")
    assert up.stdout is not None
    shown = [await up.stdout.readline() for _ in range(5)]
    assert b"Ctrl-C" in shown[-1], shown
    up.send_signal(signal.SIGINT)
    await up.communicate()
    assert up.returncode == 0
    assert processes_writing_below(tmp_path) == []
