"""A short soak: seeded faults on the running system, then the books must balance and nothing may be left."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console

from services.devstack.soak.session import print_verdict, soak

SECONDS = 25.0


@pytest.mark.long(minutes=2)
@pytest.mark.timeout(420)
@pytest.mark.parametrize("seed", [1, 2])
async def test_the_books_balance_after_faults(seed: int, tmp_path: Path) -> None:
    console = Console(width=140)
    verdict = await soak(seconds=SECONDS, seed=seed, folder=tmp_path, console=console)
    print_verdict(console, verdict)
    assert verdict.imbalances == ()
    assert verdict.accepted > 0
    assert verdict.mischief.total() > 0
    assert processes_writing_below(tmp_path) == []


def processes_writing_below(folder: Path) -> list[str]:
    """Command lines of processes that hold a file of this soak open, as each of its processes does with its log."""
    found = []
    for process in Path("/proc").iterdir():
        if not process.name.isdigit() or process.name == str(Path("/proc/self").resolve().name):
            continue
        try:
            targets = [str(link.readlink()) for link in (process / "fd").iterdir()]
            command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except (FileNotFoundError, PermissionError, ProcessLookupError):
            continue
        if any(target.startswith(str(folder)) for target in targets):
            found.append(command)
    return found
