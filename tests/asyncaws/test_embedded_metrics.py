"""Lines as CloudWatch Logs reads them:
https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html"""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest

from lib.asyncaws.embedded_metrics import EmbeddedMetrics, embedded_lines
from lib.asyncaws.metrics import Kind, Metric, Metrics, Series, Unit

DONE = Metric("Done", Unit.COUNT, Kind.SUM)
TIME = Metric("Time", Unit.MILLISECONDS, Kind.EACH)


def rendered(*series: Series) -> list[dict[str, Any]]:
    return [json.loads(line) for line in embedded_lines(series, "test", 1_700_000_000_123)]


def extracted(lines: list[dict[str, Any]]) -> Counter[tuple[str, str, float]]:
    """What CloudWatch makes of lines: (name, dimensions, value). Refuses what the specification forbids."""
    found: Counter[tuple[str, str, float]] = Counter()
    for line in lines:
        assert isinstance(line["_aws"]["Timestamp"], int)
        for directive in line["_aws"]["CloudWatchMetrics"]:
            assert len(directive["Metrics"]) <= 100
            names = [metric["Name"] for metric in directive["Metrics"]]
            assert len(set(names)) == len(names)
            for keys in directive["Dimensions"]:
                assert all(isinstance(line[key], str) for key in keys)
                for name in names:
                    values = line[name] if isinstance(line[name], list) else [line[name]]
                    assert 1 <= len(values) <= 100
                    found.update((name, ",".join(f"{key}={line[key]}" for key in keys), value) for value in values)
    return found


def test_one_line_says_it_all() -> None:
    assert rendered(Series(DONE, {5: 1}), Series(TIME, {1.5: 2, 20.0: 1})) == [
        {
            "_aws": {
                "Timestamp": 1_700_000_000_123,
                "CloudWatchMetrics": [
                    {
                        "Namespace": "test",
                        "Dimensions": [[]],
                        "Metrics": [{"Name": "Done", "Unit": "Count"}, {"Name": "Time", "Unit": "Milliseconds"}],
                    }
                ],
            },
            "Done": 5,
            "Time": [1.5, 1.5, 20.0],
        }
    ]


def test_other_dimensions_are_on_another_line() -> None:
    plain, by_cause = rendered(Series(DONE, {2: 1}), Series(DONE.by(Cause="deadline"), {2: 1}))
    assert plain["Done"] == by_cause["Done"] == 2
    assert by_cause["Cause"] == "deadline"
    assert by_cause["_aws"]["CloudWatchMetrics"][0]["Dimensions"] == [["Cause"]]
    assert "Cause" not in plain


@pytest.mark.parametrize("number", [1, 99, 100, 101, 250, 1000])
def test_more_than_a_hundred_values_take_more_lines_and_none_is_lost(number: int) -> None:
    series = Series(TIME, {float(value): 1 + value % 3 for value in range(number)})
    lines = rendered(series, Series(DONE, {1: 1}))
    times = sum(series.values.values())
    assert len(lines) == -(-times // 100)
    assert extracted(lines) == {("Time", "", v): n for v, n in series.values.items()} | {("Done", "", 1): 1}


def test_more_than_a_hundred_metrics_take_more_lines() -> None:
    series = [Series(Metric(f"M{n}", Unit.COUNT, Kind.SUM), {n: 1}) for n in range(201)]
    lines = rendered(*series)
    assert len(lines) == 3
    assert extracted(lines) == {(f"M{n}", "", n): 1 for n in range(201)}


async def test_each_line_is_one_of_its_own() -> None:
    metrics, written = Metrics(), list[bytes]()
    metrics.add(DONE)
    metrics.add(DONE.by(Cause="deadline"))
    await EmbeddedMetrics(namespace="test", write=written.append, clock=lambda: 1_700_000_000.1234).publish(
        metrics.take()
    )
    lines = b"".join(written).decode().splitlines()
    assert len(lines) == 2
    assert written[-1].endswith(b"}\n")
    assert all(json.loads(line)["_aws"]["Timestamp"] == 1_700_000_000_123 for line in lines)
