"""Which objects of S3 an image address may name: the GPU fetches them by its own role, whoever asks for them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

ALL = "*"
NONE = "none"
CLIENT = "{client}"
"""In a prefix: the id of the client that asks, so that each has a place of its own."""

# Buckets in us-east-1 made before 2018 may have capitals and underscores; the access-point forms are no buckets.
BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,253}[A-Za-z0-9]")
_NOT_IN_A_PREFIX = re.compile(r"[?#\\*\x00-\x1f\x7f]|//")


@dataclass(frozen=True, slots=True)
class BucketPrefix:
    """All objects of a bucket whose keys begin with `prefix`; with all of its objects if that is empty."""

    bucket: str
    prefix: str = ""

    def holds(self, bucket: str, key: str) -> bool:
        """Is this one of them?"""
        return bucket == self.bucket and key.startswith(self.prefix)


@dataclass(frozen=True, slots=True)
class ImageBuckets:
    """What may be named.

    Attributes:
        prefixes: None: whatever the GPU's role can read.
    """

    prefixes: Sequence[BucketPrefix] | None = None

    @property
    def are_all(self) -> bool:
        return self.prefixes is None

    def hold(self, bucket: str, key: str) -> bool:
        """May this object be named?"""
        return self.prefixes is None or any(prefix.holds(bucket, key) for prefix in self.prefixes)

    def for_client(self, client_id: str) -> ImageBuckets:
        """The same, as this client may use it."""
        if self.prefixes is None:
            return self
        return ImageBuckets([replace(each, prefix=each.prefix.replace(CLIENT, client_id)) for each in self.prefixes])


ALL_BUCKETS = ImageBuckets()


def parse_image_buckets(text: str) -> ImageBuckets:
    """Read `my-bucket,other/prefix/,uploads/{client}/`; `*` is every bucket, `none` is none.

    Raises:
        ValueError: with a sentence that names the entry.
    """
    entries = [entry.strip() for entry in text.split(",") if entry.strip()]
    if entries == [ALL]:
        return ALL_BUCKETS
    if entries == [NONE]:
        return ImageBuckets(())
    return ImageBuckets([_parse(entry) for entry in entries])


def _parse(entry: str) -> BucketPrefix:
    bucket, _, prefix = entry.partition("/")
    if not BUCKET.fullmatch(bucket):
        raise ValueError(f"{entry} is no bucket: write my-bucket or my-bucket/prefix/, without s3://")
    # A prefix that may end in the middle of a name would hold its neighbours as well: "cats" also "cats-private/".
    if prefix and not prefix.endswith("/"):
        raise ValueError(f"{entry} does not end with a slash: write {entry}/")
    if prefix.startswith("/") or _NOT_IN_A_PREFIX.search(prefix):
        raise ValueError(f"{entry} holds no object that an image address can name")
    return BucketPrefix(bucket, prefix)
