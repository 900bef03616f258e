"""What the Unified API makes of an address, and what the POST lets through."""

from __future__ import annotations

from contextlib import suppress
from io import BytesIO
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib.gputask.image_url import UnacceptableImageUrl, check_image_url
from services.devstack.upstream.storage import ResultUriStyle, Storage


class Asked:
    """An S3 that notes what it is asked for."""

    def __init__(self) -> None:
        self.objects: list[tuple[str, str]] = []

    def get_object(self, *, Bucket: str, Key: str) -> dict[str, Any]:  # noqa: N803 # boto3's names
        self.objects.append((Bucket, Key))
        return {"Body": BytesIO(b"picture")}


def fetched(url: str) -> tuple[str, str]:
    s3: Any = Asked()
    storage = Storage(s3=s3, bucket="results", style=ResultUriStyle.S3, cdn_base="https://cdn", fetch_timeout_s=1)
    storage.fetch_image(url)
    ((bucket, key),) = s3.objects
    return bucket, key


KEYS = st.text() | st.lists(st.sampled_from(["a", "/", "?", "#", "%", " ", "..", ";", "+", "&", "图"])).map("".join)


@given(KEYS)
def test_the_object_that_an_accepted_address_names_is_the_one_that_is_fetched(key: str) -> None:
    with suppress(UnacceptableImageUrl):
        check_image_url(f"s3://pictures/{key}")
        assert fetched(f"s3://pictures/{key}") == ("pictures", key)


@pytest.mark.parametrize("key", ["a?b.png", "a#b.png", "/a.png", "a.png?", "a.png#"])
def test_what_would_be_read_as_another_object_is_refused_at_the_post(key: str) -> None:
    assert fetched(f"s3://pictures/{key}") != ("pictures", key)
    with pytest.raises(UnacceptableImageUrl):
        check_image_url(f"s3://pictures/{key}")
