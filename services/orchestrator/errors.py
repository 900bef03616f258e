"""Why a request cannot be answered as asked. What each means over HTTP stands in `problems`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

FieldError = Mapping[str, Any]  # FastAPI's {"type", "loc", "msg", "input"?}


class Unauthorized(Exception):
    """No API key, or one that is not ours."""

    def __init__(self, *, has_key: bool) -> None:
        super().__init__("unknown API key" if has_key else "no API key")
        self.has_key = has_key


class JobNotFound(Exception):
    """No such job, or none of this client's."""


class InvalidIdempotencyKey(Exception):
    """The header is not one key of 1 to 255 visible ASCII characters; the text is a sentence for the client."""


class IdempotencyConflict(Exception):
    """This client used the Idempotency-Key before, for another request."""


class UnsupportedBodyType(Exception):
    """The body is declared to be something other than plain JSON; the text is a sentence for the client."""


class BodyTooLarge(Exception):
    """More bytes than a request may have."""

    def __init__(self, limit_bytes: int) -> None:
        super().__init__(f"more than {limit_bytes} bytes")
        self.limit_bytes = limit_bytes


class InvalidRequest(Exception):
    """The body is not JSON, or not what this kind of task needs.

    Attributes:
        errors: all that is wrong.
    """

    def __init__(self, errors: Sequence[FieldError]) -> None:
        super().__init__(f"{len(errors)} errors")
        self.errors = tuple(errors)


class Unavailable(Exception):
    """Nothing was promised; the same request may succeed later.

    Attributes:
        retry_after_s: when to try again.
        reason: a sentence for the client.
    """

    def __init__(self, retry_after_s: int, reason: str = "The service is temporarily unavailable") -> None:
        super().__init__(reason)
        self.reason = reason
        self.retry_after_s = retry_after_s


class TooManyUnfinished(Exception):
    """The client has as many jobs without an end as it may have."""

    def __init__(self, most: int, retry_after_s: int) -> None:
        super().__init__(f"{most} or more")
        self.most = most
        self.retry_after_s = retry_after_s


class NotReady(Exception):
    """Something this service needs does not answer.

    Attributes:
        checks: what was looked at, and whether it answered.
        problem: what only an operator can mend, in a few words.
    """

    def __init__(self, checks: Mapping[str, bool], problem: str | None = None) -> None:
        super().__init__(problem or ", ".join(name for name, is_ready in checks.items() if not is_ready))
        self.checks = checks
        self.problem = problem


class UnreadableRequest(Exception):
    """A request that is not read to its end; its connection is closed after the answer."""


class MalformedRequest(UnreadableRequest):
    """It is not HTTP/1.1."""


class TunnelRefused(UnreadableRequest):
    """It asks for a tunnel to somewhere else."""


class RequestTooSlow(UnreadableRequest):
    """It takes longer than it may."""


class HeadTooLarge(UnreadableRequest):
    """More bytes of headers or trailers than a request may have."""

    def __init__(self, limit_bytes: int) -> None:
        super().__init__(f"more than {limit_bytes} bytes")
        self.limit_bytes = limit_bytes


class TooManyConnections(UnreadableRequest):
    """Its connection is one of those that are kept for `/health`."""


class Stopping(Exception):
    """The process ends before the request does."""
