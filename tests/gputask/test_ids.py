from __future__ import annotations

from uuid import RFC_4122, UUID

from hypothesis import given
from hypothesis import strategies as st

from lib.gputask.ids import derived_task_id, new_task_id


def test_a_new_id_is_a_uuid_of_version_7() -> None:
    identity = UUID(new_task_id())
    assert (identity.version, identity.variant) == (7, RFC_4122)


def test_new_ids_are_unique_and_in_the_order_of_their_making() -> None:
    ids = [new_task_id() for _ in range(1_000)]
    assert len(set(ids)) == 1_000
    assert ids == sorted(ids)


@given(st.text(), st.text())
def test_a_derived_id_is_a_uuid_of_version_8(client_id: str, key: str) -> None:
    identity = UUID(derived_task_id(client_id, key))
    assert (identity.version, identity.variant) == (8, RFC_4122)


def test_the_same_client_and_key_give_the_same_id_in_every_process() -> None:
    """A replica that derived another one would let the job run twice."""
    assert derived_task_id("client", "key-1") == "502b93cf-ff27-813e-a88a-c1984bde29e2"


@given(st.tuples(st.text(), st.text()), st.tuples(st.text(), st.text()))
def test_different_clients_or_keys_give_different_ids(one: tuple[str, str], other: tuple[str, str]) -> None:
    assert (derived_task_id(*one) == derived_task_id(*other)) == (one == other)


def test_moving_a_letter_from_client_to_key_gives_another_id() -> None:
    assert derived_task_id("ab", "c") != derived_task_id("a", "bc")
    assert derived_task_id("1:a", "b") != derived_task_id("1", "a:b")
