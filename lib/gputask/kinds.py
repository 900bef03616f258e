"""The kinds of task there are: where each is posted, and what its request must be.

The models refuse what is certain to fail upstream, because finding out there costs waking a GPU. They never rewrite:
a body goes on as the client sent it, so defaults here only document those of the Unified API.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo
from pydantic_core import PydanticCustomError, PydanticKnownError

from lib.gputask.image_url import UnacceptableImageUrl, check_image_url
from lib.gputask.request_rules import DEFAULT_RULES, RequestRules

MAX_SEED = 2**64 - 1  # ComfyUI's samplers take an unsigned 64-bit number

# Beyond it a JSON number with a point or an exponent does not state one integer any more (RFC 7493, section 2.2).
_MAX_INTEGRAL_FLOAT = float(2**53)


Number = TypeVar("Number", int, float)


def _integer_of_float(value: Any) -> Any:
    # JSON Schema's integers include 40.0; pydantic's strict mode does not.
    if isinstance(value, float) and value.is_integer() and abs(value) <= _MAX_INTEGRAL_FLOAT:
        return int(value)
    return value


def _rules(info: ValidationInfo) -> RequestRules:
    rules: RequestRules = info.context or DEFAULT_RULES
    return rules


def _acceptable_image_url(url: str, info: ValidationInfo) -> str:
    try:
        check_image_url(url, _rules(info).images)
    except UnacceptableImageUrl as error:
        raise PydanticCustomError("image_url", "{reason}", {"reason": str(error)}) from error
    return url


def _seed_within_bounds(seed: int) -> int:
    # Not Field(le=...): pydantic states a bound beyond 63 bits as a rounded float.
    if not 0 <= seed <= MAX_SEED:
        raise PydanticCustomError("seed", "Input should be a whole number from 0 to {max}", {"max": str(MAX_SEED)})
    return seed


def _steps_within_limit(steps: int, info: ValidationInfo) -> int:
    return _at_most(steps, _rules(info).max_steps)


def _cfg_within_limit(cfg: float, info: ValidationInfo) -> float:
    return _at_most(cfg, _rules(info).max_cfg)


def _prompt_within_limit(prompt: str, info: ValidationInfo) -> str:
    limit = _rules(info).max_prompt
    if len(prompt) > limit:
        raise PydanticKnownError("string_too_long", {"max_length": limit})
    return prompt


def _at_most(value: Number, limit: float) -> Number:
    if value > limit:
        raise PydanticKnownError("less_than_equal", {"le": limit})
    return value


def _absent_if_empty(value: Any) -> Any:
    # Forms send an empty text for a picture that nobody chose; the Unified API takes it so, too.
    return None if value == "" else value


# Strict, because pydantic's lax mode takes false for 0 and "8" for 8.
_INTEGRAL = BeforeValidator(_integer_of_float)
Seed = Annotated[int, _INTEGRAL, Field(strict=True), AfterValidator(_seed_within_bounds)]
Steps = Annotated[int, _INTEGRAL, Field(strict=True, ge=1), AfterValidator(_steps_within_limit)]
Turn = Annotated[int, _INTEGRAL, Field(strict=True, ge=-2, le=2)]
Zoom = Annotated[int, _INTEGRAL, Field(strict=True, ge=-1, le=1)]
Guidance = Annotated[float, Field(strict=True, ge=0, allow_inf_nan=False), AfterValidator(_cfg_within_limit)]
Fraction = Annotated[float, Field(strict=True, ge=0, le=1)]
Prompt = Annotated[str, AfterValidator(_prompt_within_limit)]
# ComfyUI judges the names: which there are depends on what is installed there.
Name = Annotated[str, Field(min_length=1, max_length=64)]
ImageUrl = Annotated[str, AfterValidator(_acceptable_image_url)]
OptionalImageUrl = Annotated[ImageUrl | None, BeforeValidator(_absent_if_empty)]


_IMAGE_MEMBERS = frozenset({"image_url", "image2_url", "image3_url"})


class JobRequest(BaseModel):
    """What all requests have in common. Unknown members are ignored, as the Unified API does."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    image_url: ImageUrl
    seed: Seed | None = None

    def image_urls(self) -> Mapping[str, str]:
        """All addresses to fetch, by member."""
        return {name: value for name, value in self if name in _IMAGE_MEMBERS and value is not None}


class CameraAngleRequest(JobRequest):
    """The same scene from another angle, in steps of the camera."""

    prompt: Prompt | None = None
    # No nulls: the Unified API refuses them.
    vertical: Turn = 0
    horizontal: Turn = 0
    zoom: Zoom = 0
    steps: Steps | None = 8


class QwenImageEditRequest(JobRequest):
    """An image edited as a prompt says, with up to two further images to draw on."""

    prompt: Prompt
    image2_url: OptionalImageUrl = None
    image3_url: OptionalImageUrl = None
    steps: Steps | None = 4
    cfg: Guidance | None = 1.0
    sampler_name: Name | None = "sa_solver"
    scheduler: Name | None = "beta"
    denoise: Fraction | None = 1.0


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of task.

    Attributes:
        slug: its name in paths.
        request_model: what its requests must be.
    """

    slug: str
    request_model: type[JobRequest]

    @property
    def api_path(self) -> str:
        """Where it is posted, here and upstream; a record's `job_type`."""
        return f"/api/v1/{self.slug}/jobs"

    def check(self, request: object, rules: RequestRules = DEFAULT_RULES) -> JobRequest:
        """Validate a parsed JSON value.

        Raises:
            pydantic.ValidationError: with all that is wrong.
        """
        return self.request_model.model_validate(request, context=rules)


CAMERA_ANGLE = Kind("camera-angle", CameraAngleRequest)
QWEN_IMAGE_EDIT = Kind("qwen-image-edit", QwenImageEditRequest)

KINDS = (CAMERA_ANGLE, QWEN_IMAGE_EDIT)
KINDS_BY_PATH: Mapping[str, Kind] = MappingProxyType({kind.api_path: kind for kind in KINDS})
