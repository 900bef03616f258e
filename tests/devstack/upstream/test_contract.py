"""Both sides of the POST: whatever is promised here with 202 is not refused there, after the GPU was woken for it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from lib.gputask.kinds import CAMERA_ANGLE, QWEN_IMAGE_EDIT, Kind
from services.adapter.dialect import for_comfyui
from services.devstack.upstream import requests
from services.devstack.upstream.comfyui import is_valid

IMAGE = "s3://pictures/cat.png"
REQUIRED: dict[Kind, dict[str, Any]] = {
    CAMERA_ANGLE: {"image_url": IMAGE},
    QWEN_IMAGE_EDIT: {"image_url": IMAGE, "prompt": "sketch"},
}
THERE: dict[Kind, type[requests.JobRequest]] = {
    CAMERA_ANGLE: requests.CameraAngleRequest,
    QWEN_IMAGE_EDIT: requests.QwenImageEditRequest,
}


def is_taken_here(kind: Kind, body: dict[str, Any]) -> bool:
    try:
        kind.check(body)
    except ValidationError:
        return False
    return True


def is_taken_there(kind: Kind, body: dict[str, Any]) -> bool:
    try:
        THERE[kind].model_validate(body)
    except ValidationError:
        return False
    return True


@pytest.mark.parametrize(
    ("kind", "changes", "here", "there"),
    [
        (CAMERA_ANGLE, {}, True, True),
        (CAMERA_ANGLE, {"vertical": 2.0, "horizontal": -2, "zoom": 1}, True, True),
        *[(CAMERA_ANGLE, {name: None}, False, False) for name in ("vertical", "horizontal", "zoom")],
        *[(CAMERA_ANGLE, {name: "1"}, False, False) for name in ("vertical", "horizontal", "zoom")],
        (CAMERA_ANGLE, {"vertical": 3}, False, False),
        (CAMERA_ANGLE, {"zoom": 0.5}, False, False),
        (CAMERA_ANGLE, {"steps": None, "seed": None, "prompt": None}, True, True),
        (QWEN_IMAGE_EDIT, {"image2_url": "", "image3_url": ""}, True, True),
        (QWEN_IMAGE_EDIT, {"image2_url": None, "image3_url": None}, True, True),
        (QWEN_IMAGE_EDIT, {"prompt": ""}, True, True),
        (QWEN_IMAGE_EDIT, {"prompt": None}, False, False),
        (QWEN_IMAGE_EDIT, {"sampler_name": "dpmpp_2m"}, True, True),
        (QWEN_IMAGE_EDIT, {"sampler_name": "euler_a"}, True, True),
        (QWEN_IMAGE_EDIT, {"unknown": [1]}, True, True),
        # Refused here though taken there: it fails later, or is beyond what this service promises.
        (QWEN_IMAGE_EDIT, {"sampler_name": ""}, False, True),
        (QWEN_IMAGE_EDIT, {"steps": 101}, False, True),
        (QWEN_IMAGE_EDIT, {"steps": "4"}, False, True),
        (QWEN_IMAGE_EDIT, {"cfg": 31}, False, True),
        (QWEN_IMAGE_EDIT, {"prompt": "x" * 10_001}, False, True),
        (QWEN_IMAGE_EDIT, {"seed": -1}, False, True),
        (QWEN_IMAGE_EDIT, {"image_url": "no address"}, False, True),
    ],
)
def test_what_each_side_takes(kind: Kind, changes: dict[str, Any], *, here: bool, there: bool) -> None:
    body = REQUIRED[kind] | changes
    assert (is_taken_here(kind, body), is_taken_there(kind, body)) == (here, there)


ODD: st.SearchStrategy[Any] = st.sampled_from(
    [None, "", "1", "8", True, False, 0, 1, -1, 2, 3, 1.0, 0.5, -0.0, 1e5, 2.5, 101, [], {}, "beta"]
)
MEMBERS = (
    *("vertical", "horizontal", "zoom", "seed", "steps", "prompt", "image2_url", "image3_url"),
    *("cfg", "denoise", "sampler_name", "scheduler", "unknown"),
)
BODIES = st.dictionaries(
    st.sampled_from(MEMBERS),
    ODD | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    max_size=5,
)


@pytest.mark.parametrize("kind", [CAMERA_ANGLE, QWEN_IMAGE_EDIT])
@given(changes=BODIES)
def test_what_is_taken_here_is_taken_there(kind: Kind, changes: dict[str, Any]) -> None:
    body = REQUIRED[kind] | changes
    if is_taken_here(kind, body):
        THERE[kind].model_validate_json(for_comfyui(json.dumps(body)))


@given(changes=BODIES)
def test_of_what_is_taken_here_comfyui_judges_the_names_only(changes: dict[str, Any]) -> None:
    body = REQUIRED[QWEN_IMAGE_EDIT] | changes | {"sampler_name": "euler_a", "scheduler": "beta"}
    if is_taken_here(QWEN_IMAGE_EDIT, body):
        request = requests.QwenImageEditRequest.model_validate_json(for_comfyui(json.dumps(body)))
        assert is_valid(request, 0 if request.seed is None else request.seed)
