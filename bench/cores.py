"""Who runs on which core: what is measured shares its core with nothing of ours."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Cores:
    """Numbers of CPU cores; None where they cannot be chosen."""

    server: int | None
    endpoint: int | None
    load: int | None

    @property
    def are_apart(self) -> bool:
        """Does the server have a core that neither the load nor the endpoint uses?"""
        return self.server is not None and self.server not in (self.endpoint, self.load)


def share_out() -> Cores:
    """The server under measurement first; on two cores, load and endpoint share the other one."""
    if sys.platform != "linux":
        return Cores(None, None, None)
    cores = sorted(os.sched_getaffinity(0))
    return Cores(server=cores[0], endpoint=cores[1 % len(cores)], load=cores[-1])


def pin(pid: int, core: int | None) -> None:
    """Keep a process (0: this one) on one core."""
    if core is not None and sys.platform == "linux":
        os.sched_setaffinity(pid, {core})
