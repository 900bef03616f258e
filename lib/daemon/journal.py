"""The journal's native protocol, so that ``journalctl JOB_ID=...`` finds what a structured event says.

https://systemd.io/JOURNAL_NATIVE_PROTOCOL/. Own code because every client on PyPI either compiles against libsystemd
or needs a newer Python; the protocol is one datagram of fields.
"""

from __future__ import annotations

import re
import socket
import struct
from collections.abc import Mapping
from typing import Any

SOCKET_PATH = "/run/systemd/journal/socket"

_PRIORITIES = {"critical": 2, "error": 3, "warning": 4, "info": 6, "debug": 7}
_FORBIDDEN = re.compile(r"[^A-Z0-9_]")


class JournalSender:
    """Sends one event per datagram. Falls back on nothing: a service under systemd has a journal."""

    def __init__(self, path: str = SOCKET_PATH) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._path = path

    def send(self, level: str, message: str, fields: Mapping[str, Any]) -> None:
        """One entry; keys become upper case, None is left out."""
        entry = {field_name(key): value for key, value in fields.items() if value is not None}
        entry |= {"MESSAGE": message, "PRIORITY": _PRIORITIES.get(level, 6)}
        self._socket.sendto(b"".join(encode_field(key, str(value)) for key, value in entry.items()), self._path)

    def close(self) -> None:
        self._socket.close()


def field_name(key: str) -> str:
    """The journal's form of a key: upper case letters, digits, underscores, not starting with either of the latter."""
    name = _FORBIDDEN.sub("_", key.upper()).lstrip("_0123456789")
    return name[:64] or "FIELD"


def encode_field(key: str, value: str) -> bytes:
    """`KEY=value`, or with a length where the value has line breaks."""
    data = value.encode(errors="replace")
    if b"\n" not in data:
        return key.encode() + b"=" + data + b"\n"
    return key.encode() + b"\n" + struct.pack("<Q", len(data)) + data + b"\n"
