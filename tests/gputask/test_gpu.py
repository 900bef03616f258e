from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from lib.asyncaws.attributes import deserialize_item, serialize_item
from lib.gputask.gpu import InstanceHold, UpstreamHealth, WorkerRecord, instance_key, worker_key


def written(record: WorkerRecord, before: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The item after that beat."""
    item = record.to_change().applied_to({"task_id": worker_key(record.instance_id), **(before or {})})
    assert item is not None
    return item


def test_a_worker_record_is_the_item_the_lambda_reads() -> None:
    record = WorkerRecord(
        instance_id="i-1",
        started_at=1.5,
        beat_at=3.5,
        upstream=UpstreamHealth.BUSY,
        upstream_ok_at=3.25,
        last_claim_at=2.5,
        last_service_at=3.0,
        active=("t-1", "t-2"),
    )
    assert deserialize_item(serialize_item(written(record))) == {
        "task_id": "worker#i-1",
        "started_at": 1.5,
        "beat_at": 3.5,
        "updated_at": 3.5,
        "upstream": "busy",
        "upstream_ok_at": 3.25,
        "last_claim_at": 2.5,
        "last_service_at": 3.0,
        "active": ["t-1", "t-2"],
    }


def test_a_worker_that_has_claimed_nothing_yet_says_nothing_of_it() -> None:
    item = written(WorkerRecord(instance_id="i-1", started_at=1, beat_at=1, upstream=UpstreamHealth.UNHEALTHY))
    assert item == {
        "task_id": "worker#i-1",
        "started_at": 1,
        "beat_at": 1,
        "updated_at": 1,
        "upstream": "unhealthy",
        "active": [],
    }


def test_a_new_process_leaves_what_only_its_predecessor_knows() -> None:
    before = {"upstream_ok_at": 7.5, "last_claim_at": 2.5, "upstream": "busy", "upstream_remark": "silent"}
    beat = WorkerRecord(instance_id="i-1", started_at=9, beat_at=9, upstream=UpstreamHealth.UNHEALTHY)
    after = written(beat, before)
    assert (after["upstream_ok_at"], after["last_claim_at"]) == (7.5, 2.5)
    assert (after["started_at"], after["beat_at"], after["upstream"]) == (9, 9, "unhealthy")
    assert "upstream_remark" not in after


def test_notes_about_the_gpu_stay_out_of_the_index_of_tasks() -> None:
    """The index takes what has a `status`."""
    item = written(WorkerRecord(instance_id="i-1", started_at=1, beat_at=1, upstream=UpstreamHealth.HEALTHY))
    assert "status" not in item
    assert (worker_key("i-1"), instance_key("i-1")) == ("worker#i-1", "instance#i-1")


@pytest.mark.parametrize(
    ("item", "hold"),
    [
        (None, None),
        ({"task_id": "instance#i-1", "hold_count": 2}, None),
        ({"hold_until": "tomorrow"}, None),
        ({"hold_until": 5, "hold_reason": "no worker"}, InstanceHold(until=5, reason="no worker")),
        ({"hold_until": 5.5}, InstanceHold(until=5.5, reason="")),
    ],
)
def test_a_hold_is_what_the_lambda_wrote(item: dict[str, object] | None, hold: InstanceHold | None) -> None:
    assert InstanceHold.from_item(item) == hold


def test_a_worker_record_is_read_as_it_was_written() -> None:
    record = WorkerRecord(instance_id="i-1", started_at=1.5, beat_at=3.5, upstream=UpstreamHealth.BUSY)
    assert WorkerRecord.from_item(written(record)) == record


@pytest.mark.parametrize("item", [None, {}, {"beat_at": "soon"}, {"beat_at": True}])
def test_a_worker_that_does_not_say_when_it_beat_has_said_nothing(item: Mapping[str, Any] | None) -> None:
    assert WorkerRecord.from_item(item) is None


@pytest.mark.parametrize("upstream", [None, "fine", 7, []])
def test_a_health_that_means_nothing_is_not_healthy(upstream: Any) -> None:
    record = WorkerRecord.from_item({"task_id": "worker#i-1", "beat_at": 1, "upstream": upstream, "started_at": "x"})
    assert record is not None
    assert (record.upstream, record.started_at) == (UpstreamHealth.UNHEALTHY, 0.0)
