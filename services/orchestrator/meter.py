"""What the orchestrator measures. Adding to it costs no I/O, so it may be done while a client waits."""

from __future__ import annotations

from lib.asyncaws.instance import InstanceState
from lib.asyncaws.metrics import Metrics, NoMetrics
from lib.gputask.measures import GPU_BLOCKED, GPU_STATE, JOBS_ACCEPTED, TIME_TO_202, WAKE_TIME, count_failure
from lib.gputask.record import ErrorCode


class Meter:
    """One method for each thing that happens."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def accepted(self) -> None:
        """A new job was recorded and queued."""
        self._metrics.add(JOBS_ACCEPTED)

    def answered(self, status: int, duration_s: float) -> None:
        """A request has its whole answer, so long after it came. Only a submission's is 202."""
        if status == 202:
            self._metrics.add(TIME_TO_202, duration_s * 1000)

    def failed(self, code: ErrorCode) -> None:
        """A job was given up."""
        count_failure(self._metrics, code)

    def seen(self, state: InstanceState) -> None:
        """EC2 said so of the GPU instance; it is asked only while there is demand."""
        self._metrics.add(GPU_STATE, 1 if state is InstanceState.RUNNING else 0)

    def blocked(self, *, is_blocked: bool) -> None:
        """Whether the GPU cannot wake until a person does something; told at each look, like the state."""
        self._metrics.add(GPU_BLOCKED, 1 if is_blocked else 0)

    def woken(self, after_s: float) -> None:
        """The GPU instance was seen running, so long after its start was ordered; as exact as the waker's looks."""
        self._metrics.add(WAKE_TIME, after_s)


SILENT = Meter(NoMetrics())
