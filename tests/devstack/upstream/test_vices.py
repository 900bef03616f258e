"""Each vice is off by default and comes when it is called."""

import asyncio
import signal
import sys
from random import Random

from services.adapter.comfyui import ComfyUi
from services.adapter.upstream import open_session
from services.adapter.wedge import Ended, Sight
from services.devstack.ports import ReservedPort
from services.devstack.upstream.vices import Vices
from tests.devstack.upstream.images import DEADLINE_S
from tests.devstack.upstream.world import ROOT, World, until

CAMERA = "camera-angle"


async def test_a_job_whose_end_is_missed_silences_the_api_for_ever_and_outlasts_sigterm(world: World) -> None:
    upstream = await world.start(HANG_ON="unnoticed")
    assert (await upstream.run(CAMERA, {"image_url": world.images.sample(), "prompt": "seen"}))["status"] == "completed"

    job_id = await upstream.submit(CAMERA, {"image_url": world.images.sample(), "prompt": "ends unnoticed"})
    await until(lambda: any(line["event"] == "job.end_missed" for line in upstream.log()))
    health = await upstream.send("GET", "/health")
    upstream.process.send_signal(signal.SIGTERM)

    assert await health.is_unanswered()
    assert upstream.process.returncode is None
    assert upstream.events(job_id) == ["started"]
    await health.abandon()


async def test_comfyui_itself_tells_the_end_that_was_missed(world: World) -> None:
    with ReservedPort() as port:
        upstream = await world.start(HANG_ON="unnoticed", COMFYUI_PORT=str(port.number))
        job_id = await upstream.submit(CAMERA, {"image_url": world.images.sample(), "prompt": "ends unnoticed"})
        await until(lambda: any(line["event"] == "job.end_missed" for line in upstream.log()))
        async with open_session(f"http://127.0.0.1:{port.number}") as session:
            assert await ComfyUi(session).sight(job_id) == Sight(is_idle=True, ended=Ended())
            assert await ComfyUi(session).sight("another") == Sight(is_idle=True, ended=None)


async def test_comfyui_tells_of_a_node_error_and_of_what_runs(world: World) -> None:
    with ReservedPort() as port:
        upstream = await world.start(FAIL_ON="broken", HANG_ON="broken", STEP_S="0.5", COMFYUI_PORT=str(port.number))
        async with open_session(f"http://127.0.0.1:{port.number}") as session:
            core = ComfyUi(session)
            assert await core.is_idle()
            body = {"image_url": world.images.sample(), "prompt": "broken", "steps": 2}
            job_id = await upstream.submit("qwen-image-edit", body)
            async with asyncio.timeout(DEADLINE_S):
                while await core.is_idle():  # noqa: ASYNC110 - another process's
                    await asyncio.sleep(0.01)
            await until(lambda: any(line["event"] == "job.end_missed" for line in upstream.log()))
            ended = Ended("KSampler: No output images generated")
            assert await core.sight(job_id) == Sight(is_idle=True, ended=ended)


async def test_a_lost_cuda_context_fails_job_after_job_while_the_health_is_fine(world: World) -> None:
    upstream = await world.start(LOSE_CUDA_ON="fatal")
    sample = world.images.sample()
    assert (await upstream.run(CAMERA, {"image_url": sample, "prompt": "fine"}))["status"] == "completed"
    assert "CUDA error" in (await upstream.run(CAMERA, {"image_url": sample, "prompt": "fatal"}))["error"]
    assert "CUDA error" in (await upstream.run(CAMERA, {"image_url": sample, "prompt": "fine"}))["error"]
    assert (await upstream.get("/health")).body["comfyui_status"] == "healthy"


async def test_it_refuses_and_confuses_jobs_when_asked_to(world: World) -> None:
    upstream = await world.start(REFUSE_ON="later", CONFUSE_ON="twin")
    sample = world.images.sample()
    assert (await upstream.post(CAMERA, {"image_url": sample, "prompt": "later"})).status == 503
    job_id = await upstream.submit(CAMERA, {"image_url": sample, "prompt": "twin"})
    assert (await upstream.get(f"/api/v1/jobs/{job_id}")).body["job_id"] != job_id


async def test_any_job_may_hang_and_the_seed_says_which(world: World) -> None:
    vices = Vices(hang_probability=0.5, dice=Random(34))
    fate = [vices.misses_the_end("") for _ in range(10)]
    spared = fate.index(True)
    assert spared >= 3  # a seed whose first hang is late enough not to come by chance
    upstream = await world.start(HANG_PROBABILITY="0.5", VICE_SEED="34")
    body = {"image_url": world.images.sample("bottle.jpg"), "steps": 1}

    for _ in range(spared):
        assert (await upstream.run(CAMERA, body))["status"] == "completed"
    await upstream.submit(CAMERA, body)

    await until(lambda: any(line["event"] == "job.end_missed" for line in upstream.log()))


def test_which_jobs_hang_follows_from_the_seed() -> None:
    def draw(seed: int) -> list[bool]:
        vices = Vices(hang_probability=0.2, dice=Random(seed))
        return [vices.misses_the_end("any") for _ in range(200)]

    assert draw(1) == draw(1)
    assert draw(1) != draw(2)
    assert 20 < sum(draw(1)) < 60


async def test_a_polite_api_answers_meanwhile_and_runs_jobs_in_order(world: World) -> None:
    upstream, first, second = await world.start(BLOCKING="false"), world.images.gate(), world.images.gate()
    first_id = await upstream.submit(CAMERA, {"image_url": first.url})
    await first.wait_until_reached()
    second_id = await upstream.submit(CAMERA, {"image_url": second.url})

    assert (await upstream.get("/health")).body["status"] == "healthy"
    assert (await upstream.get(f"/api/v1/jobs/{first_id}")).body["status"] == "processing"
    assert (await upstream.get(f"/api/v1/jobs/{second_id}")).body["status"] == "pending"
    assert not second.reached.is_set()
    first.open()
    await second.wait_until_reached()
    assert (await upstream.get(f"/api/v1/jobs/{first_id}")).body["status"] == "completed"
    second.open()
    await until(lambda: upstream.events(second_id) == ["started", "completed"])


async def test_a_polite_api_ends_on_sigterm_after_its_running_job_and_leaves_the_rest(world: World) -> None:
    upstream, gate = await world.start(BLOCKING="false"), world.images.gate()
    running_id = await upstream.submit(CAMERA, {"image_url": gate.url})
    waiting_id = await upstream.submit(CAMERA, {"image_url": gate.url})
    await gate.wait_until_reached()

    upstream.process.send_signal(signal.SIGTERM)
    await until(lambda: any(line["event"] == "upstream.closing" for line in upstream.log()))
    gate.open()
    await upstream.wait_for_exit()

    assert upstream.events(running_id) == ["started", "completed"]
    assert upstream.events(waiting_id) == []
    assert world.result(CAMERA, running_id)


async def test_it_dies_in_mid_job_without_a_word(world: World) -> None:
    upstream = await world.start(DIE_ON="fatal")

    job_id = await upstream.submit(CAMERA, {"image_url": world.images.sample(), "prompt": "fatal", "steps": 4})

    assert await upstream.wait_for_exit() == 1
    assert upstream.events(job_id) == ["started"]
    assert [line["step"] for line in upstream.log() if line["event"] == "job.progressed"] == [1, 2]


async def test_it_forgets_a_job_it_has_finished(world: World) -> None:
    upstream = await world.start(FORGET_ON="fleeting")

    job_id = await upstream.submit(CAMERA, {"image_url": world.images.sample(), "prompt": "fleeting"})

    assert (await upstream.get(f"/api/v1/jobs/{job_id}")).status == 404
    assert upstream.events(job_id) == ["started", "completed"]


async def test_a_node_error_ends_the_job_in_its_middle(world: World) -> None:
    upstream = await world.start(FAIL_ON="broken")

    job = await upstream.run(CAMERA, {"image_url": world.images.sample(), "prompt": "broken"})

    assert (job["status"], job["error"]) == ("failed", "No output images generated")


async def test_comfyui_dying_in_mid_job_fails_it_and_the_following_ones_until_it_is_back(world: World) -> None:
    upstream = await world.start(COMFYUI_DIES_ON="earthquake", COMFYUI_RESTART_S="1")
    sample = world.images.sample()

    struck = await upstream.run(CAMERA, {"image_url": sample, "prompt": "earthquake"})
    after = await upstream.run(CAMERA, {"image_url": sample})
    assert struck["error"] == "[Errno 104] Connection reset by peer"
    assert after["error"] == "[Errno 111] Connection refused"
    assert (await upstream.get("/health")).body == {"status": "healthy", "comfyui_status": "unhealthy"}

    async with asyncio.timeout(DEADLINE_S):
        while (await upstream.get("/health")).body["comfyui_status"] != "healthy":  # noqa: ASYNC110 - another process's
            await asyncio.sleep(0.05)
    assert (await upstream.run(CAMERA, {"image_url": sample}))["status"] == "completed"


async def test_wrong_settings_are_named_in_one_line_and_end_the_start_with_78(world: World) -> None:
    wrong = {
        "RESULT_BUCKET": "",
        "PORT": "http",
        "STEP_S": "-1",
        "RESULT_URI_STYLE": "gopher",
        "RESULT_CDN_BASE": "cdn",
        "HANG_PROBABILITY": "2",
        "BLOCKING": "perhaps",
        "LOG_LEVEL": "loud",
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "services.devstack.upstream",
        cwd=ROOT,
        env=world.environment() | wrong,
        stderr=asyncio.subprocess.PIPE,
    )
    _, stderr = await process.communicate()

    assert process.returncode == 78
    assert len(stderr.splitlines()) == 1
    assert [name for name in wrong if f"{name}: " not in stderr.decode()] == []
