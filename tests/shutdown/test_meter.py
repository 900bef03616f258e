"""Metrics of what the Lambda does, as lines that CloudWatch Logs understands."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from services.shutdown.handler import handler
from tests.shutdown import events
from tests.shutdown.world import World

Lines = Callable[[], list[dict[str, Any]]]


def invoke() -> None:
    handler(events.SCHEDULE, SimpleNamespace(aws_request_id="6f2a"))


def metrics(lines: Lines) -> list[dict[str, Any]]:
    """The lines that hold metrics; each of them says when, and nothing that is no metric."""
    found = [line for line in lines() if "_aws" in line]
    assert all("event" not in line and line["_aws"].pop("Timestamp") > 1.7e12 for line in found)
    return found


def directive(name: str, *dimensions: list[str]) -> dict[str, Any]:
    metric = {"Name": name, "Unit": "Count"}
    return {
        "CloudWatchMetrics": [{"Namespace": "test-metrics", "Dimensions": list(dimensions), "Metrics": [metric]}],
    }


@pytest.fixture
def measured(world: World, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setenv("METRICS", "log")
    monkeypatch.setenv("METRICS_NAMESPACE", "test-metrics")
    return world


def test_a_task_failed_by_rule_b_counts_as_one_and_by_its_cause(measured: World, lines: Lines) -> None:
    measured.processing(created=40, claimed=31)
    invoke()
    failed, stopped = metrics(lines)
    assert failed == {"_aws": directive("JobsFailed", [], ["Cause"]), "Cause": "rule_b", "JobsFailed": 1}
    assert stopped == {"_aws": directive("GpuStopped", ["Rule"]), "Rule": "B", "GpuStopped": 1}


def test_a_stop_counts_once_whoever_looks_again(measured: World, lines: Lines) -> None:
    measured.finished(created=31, claimed=31)
    invoke()
    invoke()
    (stopped,) = metrics(lines)
    assert stopped["Rule"] == "A"


def test_a_forced_stop_counts_as_one(measured: World, lines: Lines) -> None:
    measured.stopping(11)
    invoke()
    (stopped,) = metrics(lines)
    assert stopped["Rule"] == "force"


def test_a_stop_by_somebody_else_is_none_of_ours(measured: World, lines: Lines) -> None:
    measured.finished(created=31, claimed=31)
    measured.gateway.refusals["StopInstances"] = "IncorrectInstanceState"
    invoke()
    assert metrics(lines) == []


def test_a_task_that_ended_meanwhile_has_not_failed(measured: World, lines: Lines) -> None:
    task = measured.processing(created=40, claimed=31)
    measured.gateway.before["UpdateItem"] = lambda: measured.put(task, status="completed", attempt=1)
    invoke()
    assert [line["_aws"] for line in metrics(lines)] == [directive("GpuStopped", ["Rule"])]


def test_nothing_is_written_unless_asked_for(world: World, lines: Lines) -> None:
    world.processing(created=40, claimed=31)
    invoke()
    assert metrics(lines) == []
