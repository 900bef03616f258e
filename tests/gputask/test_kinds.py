from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from lib.gputask.image_url import ImageUrlRules
from lib.gputask.kinds import CAMERA_ANGLE, KINDS, KINDS_BY_PATH, QWEN_IMAGE_EDIT, Kind
from lib.gputask.request_rules import RequestRules

IMAGE = "s3://pictures/cat.png"
CAMERA: dict[str, Any] = {"image_url": IMAGE}
QWEN: dict[str, Any] = {"image_url": IMAGE, "prompt": "sketch"}


def members_at_fault(kind: Kind, request: object) -> set[str]:
    with pytest.raises(ValidationError) as caught:
        kind.check(request)
    return {str(error["loc"][0]) for error in caught.value.errors()}


def test_kinds_are_known_by_the_path_of_the_unified_api() -> None:
    assert set(KINDS_BY_PATH) == {"/api/v1/camera-angle/jobs", "/api/v1/qwen-image-edit/jobs"}
    assert [KINDS_BY_PATH[kind.api_path] for kind in KINDS] == list(KINDS)


def test_defaults_are_those_of_the_unified_api() -> None:
    assert CAMERA_ANGLE.check(CAMERA).model_dump() == {
        "image_url": IMAGE,
        "seed": None,
        "prompt": None,
        "vertical": 0,
        "horizontal": 0,
        "zoom": 0,
        "steps": 8,
    }
    assert QWEN_IMAGE_EDIT.check(QWEN).model_dump() == {
        "image_url": IMAGE,
        "seed": None,
        "prompt": "sketch",
        "image2_url": None,
        "image3_url": None,
        "steps": 4,
        "cfg": 1.0,
        "sampler_name": "sa_solver",
        "scheduler": "beta",
        "denoise": 1.0,
    }


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("prompt", ""),
        ("prompt", "把相机视角稍微提高"),
        ("prompt", "x" * 10_000),
        ("vertical", -2),
        ("vertical", 2.0),
        ("horizontal", 2),
        ("zoom", -1),
        ("seed", 0),
        ("seed", 2**64 - 1),
        ("seed", 40.0),
        ("seed", 1e5),
        ("seed", float(2**53)),
        ("steps", 1),
        ("steps", 100),
        ("prompt", None),
        ("seed", None),
        ("steps", None),
        ("unknown", {"anything": [1, "a"]}),
    ],
)
def test_camera_angle_takes(name: str, value: object) -> None:
    CAMERA_ANGLE.check(CAMERA | {name: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("image2_url", "https://example.com/2.png"),
        ("image3_url", None),
        ("image2_url", ""),
        ("image3_url", ""),
        ("prompt", ""),
        ("cfg", 0),
        ("cfg", 30),
        ("cfg", 7.5),
        ("denoise", 0),
        ("denoise", 1),
        ("denoise", 0.35),
        *[
            ("sampler_name", name)
            for name in ("sa_solver", "lcm", "euler_a", "er_sde", "euler", "uni_pc", "x" * 64, None)
        ],
        ("scheduler", "sgm_uniform"),
        ("scheduler", None),
        ("steps", None),
        ("cfg", None),
        ("denoise", None),
    ],
)
def test_qwen_image_edit_takes(name: str, value: object) -> None:
    QWEN_IMAGE_EDIT.check(QWEN | {name: value})


NOT_INTEGERS: list[object] = [True, False, "8", "", 8.5, [], {}, [8]]
NOT_NUMBERS: list[object] = [True, False, "1", [], {}]
NOT_STRINGS: list[object] = [1, 1.5, True, [], {}, ["a"]]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[(name, value) for name in ("vertical", "horizontal", "zoom", "seed", "steps") for value in NOT_INTEGERS],
        *[(name, value) for name in ("prompt", "image_url") for value in NOT_STRINGS],
        *[(name, value) for name in ("vertical", "horizontal") for value in (-3, 3, 10**30)],
        *[("zoom", value) for value in (-2, 2, 0.5)],
        *[(name, None) for name in ("vertical", "horizontal", "zoom")],
        *[("seed", value) for value in (-1, 2**64, 1e19, 1e300, -1.0, 10**4000)],
        *[("steps", value) for value in (0, 101, -1)],
        ("prompt", "x" * 10_001),
        ("image_url", None),
        ("image_url", ""),
        ("image_url", "ftp://example.com/cat.png"),
        ("image_url", "http://169.254.169.254/"),
    ],
)
def test_camera_angle_refuses(name: str, value: object) -> None:
    assert members_at_fault(CAMERA_ANGLE, CAMERA | {name: value}) == {name}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[(name, value) for name in ("cfg", "denoise") for value in NOT_NUMBERS],
        *[(name, value) for name in ("prompt", "scheduler", "sampler_name", "image2_url") for value in NOT_STRINGS],
        ("prompt", None),
        ("prompt", "x" * 10_001),
        ("cfg", -0.1),
        ("cfg", 30.1),
        ("denoise", -0.1),
        ("denoise", 1.1),
        ("denoise", float("nan")),
        ("cfg", float("inf")),
        ("sampler_name", ""),
        ("sampler_name", "x" * 65),
        ("scheduler", ""),
        ("scheduler", "x" * 65),
        ("image3_url", "http://localhost/"),
    ],
)
def test_qwen_image_edit_refuses(name: str, value: object) -> None:
    assert members_at_fault(QWEN_IMAGE_EDIT, QWEN | {name: value}) == {name}


def test_all_that_is_wrong_is_said_at_once() -> None:
    request = {"image_url": "", "image2_url": "ftp://x/y", "seed": "1", "steps": 0, "cfg": True, "sampler_name": ""}
    assert members_at_fault(QWEN_IMAGE_EDIT, request) == {*request, "prompt"}


def test_a_refused_image_address_says_why_in_a_sentence() -> None:
    with pytest.raises(ValidationError) as caught:
        CAMERA_ANGLE.check({"image_url": "ftp://example.com/cat.png"})
    (error,) = caught.value.errors()
    assert error["type"] == "image_url"
    assert error["msg"] == "The image address must start with s3://, https:// or http://"


def test_private_image_addresses_pass_only_where_allowed() -> None:
    request = QWEN | {"image_url": "http://127.0.0.1:9000/cat.png", "image2_url": "http://minio/cat.png"}
    assert members_at_fault(QWEN_IMAGE_EDIT, request) == {"image_url", "image2_url"}
    QWEN_IMAGE_EDIT.check(request, RequestRules(images=ImageUrlRules(allow_private=True)))
    # The permission belongs to one check, not to the process.
    assert members_at_fault(QWEN_IMAGE_EDIT, request) == {"image_url", "image2_url"}


def test_the_seed_bound_is_stated_to_its_last_digit() -> None:
    with pytest.raises(ValidationError) as caught:
        CAMERA_ANGLE.check(CAMERA | {"seed": 2**64})
    (error,) = caught.value.errors()
    assert error["msg"] == "Input should be a whole number from 0 to 18446744073709551615"


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("steps", 12, "less than or equal to 12"),
        ("cfg", 1.5, "less than or equal to 1.5"),
        ("prompt", "x" * 20, "at most 20 characters"),
    ],
)
def test_the_limits_are_the_operators(name: str, value: Any, said: str) -> None:
    rules = RequestRules(max_steps=12, max_cfg=1.5, max_prompt=20)
    QWEN_IMAGE_EDIT.check(QWEN | {name: value}, rules)
    with pytest.raises(ValidationError) as caught:
        QWEN_IMAGE_EDIT.check(QWEN | {name: value * 2}, rules)
    (error,) = caught.value.errors()
    assert error["loc"] == (name,)
    assert said in error["msg"]
