"""What the adapter measures. Adding to it costs no I/O."""

from __future__ import annotations

from lib.asyncaws.metrics import Metrics, NoMetrics
from lib.gputask.measures import (
    BOOT_TIME,
    JOBS_CLAIMED,
    JOBS_COMPLETED,
    RESULT_TIME,
    RUN_TIME,
    WAIT_TIME,
    count_failure,
)
from lib.gputask.record import ErrorCode, TaskRecord


class Meter:
    """One method for each thing that happens. `now` is epoch seconds."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def ready(self, after_s: float) -> None:
        """The Unified API was healthy for the first time, so long after the start of this process.

        On a GPU instance systemd starts it early in the boot, so it is what the boot takes from there on: loading
        ComfyUI. The rest cannot be told from here, where nobody may ask EC2 for the time of the launch.
        """
        self._metrics.add(BOOT_TIME, after_s)

    def claimed(self, task: TaskRecord, now: float) -> None:
        """An attempt begins. Only before the first one did the client wait for nothing but its turn."""
        self._metrics.add(JOBS_CLAIMED)
        if task.attempt == 1:
            self._metrics.add(WAIT_TIME, _since(task.created_at, now))

    def completed(self, task: TaskRecord, now: float) -> None:
        """The result is in the record."""
        self._metrics.add(JOBS_COMPLETED)
        self._metrics.add(RUN_TIME, _since(task.claimed_at or now, now))
        self._metrics.add(RESULT_TIME, _since(task.created_at, now))

    def failed(self, task: TaskRecord, code: ErrorCode, now: float) -> None:
        """An attempt failed for good, and the record says so."""
        count_failure(self._metrics, code)
        self._metrics.add(RUN_TIME, _since(task.claimed_at or now, now))

    def given_up(self, code: ErrorCode) -> None:
        """A job was failed without another attempt."""
        count_failure(self._metrics, code)


SILENT = Meter(NoMetrics())


def _since(moment: float, now: float) -> float:
    """Never negative: the moment may be of another machine's clock."""
    return max(now - moment, 0.0)
