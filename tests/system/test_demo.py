"""What a newcomer sees first."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from pathlib import Path

import aiohttp
import pytest

from services.devstack.environments import api_keys
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


async def shown_by(up: asyncio.subprocess.Process) -> dict[str, str]:
    """What the system that is left running prints, by the first word of each line, up to its last line."""
    assert up.stdout is not None
    shown: dict[str, str] = {}
    while not any("Ctrl-C" in line for line in shown.values()):
        line = (await up.stdout.readline()).decode()
        assert line, shown
        shown[line.split()[0]] = line
    return shown


@pytest.mark.timeout(120)
async def test_ctrl_c_is_how_the_system_that_is_left_running_ends_and_its_logs_stay(tmp_path: Path) -> None:
    up = await start_demo(tmp_path, "up", "--port", "0")
    await shown_by(up)
    up.send_signal(signal.SIGINT)
    await up.communicate()
    assert up.returncode == 0
    assert processes_writing_below(tmp_path) == []
    assert "orchestrator.started" in (tmp_path / "demo-up-logs" / "orchestrator.log").read_text()


@pytest.mark.timeout(180)
async def test_the_system_that_is_left_running_takes_keys_and_local_pages_and_the_doctor_looks_at_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("API_KEYS", api_keys({"web": "secret"}))
    up = await start_demo(tmp_path, "up", "--port", "0")
    shown = await shown_by(up)
    async with aiohttp.ClientSession(shown["orchestrator"].split()[1]) as http:
        page = {"Origin": "http://localhost:5173"}
        for headers, status in ((page, 401), (page | {"X-API-Key": "secret"}, 404)):
            async with http.get("/api/v1/jobs/x", headers=headers) as answer:
                assert answer.status == status
                assert answer.headers["Access-Control-Allow-Origin"] == page["Origin"]
    command = shown["doctor"].partition(" ")[2]
    doctor = await asyncio.create_subprocess_shell(command, stdout=asyncio.subprocess.PIPE)
    report = (await doctor.communicate())[0].decode()
    up.send_signal(signal.SIGINT)
    await up.communicate()
    assert doctor.returncode == 1
    broken = [line.split()[1:2] for line in report.splitlines() if line.startswith("broken")]
    assert broken == [["alarm"], ["function"], ["instance"]]
    assert re.search(r"ok +orchestrator +http://\S+ is healthy and ready", report)
