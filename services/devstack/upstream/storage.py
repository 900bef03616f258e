"""Where pictures come from (s3, http, https) and where results go (s3)."""

import urllib.request
from enum import StrEnum
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client


class ResultUriStyle(StrEnum):
    """The three ways a Unified API names its results."""

    S3 = "s3"
    CDN = "cdn"
    SCHEMELESS = "schemeless"


class Storage:
    """Fetches inputs and keeps results.

    Args:
        s3: Client for both.
        bucket: Bucket of the results.
        style: How a result is named to the client.
        cdn_base: What a CDN URL begins with, scheme included; the key follows after a slash.
        fetch_timeout_s: Longest silence (seconds) of an image server. Not a limit for the whole download: a server that
            drips bytes blocks the real API without end, and so it does here.
    """

    def __init__(
        self, *, s3: "S3Client", bucket: str, style: ResultUriStyle, cdn_base: str, fetch_timeout_s: float
    ) -> None:
        self._s3 = s3
        self._bucket = bucket
        self._style = style
        self._cdn_base = cdn_base.rstrip("/")
        self._fetch_timeout_s = fetch_timeout_s

    def fetch_image(self, url: str) -> bytes:
        """Return the bytes behind `url`.

        Raises:
            ValueError: `url` is none we can fetch.
            OSError: The image server refused, timed out or answered an error (urllib's own texts).
            botocore.exceptions.ClientError: S3 refused.
        """
        parts = urlsplit(url)
        if parts.scheme == "s3":
            answer = self._s3.get_object(Bucket=parts.netloc, Key=parts.path.lstrip("/"))
            return answer["Body"].read()
        if parts.scheme not in {"http", "https"}:
            # urllib would also open file: and ftp:, which must not reach this machine's files.
            raise ValueError(f"unknown url type: {url!r}")
        with urllib.request.urlopen(url, timeout=self._fetch_timeout_s) as answer_stream:
            content: bytes = answer_stream.read()
        return content

    def keep_result(self, *, kind: str, job_id: str, png: bytes) -> str:
        """Upload a result under the key that follows from the job and return the URI a client is given."""
        key = f"comfyui-results/{kind}/{job_id}/output.png"
        self._s3.put_object(Bucket=self._bucket, Key=key, Body=png, ContentType="image/png")
        match self._style:
            case ResultUriStyle.S3:
                return f"s3://{self._bucket}/{key}"
            case ResultUriStyle.CDN:
                return f"{self._cdn_base}/{key}"
            case ResultUriStyle.SCHEMELESS:
                return f"{self._cdn_base.partition('://')[2]}/{key}"
