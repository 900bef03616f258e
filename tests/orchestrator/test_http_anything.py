"""Whatever is sent, it is answered, and never with a fault."""

from __future__ import annotations

import json
from urllib.parse import quote

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.orchestrator.http_world import (
    CAMERA_ANGLE_PATH,
    QWEN_PATH,
    World,
    assert_invalid_body,
)

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)
member_names = st.sampled_from(
    ["image_url", "prompt", "vertical", "zoom", "seed", "steps", "cfg", "denoise", "sampler_name", "image2_url"]
)
requests = st.dictionaries(member_names, json_values) | json_values


@settings(max_examples=150, deadline=None)
@given(
    body=st.binary() | requests.map(lambda value: json.dumps(value).encode()),
    path=st.sampled_from([CAMERA_ANGLE_PATH, QWEN_PATH]),
)
async def test_whatever_the_body_the_answer_is_a_job_or_a_clear_refusal(body: bytes, path: str) -> None:
    async with World() as world:
        response = await world.post_raw(body, path)
        if response.status_code != 202:
            assert_invalid_body(response)
        assert len(world.tasks.submitted) == (response.status_code == 202)


@settings(max_examples=150, deadline=None)
@given(
    path=st.text(st.characters(codec="utf-8"), max_size=40),
    method=st.sampled_from(["GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH", "TRACE"]),
    headers=st.dictionaries(
        st.sampled_from(
            [b"Idempotency-Key", b"X-Request-ID", b"Authorization", b"X-API-Key", b"Accept", b"Content-Type"]
        ),
        st.binary(max_size=60),
    ),
)
async def test_whatever_is_asked_is_answered_without_a_fault(
    path: str, method: str, headers: dict[bytes, bytes]
) -> None:
    async with World() as world:
        for url in ("/" + quote(path, safe="/%"), "/api/v1/jobs/x", CAMERA_ANGLE_PATH):
            response = await world.client.request(method, url, headers=headers, content=b"{}")
            assert response.status_code < 500
            assert response.headers["X-Request-ID"]
