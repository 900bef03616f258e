"""The other end of a datagram socket: a service manager, or a journal."""

from __future__ import annotations

import fcntl
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL


@contextmanager
def receiving_at(address: str) -> Iterator[socket.socket]:
    """A datagram socket bound to a path, or to an abstract name where it starts with a zero byte."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(address)
        receiver.settimeout(10)
        yield receiver


def waiting(receiver: socket.socket) -> list[bytes]:
    """The datagrams that have arrived; a Unix datagram arrives before its send returns.

    An empty one brings its content as a file, as journald takes it: only if nobody can change that any more.
    """
    receiver.setblocking(False)
    arrived: list[bytes] = []
    while True:
        try:
            datagram, files, _, _ = socket.recv_fds(receiver, 1 << 20, 1)
        except BlockingIOError:
            return arrived
        for file in files:
            assert fcntl.fcntl(file, fcntl.F_GET_SEALS) & _SEALS == _SEALS
            with os.fdopen(file, "rb") as content:
                content.seek(0)
                datagram += content.read()
        arrived.append(datagram)


def fill(receiver: socket.socket) -> None:
    """Send to it until no further datagram fits."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender, suppress(BlockingIOError):
        sender.setblocking(False)
        while True:
            sender.sendto(b"STATUS=much", receiver.getsockname())


def journal_fields(datagram: bytes) -> list[tuple[str, str]]:
    """An entry of the journal's native protocol, read as https://systemd.io/JOURNAL_NATIVE_PROTOCOL/ says."""
    fields = []
    while datagram:
        line, _, rest = datagram.partition(b"\n")
        name, equals, value = line.partition(b"=")
        if not equals:
            (length,) = struct.unpack_from("<Q", rest)
            value, end, datagram = rest[8 : 8 + length], rest[8 + length : 9 + length], rest[9 + length :]
            assert end == b"\n"
        else:
            datagram = rest
        fields.append((name.decode(), value.decode()))
    return fields
