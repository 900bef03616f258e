"""What a request says in the Unified API's words, and ComfyUI in others."""

from __future__ import annotations

import json
from collections.abc import Mapping

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
