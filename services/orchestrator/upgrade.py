"""A request that would rather speak another protocol, read as the HTTP/1.1 that it is."""

from __future__ import annotations

from collections.abc import Iterable

_OF_UPGRADES = frozenset({b"upgrade", b"http2-settings"})

Header = tuple[bytes, bytes]


def head_without_upgrade(method: bytes, target: bytes, version: str, headers: Iterable[Header]) -> bytes:
    """The head again, without its wish for another protocol, which a server may ignore (RFC 9110, section 7.8).

    Args:
        headers: names in lower case.
    """
    kept = [header for name, value in headers for header in _kept(name, value)]
    lines = [b"%s %s HTTP/%s" % (method, target, version.encode()), *(b"%s: %s" % header for header in kept)]
    return b"\r\n".join([*lines, b"", b""])


def _kept(name: bytes, value: bytes) -> list[Header]:
    if name in _OF_UPGRADES:
        return []
    if name != b"connection":
        return [(name, value)]
    options = [option.strip() for option in value.split(b",")]
    rest = b", ".join(option for option in options if option.lower() not in _OF_UPGRADES)
    return [(name, rest)] if rest else []
