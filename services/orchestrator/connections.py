"""Who is connected, and who may still come in."""

from __future__ import annotations

import ipaddress
from collections import Counter
from dataclasses import dataclass
from enum import Enum, auto
from typing import Protocol

# What is left of the process's descriptors for AWS, the log, and what the kernel has accepted and we have not yet seen.
_KEPT_DESCRIPTORS = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionLimits:
    """What one connection may cost, and how many there may be.

    Attributes:
        head_bytes: of request line and headers; as much again for trailers and for what frames a body's chunks.
        head_s: from a request's first byte to the end of its headers, and from a connection to its first byte.
        body_s: for a body, and a second more for every `body_rate` bytes of it that came.
        idle_s: between an answer and the next request.
        stall_s: for a client that does not read its answer.
        linger_s, linger_bytes: how long, and how much, the rest of a request that was answered early is read and thrown
            away, because a connection closed over unread bytes takes the answer with it.
        check_s: how exact these times are.
        pipelined: requests that may wait behind the one in work.
        connections: at once.
        spare: beyond those, for `/health` only.
        per_address: of those, from one IPv4 address or IPv6 network of 64 bits; None where a balancer is every peer.
    """

    head_bytes: int = 32 * 1024
    head_s: float = 15.0
    body_s: float = 20.0
    body_rate: float = 4096.0
    # An ALB keeps its connections for 60 s; if we close first, it answers 502 now and then.
    idle_s: float = 75.0
    stall_s: float = 30.0
    linger_s: float = 5.0
    linger_bytes: int = 1024 * 1024
    check_s: float = 1.0
    pipelined: int = 16
    connections: int = 512
    spare: int = 32
    per_address: int | None = None


class Connection(Protocol):
    """An open one."""

    def hang_up(self) -> None:
        """Close it at once."""
        ...


class Place(Enum):
    """What a new connection gets."""

    USUAL = auto()
    SPARE = auto()
    NONE = auto()


class Connections:
    """The open connections, bounded. One that has no request in work makes room for a new one, the oldest first."""

    def __init__(self, limits: ConnectionLimits) -> None:
        self._limits = limits
        self._open: dict[Connection, str] = {}
        self._by_origin: Counter[str] = Counter()
        self._resting: dict[Connection, None] = {}

    def __len__(self) -> int:
        return len(self._open)

    def admit(self, connection: Connection, address: str) -> Place:
        """Count a connection in, unless there is no place for it."""
        origin = origin_of(address) if self._limits.per_address is not None else ""
        if self._limits.per_address is not None and self._by_origin[origin] >= self._limits.per_address:
            return Place.NONE
        if len(self._open) >= self._limits.connections:
            self._make_room()
        place = self._place()
        if place is not Place.NONE:
            self._open[connection] = origin
            self._by_origin[origin] += 1
            self.rest(connection)
        return place

    def _place(self) -> Place:
        if len(self._open) < self._limits.connections:
            return Place.USUAL
        is_spare = len(self._open) < self._limits.connections + self._limits.spare
        return Place.SPARE if is_spare else Place.NONE

    def _make_room(self) -> None:
        oldest = next(iter(self._resting), None)
        if oldest is not None:
            self.remove(oldest)
            oldest.hang_up()

    def rest(self, connection: Connection) -> None:
        """It has no request in work."""
        if connection in self._open:
            self._resting[connection] = None

    def work(self, connection: Connection) -> None:
        """It has one."""
        self._resting.pop(connection, None)

    def remove(self, connection: Connection) -> None:
        """It is closed. One that was never counted in, or is out already, does no harm."""
        origin = self._open.pop(connection, None)
        self._resting.pop(connection, None)
        if origin is None:
            return
        self._by_origin[origin] -= 1
        if not self._by_origin[origin]:
            del self._by_origin[origin]


def origin_of(address: str) -> str:
    """Whom a share belongs to: one line of an IPv6 provider has a whole network of 64 bits."""
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(ip, ipaddress.IPv4Address):
        return str(ip)
    return str(ip.ipv4_mapped or ipaddress.ip_network((ip, 64), strict=False).network_address)


def most_connections(wanted: int, *, descriptors: int) -> int:
    """How many of those wanted the process's limit of open files allows, with what else needs files left over."""
    return max(1, min(wanted, max(descriptors - _KEPT_DESCRIPTORS, descriptors // 4)))
