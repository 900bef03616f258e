"""The books themselves: each way to break a promise is seen."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from services.devstack.emulator.queue_depth import QueueDepth
from services.devstack.power import State
from services.devstack.soak.books import imbalances
from services.devstack.soak.clients import SoakJob

DONE = {"job_id": "j", "status": "completed", "result_s3_uri": "s3://b/k", "error": None}
FAILED = {"job_id": "j", "status": "failed", "result_s3_uri": None, "error": "because"}
EMPTY = QueueDepth(visible=0, in_flight=0, delayed=0, sent=1)


def books(**changes: Any) -> list[str]:
    job = SoakJob("soak-0", {}, job_id="j", ends=changes.pop("ends", [DONE]))
    facts: dict[str, Any] = {
        "jobs": [job],
        "records": {"j": {"attempt": 1, "error_code": "deadline"}},
        "runs": Counter({"soak-0": 1}),
        "queues": {"q": EMPTY},
        "instance": State.STOPPED,
        "mischief": (),
    }
    return imbalances(**facts | changes)


def test_balanced_books_say_nothing() -> None:
    assert books() == []
    assert books(ends=[FAILED]) == []


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"ends": []}, "0 ends"),
        ({"ends": [DONE, FAILED]}, "2 ends"),
        ({"records": {}}, "no record"),
        ({"ends": [{**DONE, "error": "and an error"}]}, "neither or both"),
        ({"ends": [FAILED], "records": {"j": {"attempt": 1}}}, "without a named cause"),
        ({"runs": Counter({"soak-0": 2})}, "ran 2 times upstream in 1 attempts"),
        ({"runs": Counter({"soak-0": 2}), "records": {"j": {"attempt": 2}}}, "although nothing died"),
        ({"runs": Counter()}, "without a run"),
        ({"queues": {"dlq": QueueDepth(visible=1, in_flight=0, delayed=0, sent=1)}}, "dlq is not empty"),
        ({"records": {"j": {"attempt": 1}, "x": {"status": "processing"}}}, "task x has no end"),
        ({"instance": State.RUNNING}, "running instead of stopped"),
    ],
)
def test_a_broken_promise_is_named(changes: dict[str, Any], says: str) -> None:
    assert any(says in line for line in books(**changes))


def test_a_second_run_is_allowed_where_a_worker_died() -> None:
    twice = {"runs": Counter({"soak-0": 2}), "records": {"j": {"attempt": 2}}}
    assert books(**twice, mischief=("kill adapter",)) == []
