"""systemd's readiness protocol: datagrams to the socket that ``NOTIFY_SOCKET`` names.

https://www.freedesktop.org/software/systemd/man/latest/sd_notify.html
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Mapping
from contextlib import suppress

from lib.daemon.waiting import wait_for

# A manager whose socket is full must not stop the event loop, and the heartbeats on it, for longer.
_PATIENCE_S = 0.2


class Notifier:
    """Tells the service manager how we are; tells nobody when there is none. A status is made one line."""

    def __init__(self, address: str | None, *, watchdog_s: float | None = None) -> None:
        self._address = address
        self.watchdog_s = watchdog_s

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Notifier:
        """The manager that started this process, if one did.

        ``WATCHDOG_USEC`` counts only if ``WATCHDOG_PID`` is absent or ours.
        """
        interval_us = environment.get("WATCHDOG_USEC")
        for_us = environment.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        watchdog_s = int(interval_us) / 1_000_000 if interval_us and for_us else None
        return cls(environment.get("NOTIFY_SOCKET"), watchdog_s=watchdog_s)

    def ready(self, status: str) -> None:
        self._send(f"READY=1\nSTATUS={_one_line(status)}")

    def status(self, status: str) -> None:
        self._send(f"STATUS={_one_line(status)}")

    def watchdog(self) -> None:
        self._send("WATCHDOG=1")

    async def feed_watchdog(self, ended: asyncio.Event) -> None:
        """Prove that the event loop turns, twice per watchdog interval (sd_watchdog_enabled(3)), until `ended`."""
        if self.watchdog_s is None:
            await ended.wait()
            return
        while not ended.is_set():
            self.watchdog()
            await wait_for(ended, self.watchdog_s / 2)

    def stopping(self, status: str) -> None:
        self._send(f"STOPPING=1\nSTATUS={_one_line(status)}")

    def _send(self, message: str) -> None:
        if not self._address:
            return
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        # A manager that does not hear us is no reason to end; if it misses us, its watchdog will say so.
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
            sender.settimeout(_PATIENCE_S)
            sender.sendto(message.encode(errors="replace"), address)


def _one_line(status: str) -> str:
    return " ".join(status.splitlines())  # a line break would start another assignment
