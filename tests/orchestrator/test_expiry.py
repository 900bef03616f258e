from __future__ import annotations

from datetime import UTC, datetime
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.orchestrator.expiry import BOOT_S, end_of, expired, warning

BEGIN = datetime(2026, 3, 1, 12, 0, tzinfo=UTC).timestamp()
HOST = "https://pictures.s3.amazonaws.com/cat.png"
SIGNED = f"{HOST}?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=k%2Fus-east-1&X-Amz-Signature=00"
AZURE = "https://account.blob.core.windows.net/pictures/cat.png?sv=2024-11-04&sp=r&sig=a%3D"


@pytest.mark.parametrize(
    ("address", "end"),
    [
        (f"{SIGNED}&X-Amz-Date=20260301T120000Z&X-Amz-Expires=900", BEGIN + 900),
        (f"{SIGNED}&X-Amz-Expires=0&X-Amz-Date=20260301T120000Z", BEGIN),
        (f"{HOST}?X-Goog-Date=20260301T120000Z&X-Goog-Expires=60&X-Goog-Signature=00", BEGIN + 60),
        (f"{HOST}?AWSAccessKeyId=AKIA&Signature=a%3D&Expires={BEGIN:.0f}", BEGIN),
        (f"https://d1.cloudfront.net/cat.png?Expires={BEGIN:.0f}&Signature=a&Key-Pair-Id=K", BEGIN),
        (f"{AZURE}&se=2026-03-01T12:00:00Z", BEGIN),
        (f"{AZURE}&se=2026-03-01T12%3A00%3A00Z", BEGIN),
        (f"{AZURE}&se=2026-03-01T12:00Z", BEGIN),
        (f"{AZURE}&se=2026-03-01", BEGIN - 12 * 3600),
        (f"{AZURE}&se={quote('2026-03-01T13:00:00+01:00')}", BEGIN),
    ],
)
def test_presigned_addresses_say_when_they_end(address: str, end: float) -> None:
    assert end_of(address) == end


@pytest.mark.parametrize(
    "address",
    [
        HOST,
        f"{HOST}?Expires=1",
        f"{HOST}?Expires=1&Signature=x",
        f"{HOST}?se=2020-01-01",
        f"{HOST}?X-Amz-Expires=900",
        f"{SIGNED}&X-Amz-Date=yesterday&X-Amz-Expires=900",
        f"{SIGNED}&X-Amz-Date=20260301T120000Z&X-Amz-Expires=-1",
        f"{SIGNED}&X-Amz-Date=20260301T120000Z&X-Amz-Expires=" + "9" * 5000,
        f"{HOST}?AWSAccessKeyId=AKIA&Signature=a&Expires=soon",
        f"{AZURE}&se=never",
        f"{AZURE}&se=0001-01-01T00:00:00+23:59",
        "s3://pictures/cat.png",
        f"{HOST}#?X-Amz-Date=20260301T120000Z&X-Amz-Expires=900",
    ],
)
def test_other_addresses_do_not_end(address: str) -> None:
    assert end_of(address) is None


@given(st.text(), st.text(), st.text())
def test_any_query_is_read_or_left(one: str, other: str, third: str) -> None:
    for names in (("X-Amz-Date", "X-Amz-Expires", "a"), ("AWSAccessKeyId", "Signature", "Expires"), ("sig", "se", "a")):
        query = "&".join(f"{name}={quote(value)}" for name, value in zip(names, (one, other, third), strict=True))
        addresses = {"image_url": f"{HOST}?{query}"}
        for now in (0.0, BEGIN, 1e12):
            expired(addresses, now)
            assert (warning(addresses, now) or "").isascii()


@pytest.mark.parametrize(
    ("left_s", "is_expired", "is_warned_of"),
    [(-1, True, False), (0, True, False), (1, False, True), (BOOT_S - 1, False, True), (BOOT_S, False, False)],
)
def test_an_address_that_ends_before_a_boot_is_warned_of_and_a_dead_one_refused(
    left_s: int, *, is_expired: bool, is_warned_of: bool
) -> None:
    addresses = {"image_url": HOST, "image2_url": f"{SIGNED}&X-Amz-Date=20260301T120000Z&X-Amz-Expires=900"}
    now = BEGIN + 900 - left_s
    said = {"image2_url": "The image address expired at 2026-03-01T12:15:00Z"}
    assert expired(addresses, now) == (said if is_expired else {})
    assert (warning(addresses, now) is not None) is is_warned_of
    if is_warned_of:
        assert str(warning(addresses, now)).startswith(f"image2_url expires in {left_s} s; a GPU that sleeps")
