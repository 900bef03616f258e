"""The request bodies of the Unified API, checked as little as it checks them."""

from typing import Annotated

from pydantic import BaseModel, Field

TurnSteps = Annotated[float, Field(ge=-2, le=2)]
Zoom = Annotated[float, Field(ge=-1, le=1)]


class CameraAngleRequest(BaseModel):
    """Show the picture from elsewhere: `vertical` and `horizontal` in camera steps, `zoom` as a share."""

    image_url: str
    prompt: str = ""
    vertical: TurnSteps = 0.0
    horizontal: TurnSteps = 0.0
    zoom: Zoom = 0.0
    seed: int | None = None
    steps: int = 8

    @property
    def image_urls(self) -> list[str]:
        """The images to fetch, in order."""
        return [self.image_url]


class QwenImageEditRequest(BaseModel):
    """Edit the picture as `prompt` says, with up to two more pictures to draw from.

    Ranges and names are ComfyUI's business, not checked here: a bad one ends the job, it does not refuse it.
    """

    image_url: str
    prompt: str
    image2_url: str | None = None
    image3_url: str | None = None
    seed: int | None = None
    steps: int = 4
    cfg: float = 1.0
    sampler_name: str = "sa_solver"
    scheduler: str = "beta"
    denoise: float = 1.0

    @property
    def image_urls(self) -> list[str]:
        """The images to fetch, in order."""
        return [url for url in (self.image_url, self.image2_url, self.image3_url) if url]


JobRequest = CameraAngleRequest | QwenImageEditRequest
