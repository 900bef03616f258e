"""What an instance's history costs.

Billed in `running` only, per second, with a minimum of 60 s per start:
https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/ec2-instance-lifecycle.html (billing per state),
https://aws.amazon.com/ec2/pricing/on-demand/ (price: g6e.2xlarge, us-east-1, Linux, 2026).
"""

from collections.abc import Iterable

from services.devstack.power import Interval, State

GPU_USD_PER_HOUR = 2.24208
MINIMUM_PER_START_S = 60.0


def running_s(history: Iterable[Interval], *, now_s: float) -> float:
    """Seconds spent in `running`; an interval that still lasts counts until `now_s`."""
    return sum(_runs_s(history, now_s))


def billed_s(history: Iterable[Interval], *, now_s: float) -> float:
    """Seconds that are charged for: each start at least a minute."""
    return sum(max(run_s, MINIMUM_PER_START_S) for run_s in _runs_s(history, now_s))


def cost_usd(seconds: float, *, usd_per_hour: float = GPU_USD_PER_HOUR) -> float:
    """Price of so many seconds of the GPU instance."""
    return seconds * usd_per_hour / 3600


def _runs_s(history: Iterable[Interval], now_s: float) -> list[float]:
    running = (interval for interval in history if interval.state is State.RUNNING)
    return [(now_s if run.until_s is None else run.until_s) - run.since_s for run in running]
