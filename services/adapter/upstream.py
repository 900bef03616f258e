"""The ComfyUI Unified API as a client sees it: submit, look, ask for its health.

It answers nothing while a job runs (its event loop is blocked), so silence is the normal answer to a question asked in
mid-job, and one GET with a long timeout is a perfect long poll.
"""

from __future__ import annotations

import asyncio
import json
import re
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import aiohttp

from lib.gputask.gpu import UpstreamHealth
from services.adapter.dialect import for_client, for_comfyui
from services.adapter.errors import (
    SubmissionUnknown,
    UpstreamForgot,
    UpstreamGarbled,
    UpstreamRejected,
    UpstreamSilent,
    UpstreamUnreachable,
    UpstreamUnready,
)

_CONNECT_TIMEOUT_S = 5.0
_MAX_DETAIL_CHARS = 2000
_MAX_ANSWER_BYTES = 1_000_000
_MAX_ID_CHARS = 256
_MAX_ADDRESS_CHARS = 8192  # a presigned one with a session token needs about 2,500
# They speak of the server, its door or its gateway, and not of the job.
_NOT_THE_JOBS_FAULT = frozenset({401, 403, 404, 408, 425, 429, 502, 503, 504})
# With a scheme, or as the CDN's host and path alone.
_ADDRESS = re.compile(
    r"s3://[\w.-]+/\S+|https?://[^\s/]+/\S+|[a-z0-9-]+(\.[a-z0-9-]+)+(:\d+)?/\S+", re.ASCII | re.IGNORECASE
)
# What a server's own error tells of itself: a client needs neither its folders nor its neighbours.
_LOCAL_PATH = re.compile(r"(?<![\w./:])(?:/[\w.@+-]+){2,}/?|\b[A-Za-z]:\\\S+")
_INTERNAL_URL = re.compile(
    r"https?://(?:localhost|127\.[\d.]+|10\.[\d.]+|192\.168\.[\d.]+|172\.(?:1[6-9]|2\d|3[01])\.[\d.]+|169\.254\.[\d.]+"
    r"|\[[0-9a-f:]+\]|[\w-]+(?=[:/\s]|$))(?::\d+)?[^\s'\")>]*",
    re.IGNORECASE,
)
_ERRNO = re.compile(r"\[Errno -?\d+\] ?")


@dataclass(frozen=True, slots=True)
class UpstreamJob:
    """A *job* as the Unified API gives it."""

    id: str
    status: str
    result_s3_uri: str | None
    error: str | None


def open_session(url: str) -> aiohttp.ClientSession:
    """A session for `UnifiedApi`. Every request has a connection of its own.

    On a kept connection that the server closes at the same moment nobody can tell whether a POST has arrived.
    """
    connector = aiohttp.TCPConnector(force_close=True, limit=0)
    # No `total` here: aiohttp's own can swallow a cancellation that falls due at the same moment; asyncio's cannot.
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_TIMEOUT_S)
    return aiohttp.ClientSession(base_url=url, connector=connector, timeout=timeout)


class UnifiedApi:
    """Submits jobs and looks at them. No method retries; see `services.adapter.run`."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    async def health(self, timeout_s: float) -> UpstreamHealth:
        """`/health` is 200 and "healthy" even when ComfyUI is gone; the truth is in `comfyui_status`."""
        try:
            async with asyncio.timeout(timeout_s), self._get("/health") as answer:
                members = json.loads(await read_text(answer))
        except TimeoutError:
            return UpstreamHealth.BUSY
        except (aiohttp.ClientError, UpstreamGarbled, ValueError, RecursionError):
            return UpstreamHealth.UNHEALTHY
        healthy = answer.status == 200 and isinstance(members, dict) and _is_healthy(members)
        return UpstreamHealth.HEALTHY if healthy else UpstreamHealth.UNHEALTHY

    async def submit(self, api_path: str, body: str, *, request_id: str, timeout_s: float) -> UpstreamJob:
        """POST one job. Not idempotent.

        Raises:
            UpstreamUnreachable: it was certainly not sent.
            UpstreamRejected: it was refused.
            UpstreamUnready: the server refused it for reasons of its own.
            SubmissionUnknown: it may run, under an id that nobody told us.
        """
        headers = {"Content-Type": "application/json", "X-Request-ID": request_id}
        data = for_comfyui(body).encode()
        try:
            # aiohttp would follow a 307 or 308 with another POST.
            async with (
                asyncio.timeout(timeout_s),
                self._session.post(api_path, data=data, headers=headers, allow_redirects=False) as answer,
            ):
                text = await read_text(answer)
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            raise UpstreamUnreachable("the Unified API does not listen") from error
        except (aiohttp.ClientError, TimeoutError, UpstreamGarbled) as error:
            raise SubmissionUnknown(f"the answer to the submission was lost ({type(error).__name__})") from error
        if answer.status in _NOT_THE_JOBS_FAULT:
            raise UpstreamUnready(f"the Unified API takes no jobs now ({answer.status})")
        if 400 <= answer.status < 500:
            raise UpstreamRejected(f"the Unified API refused the request ({answer.status}): {_detail(text)}")
        if answer.status >= 300:
            raise SubmissionUnknown(f"the Unified API answered {answer.status} to the submission")
        try:
            return _job(text)
        except UpstreamGarbled as error:
            raise SubmissionUnknown("the answer to the submission is no job") from error

    async def look(self, job_id: str, *, timeout_s: float) -> UpstreamJob:
        """GET one job.

        Raises:
            UpstreamForgot: it is unknown.
            UpstreamSilent: no answer within `timeout_s`.
            UpstreamUnreachable: nobody listens.
            UpstreamGarbled: the answer is no job, or another one, or the connection broke.
        """
        path = f"/api/v1/jobs/{quote(job_id, safe='')}"
        try:
            async with asyncio.timeout(timeout_s), self._get(path) as answer:
                text = await read_text(answer)
        except TimeoutError as error:
            raise UpstreamSilent("the Unified API does not answer") from error
        except aiohttp.ClientConnectorError as error:
            raise UpstreamUnreachable("the Unified API does not listen") from error
        except aiohttp.ClientError as error:
            raise UpstreamGarbled("the connection to the Unified API broke") from error
        if answer.status == 404 and _is_own_404(text):
            raise UpstreamForgot("the Unified API does not know the job any more")
        if answer.status != 200:
            raise UpstreamGarbled(f"the Unified API answered {answer.status}")
        job = _job(text)
        if job.id != job_id:
            raise UpstreamGarbled("the Unified API answered with another job")
        return job

    def _get(self, path: str) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        # A redirect leads to another server's answer, whose 404 would mean "forgotten", and its job another's picture.
        return self._session.get(path, allow_redirects=False)


async def read_text(answer: aiohttp.ClientResponse, *, most_bytes: int = _MAX_ANSWER_BYTES) -> str:
    """A bounded body as text, whatever charset it claims.

    Raises:
        UpstreamGarbled: it is longer.
    """
    body = bytearray()
    async for chunk in answer.content.iter_chunked(65_536):
        body += chunk
        if len(body) > most_bytes:
            answer.close()
            raise UpstreamGarbled("the answer is too long")
    return body.decode(errors="replace")


def _is_own_404(text: str) -> bool:
    """A proxy's page, or FastAPI's "Not Found" for an unknown route, says nothing of the job."""
    try:
        return bool(json.loads(text) == {"detail": "Job not found"})
    except (ValueError, RecursionError):
        return False


def _is_healthy(members: dict[str, Any]) -> bool:
    return members.get("comfyui_status", members.get("status")) == "healthy"


def _job(text: str) -> UpstreamJob:
    try:
        members = json.loads(text)
        job_id, status = members["job_id"], members["status"]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise UpstreamGarbled("the Unified API's answer is no job") from error
    if not isinstance(job_id, str) or not isinstance(status, str) or not _is_id(job_id):
        raise UpstreamGarbled("the Unified API's answer is no job")
    result, reason = members.get("result_s3_uri"), members.get("error")
    return UpstreamJob(
        id=job_id,
        status=_storable(status)[:_MAX_ID_CHARS],
        result_s3_uri=result if _is_address(result) else None,
        error=None if reason is None else for_client(readable(reason)),
    )


def _is_id(job_id: str) -> bool:
    return 0 < len(job_id) <= _MAX_ID_CHARS and _storable(job_id) == job_id


def _is_address(value: Any) -> bool:
    """Whether it is one address that a client could fetch, and DynamoDB store."""
    return (
        isinstance(value, str)
        and len(value) <= _MAX_ADDRESS_CHARS
        and value.count("://") <= 1
        and _ADDRESS.fullmatch(value) is not None
        and _storable(value) == value
    )


def _storable(value: Any) -> str:
    """Any JSON value as text without lone surrogates, which DynamoDB refuses."""
    return str(value).encode(errors="replace").decode()


def readable(value: Any) -> str:
    """What a client may read: without the server's folders, neighbours and error numbers, and of a bearable length.

    An item with 400 KB of error text could not be written, and its task would never end.
    """
    text = _storable(value)[: 2 * _MAX_DETAIL_CHARS]
    text = _INTERNAL_URL.sub("(an internal address)", text)
    text = _LOCAL_PATH.sub("(a local file)", text)
    return _ERRNO.sub("", text)[:_MAX_DETAIL_CHARS]


def _detail(text: str) -> str:
    """FastAPI's validation errors as a sentence; anything else as it is."""
    try:
        detail = json.loads(text)["detail"]
    except (ValueError, TypeError, KeyError, RecursionError):
        detail = text
    if isinstance(detail, list):
        detail = "; ".join(_sentence(part) for part in detail)
    return "no reason given" if detail is None else readable(detail)


def _sentence(part: Any) -> str:
    if not isinstance(part, dict):
        return str(part)
    loc, reason = part.get("loc"), str(part.get("msg", ""))
    where = ".".join(str(step) for step in loc if step != "body") if isinstance(loc, list) else ""
    return f"{where}: {reason}" if where else reason
