"""Since when an instance stops, as far as that can be known."""

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types_boto3_ec2.type_defs import InstanceTypeDef

# "User initiated (2026-01-01 10:00:00 GMT)"; other causes of a stop tell no time.
_MOMENT = re.compile(r"\((\d{4}-\d\d-\d\d \d\d:\d\d:\d\d) (?:GMT|UTC)\)")


class StopWatch:
    """Remembers what EC2 does not tell: when a stop was first seen, and when it was forced.

    A Lambda forgets, so that a stop may be forced later, or once more. Neither does harm.
    """

    def __init__(self) -> None:
        self._seen_at: float | None = None
        self._forced_at: float | None = None

    def since(self, instance: "InstanceTypeDef", *, now: float, launched_at: float) -> float | None:
        """Epoch seconds of the begin of its stop, or of the last use of force; None: it does not stop."""
        if instance["State"]["Name"] != "stopping":
            self._seen_at = self._forced_at = None
            return None
        self._seen_at = self._seen_at or now
        told = _told(instance.get("StateTransitionReason", ""))
        # A moment before the launch is of another stop, and one of the future of no use.
        begin = told if told is not None and launched_at <= told <= now else self._seen_at
        return max(begin, self._forced_at or begin)

    def forced(self, now: float) -> None:
        """EC2 was told to use force: it gets as much time again."""
        self._forced_at = now


def _told(reason: str) -> float | None:
    match = _MOMENT.search(reason)
    try:
        return datetime.strptime(match[1], "%Y-%m-%d %H:%M:%S").replace(tzinfo=UTC).timestamp() if match else None
    except ValueError:
        return None
