"""CloudWatch's evaluation of an alarm on a queue, as pure rules on given samples; no I/O, no clock.

https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/alarm-evaluation.html
"""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, TypeAlias

from services.devstack.metric_math import compile_expression


class AlarmState(StrEnum):
    """CloudWatch's names of the states."""

    OK = "OK"
    ALARM = "ALARM"
    INSUFFICIENT_DATA = "INSUFFICIENT_DATA"


@dataclass(frozen=True, slots=True)
class PeriodFacts:
    """What was measured of queue and instance in one period. None: no data point was published."""

    visible_average: float | None
    sent_sum: int | None
    cpu_average: float | None = None


Expression: TypeAlias = Callable[[PeriodFacts], float | None]
"""The metric (or metric math) the alarm looks at: one value per period, None where it is missing."""


EXPRESSION: Final = "IF(cpu >= 0, visible + sent, 1)"
"""As Terraform has it. EC2 publishes nothing of a stopped instance, and then there is no point."""

_work = compile_expression(EXPRESSION)


def work_while_running(facts: PeriodFacts) -> float | None:
    """Our alarm."""
    return _work({"cpu": facts.cpu_average, "visible": facts.visible_average, "sent": facts.sent_sum})


def visible_only(facts: PeriodFacts) -> float | None:
    """The plain alarm, blind to messages that are taken at once."""
    return facts.visible_average


@dataclass(frozen=True, slots=True)
class AlarmDefinition:
    """`<= threshold` in `datapoints_to_alarm` of the last `evaluation_periods` periods; missing data is no breach.

    `queries` is what DescribeAlarms calls `Metrics`, where the alarm was read back from AWS.
    """

    name: str = "QueueEmptyFor30Min"
    expression: Expression = work_while_running
    period_s: float = 300.0
    evaluation_periods: int = 6
    datapoints_to_alarm: int = 6
    threshold: float = 0.0
    publishing_lag_s: float = 0.0
    queries: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True, slots=True)
class Transition:
    """A change of state, and the data points that brought it, oldest first."""

    previous: AlarmState
    current: AlarmState
    datapoints: tuple[float | None, ...]


def judge(datapoints: Sequence[float | None], definition: AlarmDefinition) -> AlarmState:
    """The state these data points mean (`TreatMissingData` is `notBreaching`)."""
    breaching = sum(1 for point in datapoints if point is not None and point <= definition.threshold)
    return AlarmState.ALARM if breaching >= definition.datapoints_to_alarm else AlarmState.OK


@dataclass(frozen=True, slots=True)
class _Point:
    at_s: float
    visible: int
    sent: int
    cpu: float | None


class PublishedMetrics:
    """Published points of one queue (a gauge, a counter) and one instance, with their times in seconds."""

    def __init__(self, *, kept_s: float) -> None:
        self._kept_s = kept_s
        self._points: deque[_Point] = deque()

    def publish(self, at_s: float, *, visible: int, sent: int, cpu: float | None = None) -> None:
        """Add the points of the minute that began at `at_s`: messages visible at its end, messages sent in it, and the
        load of the instance in percent, None while it does not run."""
        self._points.append(_Point(at_s, visible, sent, cpu))
        while self._points[0].at_s < at_s - self._kept_s:
            self._points.popleft()

    def facts(self, start_s: float, end_s: float) -> PeriodFacts:
        """What was published in `[start_s, end_s)`."""
        points = [point for point in self._points if start_s <= point.at_s < end_s]
        if not points:
            return PeriodFacts(None, None)
        loads = [point.cpu for point in points if point.cpu is not None]
        return PeriodFacts(
            visible_average=sum(point.visible for point in points) / len(points),
            sent_sum=sum(point.sent for point in points),
            cpu_average=sum(loads) / len(loads) if loads else None,
        )


class Alarm:
    """One alarm: judged again at each look, acting on transitions only."""

    def __init__(self, definition: AlarmDefinition) -> None:
        window_s = definition.period_s * (definition.evaluation_periods + 1) + definition.publishing_lag_s
        self.definition = definition
        self.metrics = PublishedMetrics(kept_s=window_s)
        self.state = AlarmState.INSUFFICIENT_DATA

    def look(self, now_s: float) -> Transition | None:
        """Judge the last complete periods at `now_s`; the transition if the state is another one now."""
        datapoints = self._datapoints(now_s)
        previous, self.state = self.state, judge(datapoints, self.definition)
        return None if previous is self.state else Transition(previous, self.state, datapoints)

    def _datapoints(self, now_s: float) -> tuple[float | None, ...]:
        period_s, count = self.definition.period_s, self.definition.evaluation_periods
        # Periods are aligned to multiples of their length; one that is not over yet has no value.
        end_s = (now_s - self.definition.publishing_lag_s) // period_s * period_s
        starts_s = [end_s - period_s * back for back in range(count, 0, -1)]
        return tuple(self.definition.expression(self.metrics.facts(at_s, at_s + period_s)) for at_s in starts_s)
