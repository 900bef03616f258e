"""The Idempotency-Key header (draft-ietf-httpapi-idempotency-key-header)."""

from __future__ import annotations

import re

from starlette.datastructures import Headers

from services.orchestrator.errors import InvalidIdempotencyKey

_VISIBLE_ASCII = re.compile(r"[\x21-\x7e]{1,255}")
# A string of RFC 8941, section 3.3.3; the draft asks for this form, most clients send the bare key.
_QUOTED = re.compile(r'"((?:[^"\\]|\\["\\])*)"')
_ESCAPE = re.compile(r"\\(.)")


def read_idempotency_key(headers: Headers) -> str | None:
    """The key, unquoted; None if there is no such header.

    Raises:
        InvalidIdempotencyKey: it is there more than once, empty, too long, or badly quoted.
    """
    values = headers.getlist("idempotency-key")
    if not values:
        return None
    if len(values) > 1:
        raise InvalidIdempotencyKey("The Idempotency-Key header is there more than once")
    return _checked(_unquoted(values[0].strip()))


def _unquoted(value: str) -> str:
    if not value.startswith('"'):
        return value
    match = _QUOTED.fullmatch(value)
    if match is None:
        raise InvalidIdempotencyKey("The Idempotency-Key header begins a quoted string but does not end it")
    return _ESCAPE.sub(r"\1", match[1])


def _checked(key: str) -> str:
    if not _VISIBLE_ASCII.fullmatch(key):
        raise InvalidIdempotencyKey(
            "The Idempotency-Key header must be 1 to 255 visible ASCII characters without spaces"
        )
    return key
