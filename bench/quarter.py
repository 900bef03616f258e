"""`python -m bench.quarter PID`: lets a process run for 25 ms of every 100, as a quarter of a processor does at AWS."""

from __future__ import annotations

import os
import signal
import sys
import time

_PERIOD_S = 0.1
_SHARE = 0.25


def main(pid: int) -> None:
    """Until it is terminated, or the process has ended."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    try:
        while True:
            os.kill(pid, signal.SIGCONT)
            time.sleep(_PERIOD_S * _SHARE)
            os.kill(pid, signal.SIGSTOP)
            time.sleep(_PERIOD_S * (1 - _SHARE))
    except ProcessLookupError:
        return
    finally:
        _go_on(pid)


def _go_on(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGCONT)
    except ProcessLookupError:
        return


if __name__ == "__main__":
    main(int(sys.argv[1]))
