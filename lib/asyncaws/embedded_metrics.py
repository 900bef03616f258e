"""Metrics as lines of a log that CloudWatch Logs reads them from: no call, no permission.

https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from itertools import chain, repeat
from typing import Any

from lib.asyncaws.metrics import Metric, Series, chunks

# Of the specification: numbers of an array, and metrics of a directive.
_VALUES_A_METRIC = 100
_METRICS_A_LINE = 100

_Dimensions = tuple[tuple[str, str], ...]


class EmbeddedMetrics:
    """Writes the lines, each a JSON object of its own whatever the log's format is.

    Attributes:
        write: to standard output, where the events of the log do not go; must not block.
        clock: epoch seconds.
    """

    def __init__(self, *, namespace: str, write: Callable[[bytes], None], clock: Callable[[], float]) -> None:
        self._namespace = namespace
        self._write = write
        self._clock = clock

    async def publish(self, series: Sequence[Series]) -> None:
        """Write them, stamped now."""
        at_ms = round(self._clock() * 1000)
        self._write("".join(f"{line}\n" for line in embedded_lines(series, self._namespace, at_ms)).encode())


def embedded_lines(series: Sequence[Series], namespace: str, at_ms: int) -> Iterator[str]:
    """As few lines as the format allows: at least one for each set of dimensions."""
    by_dimensions: dict[_Dimensions, list[Series]] = {}
    for one in series:
        by_dimensions.setdefault(one.metric.dimensions, []).append(one)
    for dimensions, members in by_dimensions.items():
        for targets in _portions(members):
            yield _line(dimensions, targets, namespace, at_ms)


def _portions(members: list[Series]) -> Iterator[list[tuple[Metric, list[float]]]]:
    """What goes into one line: a metric once, with no more values than a line takes."""
    portions = {one.metric: list(chunks(_each(one), _VALUES_A_METRIC)) for one in members}
    for number in range(max(len(portion) for portion in portions.values())):
        targets = [(metric, portion[number]) for metric, portion in portions.items() if number < len(portion)]
        yield from chunks(targets, _METRICS_A_LINE)


def _each(series: Series) -> Iterator[float]:
    """The format knows no counts."""
    return chain.from_iterable(repeat(value, times) for value, times in series.values.items())


def _line(dimensions: _Dimensions, targets: list[tuple[Metric, list[float]]], namespace: str, at_ms: int) -> str:
    directive = {
        "Namespace": namespace,
        "Dimensions": [[name for name, _ in dimensions]],
        "Metrics": [{"Name": metric.name, "Unit": metric.unit.value} for metric, _ in targets],
    }
    root: dict[str, Any] = {"_aws": {"Timestamp": at_ms, "CloudWatchMetrics": [directive]}, **dict(dimensions)}
    root |= {metric.name: values[0] if len(values) == 1 else values for metric, values in targets}
    return json.dumps(root, separators=(",", ":"))
