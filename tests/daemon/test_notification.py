from __future__ import annotations

import asyncio
import os
from pathlib import Path
from uuid import uuid4

import pytest

from lib.daemon.notification import Notifier
from tests.daemon.datagrams import fill, receiving_at, waiting


def test_the_manager_is_told_how_we_are(tmp_path: Path) -> None:
    address = str(tmp_path / "notify")
    with receiving_at(address) as manager:
        notifier = Notifier(address)
        notifier.ready("waiting for work")
        notifier.status("1 job")
        notifier.watchdog()
        notifier.stopping("draining")
        assert waiting(manager) == [
            b"READY=1\nSTATUS=waiting for work",
            b"STATUS=1 job",
            b"WATCHDOG=1",
            b"STOPPING=1\nSTATUS=draining",
        ]


def test_a_manager_with_an_abstract_socket_is_told_too() -> None:
    name = f"gpu-on-demand-test-{uuid4()}"
    with receiving_at(f"\0{name}") as manager:
        Notifier(f"@{name}").watchdog()
        assert waiting(manager) == [b"WATCHDOG=1"]


def test_a_status_is_one_line_whatever_it_says(tmp_path: Path) -> None:
    """A line break would start another assignment."""
    address = str(tmp_path / "notify")
    with receiving_at(address) as manager:
        Notifier(address).status("upstream: refused\nMAINPID=1 \N{SNOWMAN}")
        assert waiting(manager) == ["STATUS=upstream: refused MAINPID=1 \N{SNOWMAN}".encode()]


@pytest.mark.parametrize("address", [None, ""])
def test_without_a_manager_nobody_is_told(address: str | None) -> None:
    Notifier(address).ready("waiting for work")


def test_a_manager_that_is_gone_does_not_end_the_service(tmp_path: Path) -> None:
    Notifier(str(tmp_path / "gone")).watchdog()


def test_a_manager_that_does_not_listen_does_not_hold_up_the_service(tmp_path: Path) -> None:
    """A datagram to a full socket waits until somebody reads; nobody does here, and yet the call returns."""
    address = str(tmp_path / "notify")
    with receiving_at(address) as manager:
        fill(manager)
        Notifier(address).watchdog()
        assert b"WATCHDOG=1" not in waiting(manager)


def test_the_manager_is_found_in_the_environment(tmp_path: Path) -> None:
    address = str(tmp_path / "notify")
    with receiving_at(address) as manager:
        Notifier.from_environment({"NOTIFY_SOCKET": address}).watchdog()
        assert waiting(manager) == [b"WATCHDOG=1"]


def test_our_own_environment_is_the_one_that_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    address = str(tmp_path / "notify")
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    monkeypatch.setenv("WATCHDOG_USEC", "1000000")
    monkeypatch.delenv("WATCHDOG_PID", raising=False)
    with receiving_at(address) as manager:
        notifier = Notifier.from_environment()
        notifier.watchdog()
        assert waiting(manager) == [b"WATCHDOG=1"]
    assert notifier.watchdog_s == 1.0


@pytest.mark.parametrize(
    ("environment", "watchdog_s"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "30000000"}, 30.0),
        ({"WATCHDOG_USEC": "500000", "WATCHDOG_PID": str(os.getpid())}, 0.5),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_PID": str(os.getpid())}, None),
    ],
)
def test_the_watchdog_counts_if_it_is_meant_for_us(environment: dict[str, str], watchdog_s: float | None) -> None:
    """https://www.freedesktop.org/software/systemd/man/latest/sd_watchdog_enabled.html"""
    assert Notifier.from_environment(environment).watchdog_s == watchdog_s


async def test_the_watchdog_is_fed_until_the_end_and_not_where_there_is_none(tmp_path: Path) -> None:
    address = str(tmp_path / "notify")
    with receiving_at(address) as manager:
        ended = asyncio.Event()
        feeding = asyncio.create_task(Notifier(address, watchdog_s=0.02).feed_watchdog(ended))
        idle = asyncio.create_task(Notifier(address).feed_watchdog(ended))
        loop = asyncio.get_running_loop()
        manager.setblocking(False)
        started_at = loop.time()
        for _ in range(3):
            assert await loop.sock_recv(manager, 100) == b"WATCHDOG=1"
        assert loop.time() - started_at >= 0.02
        ended.set()
        await asyncio.gather(feeding, idle)
