"""Task ids: unique and time-ordered, or derived from what makes two requests the same."""

from __future__ import annotations

import hashlib
from uuid import UUID

from uuid_utils.compat import uuid7


def new_task_id() -> str:
    """A UUIDv7 (RFC 9562)."""
    return str(uuid7())


def derived_task_id(client_id: str, idempotency_key: str) -> str:
    """The UUIDv8 (RFC 9562) that belongs to a client's Idempotency-Key: the table's key does the deduplication."""
    # The length prefix keeps ("ab", "c") and ("a", "bc") apart.
    text = f"{len(client_id)}:{client_id}:{idempotency_key}"
    digest = bytearray(hashlib.sha256(text.encode()).digest()[:16])
    digest[6] = (digest[6] & 0x0F) | 0x80
    digest[8] = (digest[8] & 0x3F) | 0x80
    return str(UUID(bytes=bytes(digest)))
