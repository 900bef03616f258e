"""Image addresses that stop working by themselves: presigned ones say when, and the GPU may wake later than that."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from urllib.parse import parse_qsl, urlsplit

BOOT_S = 180
"""Until a GPU that sleeps can fetch an image."""

_SECONDS = re.compile(r"[0-9]{1,11}", re.ASCII)
# S3 (signature 4) and what copied it.
_DATES_AND_PERIODS = (("x-amz-date", "x-amz-expires"), ("x-goog-date", "x-goog-expires"))
# S3 (signature 2), CloudFront and Cloud Storage; `Expires` alone may mean anything.
_SIGNERS = frozenset({"awsaccesskeyid", "key-pair-id", "googleaccessid"})


def expired(addresses: Mapping[str, str], now: float) -> Mapping[str, str]:
    """A sentence for each address (by its member's name) that nobody can fetch any more."""
    ends = _ends(addresses)
    return {name: f"The image address expired at {_clock_time(end)}" for name, end in ends.items() if end <= now}


def warning(addresses: Mapping[str, str], now: float) -> str | None:
    """What may go wrong with those that end before a GPU that sleeps could fetch them; ASCII, for a header."""
    ends = _ends(addresses)
    soon = [f"{name} expires in {end - now:.0f} s" for name, end in ends.items() if now < end < now + BOOT_S]
    return f"{', '.join(soon)}; a GPU that sleeps needs up to {BOOT_S} s to start" if soon else None


def _ends(addresses: Mapping[str, str]) -> Mapping[str, float]:
    ends = {name: end_of(address) for name, address in addresses.items()}
    return {name: end for name, end in ends.items() if end is not None}


def end_of(address: str) -> float | None:
    """When a presigned address ends (epoch seconds); None where it does not say so in a form of S3's or Azure's.

    https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-query-string-auth.html (signature 2: RESTAuthentication.html),
    https://learn.microsoft.com/en-us/rest/api/storageservices/create-service-sas
    """
    query = _query(address)
    for date, period in _DATES_AND_PERIODS:
        if date in query and period in query:
            return _end_of_period(query[date], query[period])
    if "expires" in query and "signature" in query and not _SIGNERS.isdisjoint(query):
        return _seconds(query["expires"])
    if "se" in query and "sig" in query:
        return _moment(query["se"])
    return None


def _query(address: str) -> Mapping[str, str]:
    if not address.startswith(("https://", "http://")):
        return {}
    return {name.lower(): value for name, value in parse_qsl(urlsplit(address).query)}


def _end_of_period(date: str, period: str) -> float | None:
    seconds = _seconds(period)
    try:
        begin = datetime.strptime(date, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    except ValueError:
        return None
    return None if seconds is None else begin.timestamp() + seconds


def _seconds(text: str) -> float | None:
    return float(text) if _SECONDS.fullmatch(text) else None


def _moment(text: str) -> float | None:
    try:
        moment = datetime.fromisoformat(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None


def _clock_time(moment: float) -> str:
    try:
        return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (ValueError, OverflowError, OSError):
        return f"{moment:.0f} s after 1970"
