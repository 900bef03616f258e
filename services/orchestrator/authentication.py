"""API keys: who a request comes from."""

from __future__ import annotations

import hmac
import re
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256

from starlette.datastructures import Headers

from services.orchestrator.errors import Unauthorized

ANONYMOUS = "anonymous"  # the one client of a service without keys

_CLIENT_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_SHA256 = re.compile(r"[0-9a-fA-F]{64}")


@dataclass(frozen=True, slots=True)
class ApiKey:
    """One key of a client.

    Attributes:
        client_id: whose it is; a client may have several keys, so that one can be replaced without a gap.
        digest: SHA-256 of the key's bytes. A plain hash is enough for keys that are long and random.
    """

    client_id: str
    digest: bytes


def parse_api_keys(text: str) -> tuple[ApiKey, ...]:
    """Read `name:sha256hex,name2:sha256hex`.

    Raises:
        ValueError: with a sentence that names the entry by its position, never by its content.
    """
    entries = [entry.strip() for entry in text.split(",")] if text.strip() else []
    keys = tuple(_parse_api_key(position, entry) for position, entry in enumerate(entries, start=1))
    if len({key.digest for key in keys}) < len(keys):
        raise ValueError("the same key is listed twice")
    return keys


def _parse_api_key(position: int, entry: str) -> ApiKey:
    name, _, digest = entry.partition(":")
    if not _CLIENT_ID.fullmatch(name):
        raise ValueError(f"entry {position} has no name of 1 to 64 letters, digits, '.', '_' or '-'")
    if not _SHA256.fullmatch(digest):
        raise ValueError(f"entry {position} is not name:sha256 with 64 hexadecimal digits")
    return ApiKey(name, bytes.fromhex(digest))


class Authenticator:
    """Knows the clients by their keys. Without keys everybody is `anonymous`."""

    def __init__(self, keys: Sequence[ApiKey]) -> None:
        self._keys = tuple(keys)

    @property
    def clients(self) -> int:
        """How many there are."""
        return len({key.client_id for key in self._keys}) or 1

    def identify(self, headers: Headers) -> str:
        """The client id behind `X-API-Key` or `Authorization: Bearer`.

        Raises:
            Unauthorized: there is no key, or nobody has it.
        """
        if not self._keys:
            return ANONYMOUS
        presented = _presented_key(headers)
        if presented is None:
            raise Unauthorized(has_key=False)
        return self._owner_of(presented)

    def _owner_of(self, presented: str) -> str:
        # Headers are decoded as Latin-1, so this gives the bytes as they were sent.
        digest = sha256(presented.encode("latin-1")).digest()
        owner = None
        # Never left early: the time taken must not tell which entry matched.
        for key in self._keys:
            if hmac.compare_digest(digest, key.digest):
                owner = key.client_id
        if owner is None:
            raise Unauthorized(has_key=True)
        return owner


def _presented_key(headers: Headers) -> str | None:
    # The specific header first: a proxy or browser may fill Authorization with something of its own.
    if api_key := headers.get("x-api-key", "").strip():
        return api_key
    scheme, _, credentials = headers.get("authorization", "").strip().partition(" ")
    if scheme.lower() == "bearer" and credentials.strip():
        return credentials.strip()
    return None
