"""A request's body: bounded, JSON, and what its kind of task needs."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError
from pydantic_core import from_json
from starlette.requests import Request

from lib.gputask.kinds import JobRequest, Kind
from lib.gputask.message import MAX_BODY_BYTES, escaped
from lib.gputask.request_rules import RequestRules
from services.orchestrator.errors import BodyTooLarge, FieldError, InvalidRequest, UnsupportedBodyType

_JSON_TYPE = re.compile(r"application/(?:[\w!#$&^.+-]+\+)?json", re.IGNORECASE)
_MAX_LENGTH_DIGITS = 20  # of a Content-Length: enough to be over every limit
_MAX_ECHO_LENGTH = 200  # characters of a refused value that go back to the client


async def read_body(request: Request, *, limit_bytes: int = MAX_BODY_BYTES) -> bytes:
    """The body as it came.

    Raises:
        UnsupportedBodyType: it is declared to be something other than JSON, or to be compressed.
        BodyTooLarge: by its Content-Length, before a byte is read, or by what arrived.
    """
    _refuse_other_types(request.headers.get("content-type", ""))
    _refuse_compression(request.headers.get("content-encoding", ""))
    # Whoever lies in this header is caught by the count below.
    if _declared_length(request.headers.get("content-length", "")) > limit_bytes:
        raise BodyTooLarge(limit_bytes)
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit_bytes:
            raise BodyTooLarge(limit_bytes)
    return bytes(body)


def _refuse_other_types(content_type: str) -> None:
    media_type = content_type.partition(";")[0].strip()
    # None at all is taken for JSON, as clients written for the Unified API may leave it out.
    if media_type and not _JSON_TYPE.fullmatch(media_type):
        raise UnsupportedBodyType("The body must be application/json")


def _refuse_compression(content_encoding: str) -> None:
    if content_encoding.strip().lower() not in ("", "identity"):
        raise UnsupportedBodyType("The body must not be compressed; send it without Content-Encoding")


def _declared_length(content_length: str) -> int:
    # Python reads no number of more than 4,300 digits; leading zeros are allowed and mean nothing (RFC 9110, 8.6).
    digits = content_length.lstrip("0")
    if not (digits.isascii() and digits.isdigit()):
        return 0
    return int(digits[:_MAX_LENGTH_DIGITS])


def check_body(body: bytes, kind: Kind, rules: RequestRules) -> JobRequest:
    """The request in a body, or what the kind's request model has against it.

    The body is parsed once and that value is checked, so no second parser can see something else in it.

    Raises:
        InvalidRequest: with all that is wrong.
        BodyTooLarge: for the queue, which gets it in ASCII.
    """
    request = _parse(body)
    # Escapes make at most three bytes of one, so that most bodies need not be escaped to know.
    if len(body) * 3 > MAX_BODY_BYTES and len(escaped(body.decode())) > MAX_BODY_BYTES:
        raise BodyTooLarge(MAX_BODY_BYTES)
    if not isinstance(request, dict):
        message = "Input should be a valid dictionary or object to extract fields from"
        raise InvalidRequest([_field_error("model_attributes_type", ["body"], message, request)])
    try:
        return kind.check(request, rules)
    except ValidationError as error:
        raise InvalidRequest([_from_pydantic(details) for details in error.errors(include_url=False)]) from error


def _parse(body: bytes) -> Any:
    if not body:
        raise InvalidRequest([_field_error("missing", ["body"], "Field required", None)])
    try:
        # Refuses NaN, lone surrogates, bad UTF-8, integers beyond 4,300 digits and more than 200 levels.
        value = from_json(body, allow_inf_nan=False)
        # Lets 1e999 through as infinity, which no JSON can hold: whoever writes the value again would fail.
        json.dumps(value, allow_nan=False)
    except ValueError as error:
        raise InvalidRequest([_field_error("json_invalid", ["body"], f"JSON decode error: {error}", {})]) from error
    return value


def _from_pydantic(details: Mapping[str, Any]) -> FieldError:
    return _field_error(details["type"], ["body", *details["loc"]], details["msg"], details["input"])


def _field_error(type_: str, loc: list[int | str], msg: str, value: Any) -> FieldError:
    error = {"type": type_, "loc": loc, "msg": msg}
    # Scalars only: each missing member would echo the whole body.
    if value is None or value == {} or (isinstance(value, bool | int | float | str) and _is_short(value)):
        return error | {"input": value}
    return error


def _is_short(value: float | str) -> bool:
    return len(str(value)) <= _MAX_ECHO_LENGTH
