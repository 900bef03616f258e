"""What the kernel says a process has used. Linux only."""

from __future__ import annotations

import time
from pathlib import Path


def cpu_s(pid: int) -> float:
    """CPU seconds of a process, all threads, user and system.

    The process's own CPU clock (clock_getcpuclockid(3)) counts nanoseconds; `/proc/<pid>/stat` has the same number in
    ticks of 10 ms, too coarse for a window of a second.
    """
    return time.clock_gettime(~pid << 3 | 2)


def rss_mb(pid: int) -> float:
    """Resident memory in MB (10^6 bytes)."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise ProcessLookupError(pid)
