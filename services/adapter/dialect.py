"""What requests and failures say in one party's words, and another one understands in others."""

from __future__ import annotations

import json
from collections.abc import Mapping

_NO_OUTPUT = "No output images generated"
_NO_OUTPUT_HINT = "an image that cannot be decoded looks like this; are the image addresses those of whole pictures?"

# The earlier API's name for it; ComfyUI refuses that workflow with 400.
_SAMPLERS: Mapping[object, str] = {"euler_a": "euler_ancestral"}


def for_comfyui(body: str) -> str:
    """The body with names that ComfyUI knows; the very same text where there is nothing to translate.

    Args:
        body: JSON text of an object.
    """
    if not any(f'"{name}"' in body for name in _SAMPLERS):
        return body
    members = json.loads(body)
    sampler = members.get("sampler_name")
    if not isinstance(sampler, str) or sampler not in _SAMPLERS:
        return body
    return json.dumps(members | {"sampler_name": _SAMPLERS[sampler]})


def for_client(reason: str) -> str:
    """The reason of a failure, with a hint where the Unified API's words do not lead to the usual cause."""
    return f"{reason} ({_NO_OUTPUT_HINT})" if _NO_OUTPUT in reason else reason
