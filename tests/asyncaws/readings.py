"""What was collected, in a form that tests compare."""

from __future__ import annotations

from lib.asyncaws.metrics import Metrics


def readings(metrics: Metrics) -> dict[str, dict[float, int]]:
    """Values and how often each occurred, by name, e.g. `JobsFailed Cause=deadline`; taken out by looking."""
    found: dict[str, dict[float, int]] = {}
    for series in metrics.take():
        dimensions = [f"{name}={value}" for name, value in series.metric.dimensions]
        found[" ".join([series.metric.name, *dimensions])] = dict(series.values)
    return found
