"""Failures to order: which calls fail, how, how often and for how long."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from services.devstack.emulator.aws_call import AwsCall


class Mode(StrEnum):
    """How a call fails."""

    ERROR = "error"  # answered at once with `code`, or with what the service says when it is down
    THROTTLE = "throttle"  # answered at once: asked too often
    HANG = "hang"  # not answered until the fault is over, then with an error; nothing was done
    SLOW = "slow"  # done and answered, `delay_s` late
    GARBAGE = "garbage"  # done, but answered with a page of HTML, as by a proxy in between
    DROP = "drop"  # done, but the connection is closed instead of the answer


@dataclass(frozen=True, slots=True)
class Fault:
    """One ordered failure.

    `action` None means every action of the service. The fault ends after `times` calls or `seconds`, whichever comes
    first; with neither it lasts until it is cleared.
    """

    service: str
    mode: Mode
    action: str | None = None
    code: str | None = None
    message: str = "Ordered by the test."
    times: int | None = None
    seconds: float | None = None
    delay_s: float = 0.0

    def matches(self, call: AwsCall) -> bool:
        """Whether `call` is one of those that should fail."""
        return call.service == self.service and self.action in (None, call.action)


@dataclass(slots=True)
class _Standing:
    fault: Fault
    ends_at_s: float | None
    calls_left: int | None


class FaultPlan:
    """The failures in force. Thread-safe: every request is a thread of its own."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._changed = threading.Condition()
        self._standing: list[_Standing] = []

    def order(self, fault: Fault) -> None:
        """Put `fault` in force."""
        ends_at_s = None if fault.seconds is None else self._clock() + fault.seconds
        with self._changed:
            self._standing.append(_Standing(fault, ends_at_s, fault.times))

    def clear(self, service: str | None = None) -> None:
        """End the faults of `service`, or all. Calls that hang are answered now."""
        with self._changed:
            self._standing = [s for s in self._standing if service not in (None, s.fault.service)]
            self._changed.notify_all()

    def take(self, call: AwsCall) -> Fault | None:
        """The fault `call` meets, counted as met; the first ordered wins."""
        with self._changed:
            standing = next((s for s in self._in_force() if s.fault.matches(call)), None)
            if standing is None:
                return None
            if standing.calls_left is not None:
                standing.calls_left -= 1
            return standing.fault

    def in_force(self) -> list[Fault]:
        """Faults that the next matching call would meet."""
        with self._changed:
            return [standing.fault for standing in self._in_force()]

    def wait_until_over(self, fault: Fault, *, limit_s: float) -> None:
        """Block until `fault` is cleared, its seconds are over, or `limit_s` has passed."""
        give_up_at_s = self._clock() + limit_s
        with self._changed:
            while (left_s := self._left_s(fault, give_up_at_s)) > 0:
                self._changed.wait(left_s)

    def _left_s(self, fault: Fault, give_up_at_s: float) -> float:
        standing = next((s for s in self._standing if s.fault is fault), None)
        if standing is None:
            return 0.0
        ends_at_s = give_up_at_s if standing.ends_at_s is None else min(standing.ends_at_s, give_up_at_s)
        return ends_at_s - self._clock()

    def _in_force(self) -> list[_Standing]:
        now_s = self._clock()
        # A fault whose calls are used up stays known: the last of them may still hang.
        self._standing = [s for s in self._standing if s.ends_at_s is None or s.ends_at_s > now_s]
        return [s for s in self._standing if s.calls_left != 0]
