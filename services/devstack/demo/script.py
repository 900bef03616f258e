"""What happens in the demo: who asks for what, and how it should end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

CAMERA_ANGLE = "/api/v1/camera-angle/jobs"
QWEN_IMAGE_EDIT = "/api/v1/qwen-image-edit/jobs"


@dataclass(frozen=True, slots=True)
class Scene:
    """One request and its expected end.

    Attributes:
        answer: the HTTP status of the POST.
        ends: the job's last status; None where there is no job.
        says: what an error must contain.
        same_job_as: title of the scene whose job this request must get, too.
    """

    title: str
    path: str
    body: Mapping[str, Any]
    answer: int = 202
    ends: str | None = "completed"
    says: str = ""
    idempotency_key: str | None = None
    same_job_as: str | None = None


def scenes(*, bucket: str, picture_url: str) -> tuple[Scene, ...]:
    """The demo's requests in their order.

    Args:
        bucket: where the sample pictures lie.
        picture_url: http address of one of them.
    """
    house, portrait, bottle = (
        f"s3://{bucket}/samples/{name}.jpg" for name in ("house-on-a-hill", "portrait", "bottle")
    )
    line_art = Scene(
        "line art", QWEN_IMAGE_EDIT, {"image_url": house, "prompt": "变成线稿", "seed": 7}, idempotency_key="demo-1"
    )
    return (
        Scene(
            "bad request",
            QWEN_IMAGE_EDIT,
            {"image_url": "ftp://example.com/a.png", "prompt": "sketch", "steps": "8"},
            answer=422,
            ends=None,
            says="steps",
        ),
        line_art,
        Scene("camera angle", CAMERA_ANGLE, {"image_url": house, "horizontal": 2, "vertical": 1, "seed": 7}),
        Scene(
            "the same again",
            line_art.path,
            line_art.body,
            idempotency_key=line_art.idempotency_key,
            same_job_as=line_art.title,
        ),
        Scene(
            "three images",
            QWEN_IMAGE_EDIT,
            {"image_url": portrait, "image2_url": bottle, "image3_url": house, "prompt": "one poster", "seed": 3},
        ),
        Scene(
            "missing picture",
            CAMERA_ANGLE,
            {"image_url": f"s3://{bucket}/no-such.png"},
            ends="failed",
            says="NoSuchKey",
        ),
        Scene("over http", CAMERA_ANGLE, {"image_url": picture_url, "zoom": 1, "seed": 1}),
    )
