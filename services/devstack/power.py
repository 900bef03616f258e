"""The power states of an EC2 instance as pure rules on given times; no I/O, no clock.

https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/ec2-instance-lifecycle.html
"""

from dataclasses import dataclass, replace
from enum import StrEnum


class State(StrEnum):
    """EC2's names of the states."""

    PENDING = "pending"
    RUNNING = "running"
    STOPPING = "stopping"
    STOPPED = "stopped"
    TERMINATED = "terminated"

    @property
    def code(self) -> int:
        """https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_InstanceState.html"""
        return {"pending": 0, "running": 16, "terminated": 48, "stopping": 64, "stopped": 80}[self.value]


class IncorrectInstanceStateError(Exception):
    """The instance cannot be started or stopped from the state it is in."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A stretch of time in one state; `until_s` is None while it lasts. Epoch seconds."""

    state: State
    since_s: float
    until_s: float | None = None


@dataclass(frozen=True, slots=True)
class Transition:
    """Answer to Start or Stop: the state before, and the one the instance is in now."""

    previous: State
    current: State


class Power:
    """One instance: where it is, and where it was.

    A start takes `pending_s`; a stop lasts until the machine says it has halted, at most `power_cut_s`: an instance
    that does not shut down cleanly within a few minutes is shut down hard
    (https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/how-ec2-instance-stop-start-works.html).
    """

    def __init__(self, *, pending_s: float, power_cut_s: float, state: State = State.STOPPED, since_s: float) -> None:
        self._lasts_s = {State.PENDING: pending_s, State.STOPPING: power_cut_s}
        self._history = [Interval(state, since_s)]
        self.version = 0

    @property
    def state(self) -> State:
        return self._history[-1].state

    @property
    def history(self) -> tuple[Interval, ...]:
        """All intervals, oldest first; the last one is open."""
        return tuple(self._history)

    @property
    def stopped_at_s(self) -> float | None:
        """When it was last told to stop, if it has not been started since."""
        if self.state is State.STOPPING:
            return self._history[-1].since_s
        if self.state is State.STOPPED and len(self._history) > 1:
            return self._history[-2].since_s
        return None

    @property
    def changes_at_s(self) -> float | None:
        """When the state changes by itself; None: never."""
        lasts_s = self._lasts_s.get(self.state)
        return None if lasts_s is None else self._history[-1].since_s + lasts_s

    def settle(self, now_s: float) -> None:
        """Let happen what time alone brings: a pending start completes, a slow stop ends in a power cut."""
        due_s = self.changes_at_s
        if due_s is None or due_s > now_s:
            return
        self._enter(State.RUNNING if self.state is State.PENDING else State.STOPPED, due_s)

    def start(self, now_s: float) -> Transition:
        """StartInstances. Idempotent where the instance is up or coming up.

        Raises:
            IncorrectInstanceStateError: while `stopping`, or terminated.
        """
        self.settle(now_s)
        previous = self.state
        if previous in (State.STOPPING, State.TERMINATED):
            raise IncorrectInstanceStateError(previous)
        if previous is State.STOPPED:
            self._enter(State.PENDING, now_s)
        return Transition(previous, self.state)

    def stop(self, now_s: float, *, force: bool = False) -> Transition:
        """StopInstances. Idempotent where the instance is down or going down; `force` ends a stop that hangs.

        Raises:
            IncorrectInstanceStateError: while `pending`, or terminated.
        """
        self.settle(now_s)
        previous = self.state
        if previous in (State.PENDING, State.TERMINATED):
            raise IncorrectInstanceStateError(previous)
        if previous is State.RUNNING:
            self._enter(State.STOPPING, now_s)
        elif previous is State.STOPPING and force:
            self._enter(State.STOPPED, now_s)
        return Transition(previous, self.state)

    def halt(self, now_s: float) -> None:
        """The machine has shut down by itself. Means nothing unless it was told to stop."""
        self.settle(now_s)
        if self.state is State.STOPPING:
            self._enter(State.STOPPED, now_s)

    def terminate(self, now_s: float) -> None:
        """The instance is gone."""
        if self.state is not State.TERMINATED:
            self._enter(State.TERMINATED, now_s)

    def lay_to_rest(self, now_s: float) -> None:
        """Make it an instance that has been stopped for ever: what it did so far is forgotten."""
        self._history = [Interval(State.STOPPED, now_s)]
        self.version += 1

    def _enter(self, state: State, at_s: float) -> None:
        self._history[-1] = replace(self._history[-1], until_s=at_s)
        self._history.append(Interval(state, at_s))
        self.version += 1
