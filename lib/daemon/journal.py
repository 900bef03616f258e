"""The journal's native protocol, so that ``journalctl JOB_ID=...`` finds what a structured event says.

https://systemd.io/JOURNAL_NATIVE_PROTOCOL/. Own code because every client on PyPI either compiles against libsystemd
or needs a newer Python; the protocol is one datagram of fields, or a sealed file for what no datagram can hold.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import socket
import struct
from collections.abc import Mapping
from typing import Any

SOCKET_PATH = "/run/systemd/journal/socket"

_PRIORITIES = {"critical": 2, "error": 3, "warning": 4, "info": 6, "debug": 7}
_FORBIDDEN = re.compile(r"[^A-Z0-9_]")
# By the size of a socket's buffer, about 200 KB as Linux comes.
_TOO_LARGE = frozenset({errno.EMSGSIZE, errno.ENOBUFS})
# journald reads a file of another process only if nobody can change it any more.
_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL


class JournalSender:
    """Sends entries. Blocks while the journal does not read, so it belongs into a thread.

    Raises:
        OSError: there is no journal.
    """

    def __init__(self, path: str = SOCKET_PATH) -> None:
        with _datagram_socket() as probe:
            probe.connect(path)
        # Not connected, so that a journal which is started anew is found again.
        self._socket = _datagram_socket()
        self._path = path

    def send(self, entry: bytes) -> None:
        """One entry, see `encode_entry`.

        Raises:
            OSError: the journal did not take it.
        """
        try:
            self._socket.sendto(entry, self._path)
        except OSError as error:
            if error.errno not in _TOO_LARGE:
                raise
            self._send_as_file(entry)

    def close(self) -> None:
        self._socket.close()

    def _send_as_file(self, entry: bytes) -> None:
        file = os.memfd_create("journal-entry", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            left = memoryview(entry)
            while left:
                left = left[os.write(file, left) :]
            fcntl.fcntl(file, fcntl.F_ADD_SEALS, _SEALS)
            # Not `socket.send_fds`, which forgets its address
            rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("i", file))
            self._socket.sendmsg([b""], [rights], 0, self._path)
        finally:
            os.close(file)


def _datagram_socket() -> socket.socket:
    return socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)


def encode_entry(level: str, message: str, fields: Mapping[str, Any]) -> bytes:
    """One entry; keys become upper case, None is left out."""
    entry = {field_name(key): value for key, value in fields.items() if value is not None}
    entry |= {"MESSAGE": message, "PRIORITY": _PRIORITIES.get(level, 6)}
    return b"".join(encode_field(key, str(value)) for key, value in entry.items())


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
