"""What a request may say as far as an operator decides it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from lib.gputask.image_url import ANY_PUBLIC_IMAGE, ImageUrlRules


@dataclass(frozen=True, slots=True)
class RequestRules:
    """The limits are ours: the Unified API takes more, and ComfyUI judges it later.

    Attributes:
        images: which addresses an image may have.
        max_steps: of sampling.
        max_cfg: of guidance.
        max_prompt: characters.
    """

    images: ImageUrlRules = ANY_PUBLIC_IMAGE
    max_steps: int = 100
    max_cfg: float = 30.0
    max_prompt: int = 10_000

    def for_client(self, client_id: str) -> RequestRules:
        """The same, as they hold for this client."""
        return replace(self, images=self.images.for_client(client_id))


DEFAULT_RULES = RequestRules()
