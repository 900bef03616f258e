"""How often each AWS action was asked for: proof of what was *not* done."""

import threading
from collections import Counter

from services.devstack.emulator.aws_call import AwsCall


class CallLog:
    """Counts per service and action, thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._attempted: Counter[tuple[str, str]] = Counter()
        self._failed: Counter[tuple[str, str]] = Counter()

    def note_attempt(self, call: AwsCall) -> None:
        """Count a call as it arrives, so that one which hangs is counted too."""
        with self._lock:
            self._attempted[call.service, call.action] += 1

    def note_failure(self, call: AwsCall) -> None:
        """Count a call that was answered with an error, or not at all."""
        with self._lock:
            self._failed[call.service, call.action] += 1

    def attempted(self) -> dict[str, dict[str, int]]:
        """service -> action -> calls."""
        with self._lock:
            return _nest(self._attempted)

    def failed(self) -> dict[str, dict[str, int]]:
        """service -> action -> calls with an error or without an answer."""
        with self._lock:
            return _nest(self._failed)


def _nest(counts: Counter[tuple[str, str]]) -> dict[str, dict[str, int]]:
    nested: dict[str, dict[str, int]] = {}
    for (service, action), count in sorted(counts.items()):
        nested.setdefault(service, {})[action] = count
    return nested
