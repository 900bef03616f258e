"""What is refused at POST, what is not, and the words in which the rest fails."""

import hashlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.devstack.upstream.world import BUCKET, Upstream, World, open_world

# One stand-in for the whole table: a refusal leaves nothing behind.
pytestmark = pytest.mark.asyncio(loop_scope="module")

EDIT, CAMERA = "qwen-image-edit", "camera-angle"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    directory: Path = tmp_path_factory.mktemp("refusals")
    async with open_world(directory) as opened:
        yield opened


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def upstream(world: World) -> Upstream:
    return await world.start(FETCH_TIMEOUT_S="1")


@pytest.mark.parametrize(
    ("kind", "body", "error_type", "loc"),
    [
        (CAMERA, {}, "missing", ["body", "image_url"]),
        (CAMERA, {"image_url": 7}, "string_type", ["body", "image_url"]),
        (CAMERA, {"image_url": "x", "vertical": 3}, "literal_error", ["body", "vertical"]),
        (CAMERA, {"image_url": "x", "zoom": 0.5}, "literal_error", ["body", "zoom"]),
        (CAMERA, {"image_url": "x", "steps": "many"}, "int_parsing", ["body", "steps"]),
        (CAMERA, {"image_url": "x", "vertical": "1"}, "literal_error", ["body", "vertical"]),
        (CAMERA, {"image_url": "x", "vertical": None}, "literal_error", ["body", "vertical"]),
        (CAMERA, {"image_url": "x", "horizontal": None}, "literal_error", ["body", "horizontal"]),
        (CAMERA, {"image_url": "x", "zoom": None}, "literal_error", ["body", "zoom"]),
        (EDIT, {"image_url": "x"}, "missing", ["body", "prompt"]),
        (EDIT, {"image_url": "x", "prompt": None}, "string_type", ["body", "prompt"]),
        (EDIT, [], "model_attributes_type", ["body"]),
        (EDIT, b'{"image_url": ', "json_invalid", ["body", 14]),
    ],
)
async def test_a_bad_body_is_422_in_fastapis_shape(
    upstream: Upstream, kind: str, body: object, error_type: str, loc: list[object]
) -> None:
    runs = upstream.runs()

    answer = await upstream.post(kind, body)

    assert answer.status == 422
    error = answer.body["detail"][0]
    assert (error["type"], error["loc"]) == (error_type, loc)
    assert {"type", "loc", "msg", "input"} <= set(error)
    assert upstream.runs() == runs


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ({"image_url": ""}, "unknown url type: ''"),
        ({"image_url": "file:///etc/hostname"}, "unknown url type: 'file:///etc/hostname'"),
        ({"image_url": "{images}/missing"}, "HTTP Error 404: Not Found"),
        ({"image_url": "http://127.0.0.1:1/x.png"}, "<urlopen error [Errno 111] Connection refused>"),
        ({"image_url": f"s3://{BUCKET}/no/such/key.png"}, "NoSuchKey"),
        ({"image_url": "{images}/silent"}, "timed out"),
        ({"image_url": "{images}/garbage"}, "No output images generated"),
        ({"image_url": "{images}/truncated"}, "No output images generated"),
        ({"image_url": "{sample}", "image3_url": "{images}/garbage"}, "No output images generated"),
        ({"image_url": "{sample}", "steps": 0}, "HTTP Error 400: Bad Request"),
        ({"image_url": "{sample}", "steps": 10_001}, "HTTP Error 400: Bad Request"),
        ({"image_url": "{sample}", "seed": -1}, "HTTP Error 400: Bad Request"),
        ({"image_url": "{sample}", "sampler_name": "no_such_sampler"}, "HTTP Error 400: Bad Request"),
        ({"image_url": "{sample}", "sampler_name": "euler_a"}, "HTTP Error 400: Bad Request"),
        ({"image_url": "{sample}", "scheduler": "no_such_scheduler"}, "HTTP Error 400: Bad Request"),
        ({"image_url": "{sample}", "denoise": 1.5}, "HTTP Error 400: Bad Request"),
        ({"image_url": "{sample}", "cfg": -1}, "HTTP Error 400: Bad Request"),
    ],
)
async def test_what_is_not_checked_at_post_fails_later_in_the_real_words(
    world: World, upstream: Upstream, body: dict[str, Any], error: str
) -> None:
    places = {"images": world.images.url, "sample": world.images.sample()}
    filled = {name: value.format(**places) if isinstance(value, str) else value for name, value in body.items()}

    job = await upstream.run(EDIT, {"prompt": "sketch", **filled})

    assert job["status"] == "failed"
    assert error in job["error"]
    assert job["result_s3_uri"] is None
    assert upstream.events(job["job_id"]) == ["started", "failed"]


@pytest.mark.parametrize(
    "extra",
    [
        {"steps": "2"},
        {"steps": 2.0},
        {"steps": None},
        {"seed": None},
        {"unknown": 1},
        {"prompt": "word " * 20_000},
        {"prompt": ""},
        {"image2_url": "", "image3_url": ""},
        *[{"sampler_name": name} for name in ("euler", "euler_ancestral", "dpmpp_2m", "uni_pc", "sa_solver", "er_sde")],
        {"cfg": 31},
    ],
)
async def test_it_is_as_lax_as_pydantic(world: World, upstream: Upstream, extra: dict[str, object]) -> None:
    job = await upstream.run(EDIT, {"image_url": world.images.sample(), "prompt": "sketch", "steps": 1, **extra})

    assert job["status"] == "completed"


@pytest.mark.parametrize("turn", [2, -2.0, 0.0])
async def test_a_turn_is_one_of_its_numbers_with_or_without_a_point(
    world: World, upstream: Upstream, turn: float
) -> None:
    job = await upstream.run(CAMERA, {"image_url": world.images.sample(), "vertical": turn, "steps": 1})

    assert job["status"] == "completed"


async def test_a_server_that_drips_bytes_blocks_for_longer_than_the_timeout(world: World, upstream: Upstream) -> None:
    job = await upstream.run(CAMERA, {"image_url": f"{world.images.url}/drip"})

    assert job["status"] == "completed"
    started, completed = (run["at"] for run in upstream.runs() if run["job_id"] == job["job_id"])
    assert completed - started > 1


async def test_a_failed_upload_fails_the_job(world: World) -> None:
    upstream = await world.start(RESULT_BUCKET="no-such-bucket")

    job = await upstream.run(CAMERA, {"image_url": world.images.sample()})

    assert job["status"] == "failed"
    assert "NoSuchBucket" in job["error"]


async def test_the_run_log_knows_the_body_byte_for_byte(world: World, upstream: Upstream) -> None:
    body = f'{{"image_url":  "{world.images.sample()}", "steps": 1}}'.encode()

    job = await upstream.run(CAMERA, body)

    assert {run["body_sha256"] for run in upstream.runs() if run["job_id"] == job["job_id"]} == {
        hashlib.sha256(body).hexdigest()
    }
