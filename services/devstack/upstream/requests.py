"""The request bodies of the Unified API, checked as little as it checks them."""

from typing import Any, ClassVar, Literal

from pydantic import BaseModel, model_validator

# Literals, so that 1.0 is taken and 0.5 or "1" is not.
TurnSteps = Literal[-2, -1, 0, 1, 2]
Zoom = Literal[-1, 0, 1]


class JobRequest(BaseModel):
    """What all jobs have in common. Unknown members are ignored; a null stands for the default where one is taken."""

    refuses_null: ClassVar[frozenset[str]] = frozenset()

    image_url: str
    prompt: str = ""
    seed: int | None = None
    steps: int = 8

    @model_validator(mode="before")
    @classmethod
    def _read_null_as_default(cls, body: Any) -> Any:
        if not isinstance(body, dict):
            return body
        required = {name for name, field in cls.model_fields.items() if field.is_required()} | cls.refuses_null
        return {name: value for name, value in body.items() if value is not None or name in required}

    @property
    def image_urls(self) -> list[str]:
        """The images to fetch, in order."""
        return [self.image_url]


class CameraAngleRequest(JobRequest):
    """Show the picture from elsewhere: `vertical` and `horizontal` in camera steps, `zoom` closer or further away."""

    refuses_null: ClassVar[frozenset[str]] = frozenset({"vertical", "horizontal", "zoom"})

    vertical: TurnSteps = 0
    horizontal: TurnSteps = 0
    zoom: Zoom = 0


class QwenImageEditRequest(JobRequest):
    """Edit the picture as `prompt` says, with up to two more pictures to draw from.

    Ranges and names are ComfyUI's business, not checked here: a bad one ends the job, it does not refuse it.
    """

    prompt: str
    image2_url: str | None = None
    image3_url: str | None = None
    steps: int = 4
    cfg: float = 1.0
    sampler_name: str = "sa_solver"
    scheduler: str = "beta"
    denoise: float = 1.0

    @property
    def image_urls(self) -> list[str]:
        """The images to fetch, in order."""
        return [self.image_url, *(url for url in (self.image2_url, self.image3_url) if url)]
