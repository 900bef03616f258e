"""The GPU instance: the devstack's own rules of EC2 power, with a boot behind them and a refusal before."""

from __future__ import annotations

from typing import Protocol

from services.devstack.power import IncorrectInstanceStateError, Interval, Power, State
from services.devstack.simulation.clock import Clock, Timer
from services.devstack.simulation.numbers import BOOT_S, PENDING_S, STOP_S
from services.devstack.simulation.traces import Span


class StartRefusedError(Exception):
    """EC2 does not start it now: no capacity, or it is `stopping`."""


class Box(Protocol):
    """What runs on the machine."""

    def boot(self) -> None: ...

    def terminate(self) -> None:
        """SIGTERM: the machine halts `STOP_S` later."""

    def halt(self) -> None: ...


class Machine:
    """One instance. `launched_at_s` is EC2's LaunchTime: of the last start."""

    def __init__(self, clock: Clock, box: Box, *, no_capacity: Span) -> None:
        self._clock = clock
        self._box = box
        self._no_capacity = no_capacity
        self._booting: Timer | None = None
        self.launched_at_s = 0.0
        self._power = Power(pending_s=PENDING_S, power_cut_s=STOP_S, since_s=clock.now_s)

    @property
    def state(self) -> State:
        self._power.settle(self._clock.now_s)
        return self._power.state

    @property
    def history(self) -> tuple[Interval, ...]:
        self._power.settle(self._clock.now_s)
        return self._power.history

    def start(self) -> None:
        """Raises StartRefusedError."""
        now_s = self._clock.now_s
        if self.state is State.STOPPED and self._no_capacity.covers(now_s):
            raise StartRefusedError("InsufficientInstanceCapacity")
        try:
            order = self._power.start(now_s)
        except IncorrectInstanceStateError as error:
            raise StartRefusedError("IncorrectInstanceState") from error
        if order.previous is State.STOPPED:
            self.launched_at_s = now_s
            self._booting = self._clock.after(PENDING_S + BOOT_S, self._box.boot)

    def run_since_yesterday(self) -> None:
        """It is midnight, and the machine is up and booted."""
        self._power = Power(pending_s=PENDING_S, power_cut_s=STOP_S, state=State.RUNNING, since_s=self._clock.now_s)
        self._box.boot()

    def stop(self) -> None:
        """Of a running instance; every policy looks before it stops."""
        if self._power.stop(self._clock.now_s).previous is not State.RUNNING:
            return
        if self._booting:
            self._booting.cancel()
        self._box.terminate()
        self._clock.after(STOP_S, self._box.halt)
