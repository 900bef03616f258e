"""A job really fetches, edits and uploads."""

import io

import pytest
from PIL import Image

from tests.devstack.upstream.images import read_sample
from tests.devstack.upstream.world import BUCKET, World

EDIT, CAMERA = "qwen-image-edit", "camera-angle"


def open_png(data: bytes) -> Image.Image:
    picture = Image.open(io.BytesIO(data))
    assert picture.format == "PNG"
    return picture


@pytest.mark.parametrize("kind", [EDIT, CAMERA])
async def test_an_image_from_s3_becomes_a_png_under_the_key_that_follows_from_the_job(world: World, kind: str) -> None:
    upstream = await world.start()
    world.s3.put_object(Bucket=BUCKET, Key="in/house one.jpg", Body=read_sample())

    job = await upstream.run(kind, {"image_url": f"s3://{BUCKET}/in/house one.jpg", "prompt": "线稿", "seed": 1})

    key = f"comfyui-results/{kind}/{job['job_id']}/output.png"
    assert (job["status"], job["result_s3_uri"], job["error"]) == ("completed", f"s3://{BUCKET}/{key}", None)
    assert open_png(world.result(kind, job["job_id"])).size == (768, 512)
    assert world.s3.head_object(Bucket=BUCKET, Key=key)["ContentType"] == "image/png"


@pytest.mark.parametrize(
    ("style", "base"),
    [("cdn", "https://pictures.example.net/"), ("schemeless", "pictures.example.net/")],
)
async def test_a_result_may_be_named_by_a_cdn_with_or_without_a_scheme(world: World, style: str, base: str) -> None:
    upstream = await world.start(RESULT_URI_STYLE=style, RESULT_CDN_BASE="https://pictures.example.net")

    job = await upstream.run(CAMERA, {"image_url": world.images.sample(), "steps": 1})

    assert job["result_s3_uri"] == f"{base}comfyui-results/camera-angle/{job['job_id']}/output.png"


async def test_three_images_stand_side_by_side_in_the_result(world: World) -> None:
    upstream = await world.start()
    urls = [world.images.sample(name) for name in ("house-on-a-hill.jpg", "portrait.jpg", "bottle.jpg")]
    body = {"image_url": urls[0], "image2_url": urls[1], "image3_url": urls[2], "prompt": "together", "seed": 1}

    job = await upstream.run(EDIT, body)

    width, height = open_png(world.result(EDIT, job["job_id"])).size
    assert width / height == pytest.approx((768 + 410 + 410 + 24) / 512, rel=0.01)


async def test_a_seed_makes_a_job_repeatable_and_none_makes_each_run_its_own(world: World) -> None:
    upstream = await world.start()
    body = {"image_url": world.images.sample(), "prompt": "warmer", "steps": 1}

    async def result(**extra: int) -> bytes:
        job = await upstream.run(EDIT, body | extra)
        return world.result(EDIT, job["job_id"])

    assert await result(seed=5) == await result(seed=5)
    assert await result(seed=5) != await result(seed=6)
    assert await result() != await result()


async def test_each_step_takes_its_time_and_is_logged(world: World) -> None:
    upstream = await world.start(STEP_S="0.05")

    job = await upstream.run(CAMERA, {"image_url": world.images.sample(), "steps": 6})

    progress = [line for line in upstream.log() if line["event"] == "job.progressed"]
    assert [(line["step"], line["steps"]) for line in progress] == [(step, 6) for step in range(1, 7)]
    started, completed = (run["at"] for run in upstream.runs() if run["job_id"] == job["job_id"])
    assert completed - started >= 6 * 0.05
