from __future__ import annotations

from lib.gputask.record import Status, TaskRecord
from services.orchestrator.quota import Quota
from tests.gputask.records import NOW, record_of


def tasks(count: int, *, client_id: str = "web", status: Status = Status.PENDING, at: float = NOW) -> list[TaskRecord]:
    return [
        record_of(task_id=str(number), client_id=client_id, status=status, created_at=at) for number in range(count)
    ]


def see(quota: Quota, *rounds: list[TaskRecord]) -> None:
    for stretch in rounds:
        for task in stretch:
            quota.see(task)


def walked(quota: Quota, *rounds: list[TaskRecord], at: float = NOW + 1) -> None:
    quota.begin_walk(at)
    see(quota, *rounds)
    quota.end_walk()


def test_a_client_without_tasks_is_free() -> None:
    assert not Quota(1).is_used_up("web")


def test_what_the_walk_sees_counts_for_each_client() -> None:
    quota = Quota(3)
    walked(quota, tasks(3), tasks(2, client_id="other"))
    assert quota.is_used_up("web")
    assert not quota.is_used_up("other")


def test_held_tasks_count_and_each_round_meets_them_anew() -> None:
    quota = Quota(4)
    held = tasks(2, status=Status.PROCESSING)
    walked(quota, [*tasks(1), *held], held)
    assert not quota.is_used_up("web")
    walked(quota, [*tasks(2), *held], held)
    assert quota.is_used_up("web")


def test_what_was_accepted_during_a_long_walk_counts_once() -> None:
    quota = Quota(4)
    quota.begin_walk(NOW)
    see(quota, tasks(1, at=NOW - 1))
    for _ in range(2):
        quota.note_accepted("web")
    see(quota, tasks(2, at=NOW + 1))
    quota.end_walk()
    assert not quota.is_used_up("web")
    quota.note_accepted("web")
    assert quota.is_used_up("web")
    walked(quota)
    assert not quota.is_used_up("web")


def test_what_was_accepted_before_a_walk_is_forgotten_when_it_has_ended() -> None:
    quota = Quota(2)
    quota.note_accepted("web")
    quota.note_accepted("web")
    quota.begin_walk(NOW)
    assert quota.is_used_up("web")
    quota.end_walk()
    assert not quota.is_used_up("web")
