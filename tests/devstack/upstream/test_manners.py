"""The stand-in has the manners of the real Unified API: what it answers, when, and what it forgets."""

import json
import signal
from pathlib import Path

from tests.devstack.upstream.world import World, until

EDIT, CAMERA = "qwen-image-edit", "camera-angle"


async def test_a_post_to_an_idle_api_is_answered_200_and_pending_before_the_job_runs(world: World) -> None:
    upstream, gate = await world.start(), world.images.gate()

    answer = await upstream.post(CAMERA, {"image_url": gate.url})

    assert answer.status == 200
    job_id = answer.body["job_id"]
    assert answer.body == {"job_id": job_id, "status": "pending", "result_s3_uri": None, "error": None}
    await gate.wait_until_reached()
    assert upstream.events(job_id) == ["started"]


async def test_a_get_sent_during_a_job_is_answered_once_the_job_has_ended(world: World) -> None:
    upstream, gate = await world.start(), world.images.gate()
    job_id = await upstream.submit(EDIT, {"image_url": gate.url, "prompt": "sketch"})
    await gate.wait_until_reached()

    poll = await upstream.send("GET", f"/api/v1/jobs/{job_id}")
    assert await poll.is_unanswered()
    gate.open()

    assert (await poll.answer()).body["status"] == "completed"
    assert upstream.events(job_id) == ["started", "completed"]


async def test_health_and_root_are_silent_during_a_job_though_tcp_connects(world: World) -> None:
    upstream, gate = await world.start(), world.images.gate()
    job_id = await upstream.submit(CAMERA, {"image_url": gate.url})
    await gate.wait_until_reached()

    health, root = await upstream.send("GET", "/health"), await upstream.send("GET", "/")
    assert await health.is_unanswered()
    assert await root.is_unanswered()
    gate.open()

    assert (await health.answer()).status == 200
    assert (await root.answer()).status == 200
    assert upstream.events(job_id) == ["started", "completed"]


async def test_a_get_sent_after_a_second_post_is_answered_after_the_second_job(world: World) -> None:
    upstream, first, second = await world.start(), world.images.gate(), world.images.gate()
    first_id = await upstream.submit(CAMERA, {"image_url": first.url})
    await first.wait_until_reached()
    post = await upstream.send("POST", f"/api/v1/{CAMERA}/jobs", {"image_url": second.url})
    poll = await upstream.send("GET", f"/api/v1/jobs/{first_id}")
    assert await post.is_unanswered()

    first.open()
    second_id = (await post.answer()).body["job_id"]
    await second.wait_until_reached()
    assert upstream.events(first_id) == ["started", "completed"]
    assert await poll.is_unanswered()
    second.open()

    assert (await poll.answer()).body["status"] == "completed"
    assert upstream.events(second_id) == ["started", "completed"]


async def test_a_post_abandoned_by_its_client_runs_all_the_same(world: World) -> None:
    upstream, first, second = await world.start(), world.images.gate(), world.images.gate()
    await upstream.submit(CAMERA, {"image_url": first.url})
    await first.wait_until_reached()
    post = await upstream.send("POST", f"/api/v1/{CAMERA}/jobs", {"image_url": second.url, "prompt": "abandoned"})
    await post.abandon()

    first.open()
    await second.wait_until_reached()
    second.open()

    await until(
        lambda: [run["event"] for run in upstream.runs() if run["prompt"] == "abandoned"] == ["started", "completed"]
    )


async def test_a_job_is_found_at_every_path_of_its_kind_and_of_none(world: World) -> None:
    upstream = await world.start()
    job_id = await upstream.submit(CAMERA, {"image_url": world.images.sample()})

    at_kind = await upstream.get(f"/api/v1/{CAMERA}/jobs/{job_id}")

    assert at_kind == await upstream.get(f"/api/v1/jobs/{job_id}")
    assert at_kind == await upstream.get(f"/api/v1/{EDIT}/jobs/{job_id}")
    assert set(at_kind.body) == {"job_id", "status", "result_s3_uri", "error"}


async def test_what_it_does_not_know_is_404_in_fastapis_shape(world: World) -> None:
    upstream = await world.start()

    job, route = await upstream.get("/api/v1/jobs/no-such-job"), await upstream.get("/api/v1/no-such-route")

    assert (job.status, job.body) == (404, {"detail": "Job not found"})
    assert (route.status, route.body) == (404, {"detail": "Not Found"})


async def test_health_is_200_and_healthy_and_only_comfyui_status_tells_the_truth(world: World) -> None:
    upstream = await world.start(UNHEALTHY_FOR_S="3600")

    health = await upstream.get("/health")

    assert (health.status, health.body["status"], health.body["comfyui_status"]) == (200, "healthy", "unhealthy")
    failed = await upstream.run(CAMERA, {"image_url": world.images.sample()})
    assert (failed["status"], failed["error"]) == ("failed", "[Errno 111] Connection refused")
    well = await (await world.start()).get("/health")
    assert well.body["comfyui_status"] == "healthy"


async def test_a_restart_forgets_every_job_although_the_result_lies_in_the_bucket(world: World) -> None:
    upstream = await world.start()
    job = await upstream.run(CAMERA, {"image_url": world.images.sample()})
    await upstream.kill()

    answer = await (await world.start()).get(f"/api/v1/jobs/{job['job_id']}")

    assert answer.status == 404
    assert world.result(CAMERA, job["job_id"])


async def test_sigterm_is_ignored_until_the_job_has_ended_and_its_result_is_uploaded(world: World) -> None:
    upstream, gate = await world.start(), world.images.gate()
    job_id = await upstream.submit(CAMERA, {"image_url": gate.url})
    await gate.wait_until_reached()

    upstream.process.send_signal(signal.SIGTERM)
    health = await upstream.send("GET", "/health")
    assert await health.is_unanswered()
    assert upstream.process.returncode is None
    gate.open()
    await upstream.wait_for_exit()
    await health.abandon()

    assert upstream.events(job_id) == ["started", "completed"]
    assert world.result(CAMERA, job_id)


async def test_an_idle_api_ends_on_sigterm(world: World) -> None:
    upstream = await world.start()
    await upstream.get("/health")

    upstream.process.send_signal(signal.SIGTERM)

    assert await upstream.wait_for_exit() in {0, -signal.SIGTERM}


async def test_when_it_is_killed_comfyui_goes_on_and_the_next_job_waits_behind_the_orphan(
    world: World, tmp_path: Path
) -> None:
    state = tmp_path / "comfyui.json"
    upstream = await world.start(STEP_S="0.5", COMFYUI_STATE=str(state))
    orphan_id = await upstream.submit(CAMERA, {"image_url": world.images.sample(), "steps": 4})
    await until(state.exists)
    await upstream.kill()
    busy_until = json.loads(state.read_text())["busy_until"]

    successor = await world.start(STEP_S="0", COMFYUI_STATE=str(state))
    job = await successor.run(CAMERA, {"image_url": world.images.sample(), "steps": 1})

    assert job["status"] == "completed"
    assert next(run["at"] for run in successor.runs() if run["event"] == "completed") >= busy_until
    assert successor.events(orphan_id) == ["started"]
    assert not state.exists()


async def test_a_request_id_reaches_the_log_and_the_run_log(world: World) -> None:
    upstream = await world.start()

    answer = await upstream.post(CAMERA, {"image_url": world.images.sample()}, headers="X-Request-ID: request-7\r\n")
    job_id = answer.body["job_id"]
    await upstream.get(f"/api/v1/jobs/{job_id}")

    assert {run["request_id"] for run in upstream.runs()} == {"request-7"}
    named = {line["event"] for line in upstream.log() if line.get("request_id") == "request-7"}
    assert {"job.accepted", "job.started", "job.progressed", "job.completed"} <= named
