"""What a process counts and measures, kept in memory until somebody publishes it. No I/O, no clock."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum, StrEnum, auto
from itertools import islice
from typing import TypeVar

T = TypeVar("T")

# https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_MetricDatum.html and ..._Dimension.html
_MAX_NAME_CHARS = 255
_MAX_DIMENSION_CHARS = 1024
# https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_PutMetricData.html allows up to 2**360, which no
# duration or count of ours comes near; what does is a mistake.
_LARGEST = 1e12
_SMALLEST = 1e-6

# Each metric costs money, so nobody means to have as many; a dimension with too many values does it by mistake.
_MAX_METRICS = 100
# Distinct values of one metric that are kept to three digits between two publications; more are kept to two, of which
# there are 90 a decade. So memory is bounded whatever happens, and no value is lost.
_MAX_FINE_VALUES = 1000
# A publication is cut into calls of so many distinct values: below a tenth of the megabyte that one call may have.
_VALUES_A_CALL = 5000


# What CloudWatch takes, without the slash: AWS's own namespaces have one.
NAMESPACE_PATTERN = r"^[A-Za-z0-9._#-]{1,255}$"


class Destination(StrEnum):
    """Where metrics go: nowhere, to standard output for CloudWatch Logs to extract, or to CloudWatch by call."""

    OFF = "off"
    LOG = "log"
    CLOUDWATCH = "cloudwatch"


class Unit(StrEnum):
    """Those of CloudWatch that are needed here."""

    NONE = "None"
    COUNT = "Count"
    SECONDS = "Seconds"
    MILLISECONDS = "Milliseconds"


class Kind(Enum):
    """What becomes of the values between two publications: their sum, the last one, or each."""

    SUM = auto()
    LAST = auto()
    EACH = auto()


@dataclass(frozen=True, slots=True)
class Metric:
    """Something measured. With dimensions it is another metric: to CloudWatch, and to its bill.

    Raises:
        ValueError: a name, or a dimension, that CloudWatch would refuse.
    """

    name: str
    unit: Unit
    kind: Kind
    dimensions: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        texts = [(self.name, _MAX_NAME_CHARS)]
        for name, value in self.dimensions:
            texts += [(name, _MAX_NAME_CHARS), (value, _MAX_DIMENSION_CHARS)]
        for text, most_chars in texts:
            if not (text.strip() and text.isascii() and text.isprintable() and len(text) <= most_chars):
                raise ValueError(f"no name or dimension of a metric: {text[:80]!r}")
        if any(name.startswith(":") for name, _ in self.dimensions):
            raise ValueError("the name of a dimension does not begin with a colon")

    def by(self, **dimensions: str) -> Metric:
        """The same, of one value of each dimension."""
        return replace(self, dimensions=tuple(dimensions.items()))


@dataclass(frozen=True, slots=True)
class Series:
    """What is published of one metric: each value, and how often it occurred."""

    metric: Metric
    values: Mapping[float, int]


class Metrics:
    """Collects. `add` is cheap, never raises, and never takes more than bounded memory.

    For one event loop; not for threads.
    """

    def __init__(self) -> None:
        self._values: dict[Metric, dict[float, int]] = {}
        self._refused = 0

    def add(self, metric: Metric, value: float = 1) -> None:
        """One more of it, or one more value."""
        self._merge(metric, value, 1)

    def take(self) -> list[Series]:
        """All that was collected since the last time."""
        taken, self._values = self._values, {}
        return [Series(metric, values) for metric, values in taken.items()]

    def put_back(self, series: Iterable[Series]) -> None:
        """What could not be published is published with what comes next: late is better than never."""
        for one in series:
            if one.metric.kind is Kind.LAST and one.metric in self._values:
                continue  # there is a later one
            for value, times in one.values.items():
                self._merge(one.metric, value, times)

    def take_refused(self) -> int:
        """How many values were not taken since the last time: no numbers, or of too many metrics."""
        refused, self._refused = self._refused, 0
        return refused

    def _merge(self, metric: Metric, value: float, times: int) -> None:
        values = self._values.get(metric)
        if not abs(value) <= _LARGEST or (values is None and len(self._values) >= _MAX_METRICS):  # NaN is not <= either
            self._refused += 1
            return
        if values is None:
            values = self._values[metric] = {}
        match metric.kind:
            case Kind.SUM:
                total = next(iter(values), 0.0) + value * times
                values.clear()
                values[total] = 1
            case Kind.LAST:
                values.clear()
                values[value] = 1
            case Kind.EACH:
                kept = _rounded(value, 3)
                if kept not in values and len(values) >= _MAX_FINE_VALUES:
                    kept = _rounded(value, 2)
                values[kept] = values.get(kept, 0) + times


class NoMetrics(Metrics):
    """Collects nothing."""

    def add(self, metric: Metric, value: float = 1) -> None:
        pass


def batches(series: Sequence[Series]) -> Iterator[list[Series]]:
    """Cut for calls that are limited in size; a series stays in one piece."""
    batch: list[Series] = []
    room = _VALUES_A_CALL
    for one in series:
        if batch and len(one.values) > room:
            yield batch
            batch, room = [], _VALUES_A_CALL
        batch.append(one)
        room -= len(one.values)
    if batch:
        yield batch


def chunks(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Consecutive parts of at most `size`."""
    rest = iter(items)
    while part := list(islice(rest, size)):
        yield part


def _rounded(value: float, digits: int) -> float:
    """To significant digits: 1 of a second and 1 of an hour deserve the same relative precision."""
    if abs(value) < _SMALLEST:
        return 0.0
    return round(value, digits - 1 - math.floor(math.log10(abs(value))))
