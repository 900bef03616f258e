"""Asking ComfyUI itself about a job over which the Unified API hangs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from lib.gputask.kinds import QWEN_IMAGE_EDIT
from lib.gputask.message import TaskMessage
from lib.gputask.record import ErrorCode, Status, TaskRecord
from services.adapter.comfyui import ComfyUi as ComfyUiClient
from services.adapter.comfyui import Wedges
from services.adapter.restart import Restart
from services.adapter.run import Completed, Failed, Outcome, Runner
from services.adapter.upstream import UnifiedApi as UnifiedApiClient
from services.adapter.upstream import open_session
from services.adapter.wedge import Ended, Sight
from tests.adapter import unified_api
from tests.adapter.comfyui import ComfyUi, comfyui
from tests.adapter.unified_api import RESULT, Behaviour, UnifiedApi, answering, hang, in_turn, showing
from tests.adapter.waiting import until

AFTER_S = 0.4
TASK = TaskRecord(
    task_id="task-1", status=Status.PROCESSING, job_type=QWEN_IMAGE_EDIT.api_path, created_at=0, updated_at=0
)
MESSAGE = TaskMessage(TASK.task_id, TASK.job_type, '{"image_url": "s3://pictures/cat.png"}')


@pytest.fixture
async def core() -> AsyncIterator[ComfyUi]:
    async with comfyui() as listening:
        yield listening


@pytest.fixture
async def core_client(core: ComfyUi) -> AsyncIterator[ComfyUiClient]:
    async with open_session(core.url) as session:
        yield ComfyUiClient(session)


@pytest.fixture
def restart_file(tmp_path: Path) -> Path:
    return tmp_path / "restart"


@pytest.fixture
def runner(client: UnifiedApiClient, core_client: ComfyUiClient, restart_file: Path) -> Runner:
    wedges = Wedges(comfyui=core_client, restart=Restart(restart_file), after_s=AFTER_S, clock=time.monotonic)
    return Runner(api=client, deadline_s=60.0, poll_interval_s=0.02, wedges=wedges)


def was_touched(file: Path) -> bool:
    return file.exists()


async def run(runner: Runner) -> Outcome:
    async def note(comfy_job_id: str) -> None:
        pass

    return await runner.run(TASK, MESSAGE, note, request_id="request-1")


async def test_a_look_tells_the_queue_and_the_end_of_the_job(core: ComfyUi, core_client: ComfyUiClient) -> None:
    assert await core_client.sight("job-1") == Sight(is_idle=True, ended=None)
    core.end("job-1", error="cannot identify image file")
    core.running.append([1])
    assert await core_client.sight("job-1") == Sight(
        is_idle=False, ended=Ended("LoadImage: cannot identify image file")
    )
    assert not await core_client.is_idle()


ODD: list[Any] = [
    pytest.param(answering(500, {}), id="500"),
    pytest.param(answering(200, text="<html>"), id="html"),
    pytest.param(answering(200, text="[" * 100_000), id="nested"),
    pytest.param(answering(200, text=" " * 9_000_000 + "{}"), id="endless"),
    pytest.param(answering(302, Location="/queue"), id="redirect"),
    pytest.param(unified_api.reset, id="reset"),
    pytest.param(unified_api.break_off, id="broken-off"),
    pytest.param(unified_api.speak_no_http, id="no-http"),
]


@pytest.mark.parametrize("behaviour", ODD)
async def test_what_comfyui_does_not_say_is_not_known(
    core: ComfyUi, core_client: ComfyUiClient, behaviour: Behaviour
) -> None:
    core.on_queue = core.on_history = behaviour
    assert await core_client.sight("job-1") is None
    assert not await core_client.is_idle()


@pytest.mark.parametrize("silence", [hang, showing("processing")])
async def test_a_job_that_failed_there_fails_with_its_true_cause_and_the_restart_is_asked_for(
    api: UnifiedApi, core: ComfyUi, runner: Runner, restart_file: Path, silence: Behaviour
) -> None:
    api.on_look = silence
    running = asyncio.create_task(run(runner))
    await until(lambda: bool(api.runs))
    core.end(api.runs[0], error="cannot identify image file '/root/ComfyUI/input/x.png'")
    outcome = await running
    assert outcome == Failed(ErrorCode.UPSTREAM_FAILED, "LoadImage: cannot identify image file '(a local file)'")
    assert was_touched(restart_file)


async def test_a_picture_that_nobody_uploaded_is_no_result_but_another_attempt(
    api: UnifiedApi, core: ComfyUi, runner: Runner, restart_file: Path
) -> None:
    api.on_look = hang
    running = asyncio.create_task(run(runner))
    await until(lambda: bool(api.runs))
    core.end(api.runs[0])
    outcome = await running
    assert isinstance(outcome, Failed)
    assert outcome.blames_upstream
    assert "nobody uploaded it" in outcome.message
    assert was_touched(restart_file)


async def test_a_job_at_work_is_waited_for(api: UnifiedApi, core: ComfyUi, runner: Runner, restart_file: Path) -> None:
    """ComfyUI has another job's end in its history, and this one running."""
    core.end("another-job")
    core.running.append([1])
    api.on_look = in_turn(*[hang] * 8, showing("completed", result_s3_uri=RESULT))
    assert await run(runner) == Completed(RESULT)
    assert not was_touched(restart_file)


async def test_a_comfyui_that_does_not_answer_changes_nothing(
    api: UnifiedApi, core: ComfyUi, runner: Runner, restart_file: Path
) -> None:
    core.on_queue = answering(500)
    api.on_look = in_turn(*[hang] * 8, showing("completed", result_s3_uri=RESULT))
    assert await run(runner) == Completed(RESULT)
    assert core.asked
    assert not was_touched(restart_file)


async def test_a_silence_that_ends_before_the_verdict_is_no_wedge(
    api: UnifiedApi, core: ComfyUi, runner: Runner, restart_file: Path
) -> None:
    """Uploading takes a while."""

    async def end_there(request: Any) -> Any:
        core.end(api.runs[0])
        return await hang(request)

    api.on_look = in_turn(end_there, hang, showing("completed", result_s3_uri=RESULT))
    assert await run(runner) == Completed(RESULT)
    assert not was_touched(restart_file)


async def test_comfyui_is_asked_only_as_often_as_a_verdict_needs(
    api: UnifiedApi, core: ComfyUi, runner: Runner
) -> None:
    """An upstream that answers meanwhile is looked at far more often."""
    running = asyncio.create_task(run(runner))
    await until(lambda: len(api.looks) > 20)
    api.end(api.runs[0])
    assert await running == Completed(RESULT)
    assert len(core.asked) < len(api.looks) / 2
