"""What is measured of tasks and of the GPU, by whichever service; docs/operations.md says who measures what.

Each metric costs $0.30 a month where it is published in every hour. Hence one dimension with few values, the cause of a
failure, and none of clients, kinds or tasks.
"""

from __future__ import annotations

from lib.asyncaws.metrics import Kind, Metric, Metrics, Unit
from lib.gputask.record import ErrorCode

JOBS_ACCEPTED = Metric("JobsAccepted", Unit.COUNT, Kind.SUM)
TIME_TO_202 = Metric("TimeTo202", Unit.MILLISECONDS, Kind.EACH)
WAKE_TIME = Metric("WakeTime", Unit.SECONDS, Kind.EACH)
GPU_STATE = Metric("GpuState", Unit.NONE, Kind.LAST)
GPU_BLOCKED = Metric("GpuBlocked", Unit.NONE, Kind.LAST)

JOBS_CLAIMED = Metric("JobsClaimed", Unit.COUNT, Kind.SUM)
JOBS_COMPLETED = Metric("JobsCompleted", Unit.COUNT, Kind.SUM)
WAIT_TIME = Metric("WaitTime", Unit.SECONDS, Kind.EACH)
RUN_TIME = Metric("RunTime", Unit.SECONDS, Kind.EACH)
RESULT_TIME = Metric("ResultTime", Unit.SECONDS, Kind.EACH)
BOOT_TIME = Metric("BootTime", Unit.SECONDS, Kind.EACH)

JOBS_FAILED = Metric("JobsFailed", Unit.COUNT, Kind.SUM)
JOBS_FAILED_BY_CAUSE = {code: JOBS_FAILED.by(Cause=code.value) for code in ErrorCode}

MEASURES = (
    JOBS_ACCEPTED,
    TIME_TO_202,
    WAKE_TIME,
    GPU_STATE,
    GPU_BLOCKED,
    JOBS_CLAIMED,
    JOBS_COMPLETED,
    WAIT_TIME,
    RUN_TIME,
    RESULT_TIME,
    BOOT_TIME,
    JOBS_FAILED,
    *JOBS_FAILED_BY_CAUSE.values(),
)


def count_failure(metrics: Metrics, code: ErrorCode) -> None:
    """Once in all, for the ratio to what was completed, and once by its cause.

    CloudWatch does not add up over dimensions where an alarm could use it.
    """
    metrics.add(JOBS_FAILED)
    metrics.add(JOBS_FAILED_BY_CAUSE[code])
