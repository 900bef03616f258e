"""The ComfyUI Unified API as a client sees it: submit, look, ask for its health.

It answers nothing while a job runs (its event loop is blocked), so silence is the normal answer to a question asked in
mid-job, and one GET with a long timeout is a perfect long poll.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import aiohttp

from lib.gputask.gpu import UpstreamHealth
from services.adapter.errors import (
    SubmissionUnknown,
    UpstreamForgot,
    UpstreamGarbled,
    UpstreamRejected,
    UpstreamSilent,
    UpstreamUnreachable,
)

_CONNECT_TIMEOUT_S = 5.0
_MAX_DETAIL_CHARS = 2000


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
            async with asyncio.timeout(timeout_s), self._session.get("/health") as answer:
                members = await answer.json(content_type=None)
        except TimeoutError:
            return UpstreamHealth.BUSY
        except (aiohttp.ClientError, ValueError, RecursionError):
            return UpstreamHealth.UNHEALTHY
        healthy = answer.status == 200 and isinstance(members, dict) and _is_healthy(members)
        return UpstreamHealth.HEALTHY if healthy else UpstreamHealth.UNHEALTHY

    async def submit(self, api_path: str, body: str, *, request_id: str, timeout_s: float) -> UpstreamJob:
        """POST one job. Not idempotent.

        Raises:
            UpstreamUnreachable: it was certainly not sent.
            UpstreamRejected: it was refused.
            SubmissionUnknown: it may run, under an id that nobody told us.
        """
        headers = {"Content-Type": "application/json", "X-Request-ID": request_id}
        try:
            # aiohttp would follow a 307 or 308 with another POST.
            async with (
                asyncio.timeout(timeout_s),
                self._session.post(api_path, data=body.encode(), headers=headers, allow_redirects=False) as answer,
            ):
                text = await answer.text(errors="replace")
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            raise UpstreamUnreachable("the Unified API does not listen") from error
        except (aiohttp.ClientError, TimeoutError) as error:
            raise SubmissionUnknown(f"the answer to the submission was lost ({type(error).__name__})") from error
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
            UpstreamGarbled: the answer is no job, or the connection broke.
        """
        path = f"/api/v1/jobs/{quote(job_id, safe='')}"
        try:
            async with asyncio.timeout(timeout_s), self._session.get(path) as answer:
                text = await answer.text(errors="replace")
        except TimeoutError as error:
            raise UpstreamSilent("the Unified API does not answer") from error
        except aiohttp.ClientConnectorError as error:
            raise UpstreamUnreachable("the Unified API does not listen") from error
        except aiohttp.ClientError as error:
            raise UpstreamGarbled("the connection to the Unified API broke") from error
        if answer.status == 404:
            raise UpstreamForgot("the Unified API does not know the job any more")
        if answer.status != 200:
            raise UpstreamGarbled(f"the Unified API answered {answer.status}")
        return _job(text)


def _is_healthy(members: dict[str, Any]) -> bool:
    return members.get("comfyui_status", members.get("status")) == "healthy"


def _job(text: str) -> UpstreamJob:
    try:
        members = json.loads(text)
        job_id, status = members["job_id"], members["status"]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise UpstreamGarbled("the Unified API's answer is no job") from error
    if not isinstance(job_id, str) or not isinstance(status, str) or not job_id:
        raise UpstreamGarbled("the Unified API's answer is no job")
    result, reason = members.get("result_s3_uri"), members.get("error")
    return UpstreamJob(
        id=job_id,
        status=status,
        result_s3_uri=None if result is None else _storable(result),
        error=None if reason is None else _reason(reason),
    )


def _storable(value: Any) -> str:
    """Any JSON value as text without lone surrogates, which DynamoDB refuses."""
    return str(value).encode(errors="replace").decode()


def _reason(value: Any) -> str:
    """A bearable length: an item with 400 KB of error text could not be written, and its task would never end."""
    return _storable(value)[:_MAX_DETAIL_CHARS]


def _detail(text: str) -> str:
    """FastAPI's validation errors as a sentence; anything else as it is."""
    try:
        detail = json.loads(text)["detail"]
    except (ValueError, TypeError, KeyError, RecursionError):
        detail = text
    if isinstance(detail, list):
        detail = "; ".join(_sentence(part) for part in detail)
    return "no reason given" if detail is None else _reason(detail)


def _sentence(part: Any) -> str:
    if not isinstance(part, dict):
        return str(part)
    loc, reason = part.get("loc"), str(part.get("msg", ""))
    where = ".".join(str(step) for step in loc if step != "body") if isinstance(loc, list) else ""
    return f"{where}: {reason}" if where else reason
