"""Conditions and changes mean the same to us and to DynamoDB."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lib.asyncaws.conditions import (
    AllOf,
    AnyOf,
    AtMost,
    Change,
    Condition,
    Equals,
    Item,
    LessThan,
    Missing,
    MoreThan,
    NoNumber,
    Placeholders,
)
from lib.asyncaws.errors import ConditionFailed
from lib.asyncaws.session import BACKGROUND, AwsSession
from lib.asyncaws.table import Table

KEY = "task_id"

# Few names and few values, so that conditions often hold. An attribute has one type, as in our table; only counters
# are added to, since DynamoDB adds decimals and Python binary fractions.
STATUSES = st.sampled_from(["pending", "processing", "completed"])
TIMES = st.sampled_from([1_700_000_000, 1_700_000_000.5, 1_700_000_001.125, 1_700_000_002])
COUNTERS = st.integers(-1, 3)
ATTRIBUTES: dict[str, st.SearchStrategy[Any]] = {
    "status": STATUSES,
    "worker": st.sampled_from(["", "a", "ä \N{SNOWMAN} \U0001f600"]),
    "lease_until": TIMES,
    "created_at": TIMES,
    "attempt": COUNTERS,
    "sends": COUNTERS,
    "active": st.lists(st.sampled_from(["x", "y"]), max_size=2),
    "held": st.booleans(),
}
NUMBERS = ("lease_until", "created_at", "attempt", "sends")
# Another program may have written another type: then no comparison holds, and nothing raises.
FOREIGN = st.sampled_from(["", "soon", True, 1_700_000_000])
# But for what is added to, and for the keys of the index, where DynamoDB takes one type only.
OF_ONE_TYPE = ("attempt", "sends", "status", "created_at")
ITEMS = st.fixed_dictionaries(
    {}, optional={name: value if name in OF_ONE_TYPE else value | FOREIGN for name, value in ATTRIBUTES.items()}
)


def _leaf(attribute: str) -> st.SearchStrategy[Condition]:
    value = ATTRIBUTES[attribute]
    leaves: list[st.SearchStrategy[Condition]] = [
        st.just(Missing(attribute)),
        st.builds(Equals, st.just(attribute), value),
    ]
    if attribute in NUMBERS:
        leaves += [st.builds(kind, st.just(attribute), value) for kind in (AtMost, LessThan, MoreThan)]
        leaves.append(st.just(NoNumber(attribute)))
    return st.one_of(leaves)


CONDITIONS: st.SearchStrategy[Condition] = st.recursive(
    st.sampled_from([*ATTRIBUTES]).flatmap(_leaf),
    lambda inner: st.lists(inner, min_size=1, max_size=3).flatmap(
        lambda parts: st.sampled_from([AllOf(*parts), AnyOf(*parts)])
    ),
    max_leaves=6,
)


@st.composite
def changes(draw: st.DrawFn) -> Change:
    assign = draw(
        st.fixed_dictionaries({}, optional={name: st.none() | value for name, value in ATTRIBUTES.items()}).filter(len)
    )
    countable = [name for name in ("attempt", "sends") if name not in assign]
    add = {name: draw(st.integers(-2, 2)) for name in countable if draw(st.booleans())}
    return Change(condition=draw(st.just(Missing("never")) | CONDITIONS), assign=assign, add=add)


@pytest.fixture
async def table(aws: AwsSession, task_table: str) -> Table:
    return Table(await aws.dynamodb(BACKGROUND), name=task_table, key=KEY, policy=BACKGROUND)


@pytest.fixture
def fresh_key() -> Callable[[], str]:
    numbers = itertools.count()
    return lambda: f"item-{next(numbers)}"


# The function-scoped table is shared by the examples on purpose: each has an item of its own.
wire = settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])


@wire
@given(item=st.none() | ITEMS, change=changes())
async def test_a_change_does_to_an_item_what_dynamodb_does(
    table: Table, fresh_key: Callable[[], str], item: Item | None, change: Change
) -> None:
    key = fresh_key()
    before = None if item is None else {KEY: key, **item}
    if before is not None:
        await table.put(before)
    expected = change.applied_to(before or {})

    if expected is None:
        with pytest.raises(ConditionFailed) as failure:
            await table.update(key, change)
        assert failure.value.item == before
        assert await table.get(key) == before
    else:
        # An update of nothing makes an item.
        assert await table.update(key, change) == expected | {KEY: key}
        assert await table.get(key) == expected | {KEY: key}


@wire
@given(item=st.none() | ITEMS, new=ITEMS, condition=CONDITIONS)
async def test_a_condition_admits_a_put_when_it_holds(
    table: Table, fresh_key: Callable[[], str], item: Item | None, new: Item, condition: Condition
) -> None:
    key = fresh_key()
    before = None if item is None else {KEY: key, **item}
    if before is not None:
        await table.put(before)

    if condition.holds(before or {}):
        await table.put({KEY: key, **new}, condition)
        assert await table.get(key) == {KEY: key, **new}
    else:
        with pytest.raises(ConditionFailed) as failure:
            await table.put({KEY: key, **new}, condition)
        assert failure.value.item == before
        assert await table.get(key) == before


BOUNDARIES: list[tuple[Condition, Item, bool]] = [
    (Missing("a"), {}, True),
    (Missing("a"), {"a": 1}, False),
    (Equals("a", 1), {"a": 1}, True),
    (Equals("a", 1), {"a": 2}, False),
    (Equals("a", 1), {}, False),
    (AtMost("a", 1), {"a": 1}, True),
    (AtMost("a", 1), {"a": 1.001}, False),
    (AtMost("a", 1), {}, False),
    (LessThan("a", 1), {"a": 0.999}, True),
    (LessThan("a", 1), {"a": 1}, False),
    (LessThan("a", 1), {}, False),
    (MoreThan("a", 1), {"a": 1.001}, True),
    (MoreThan("a", 1), {"a": 1}, False),
    (NoNumber("a"), {}, True),
    (NoNumber("a"), {"a": "1"}, True),
    (NoNumber("a"), {"a": True}, True),
    (NoNumber("a"), {"a": 0}, False),
    (Equals("a", 1), {"a": True}, False),
    (AtMost("a", 1), {"a": "0"}, False),
    (AtMost("a", 1), {"a": False}, False),
    (LessThan("a", 1), {"a": []}, False),
    (MoreThan("a", 1), {"a": "2"}, False),
    (AllOf(Equals("a", 1), Missing("b")), {"a": 1}, True),
    (AllOf(Equals("a", 1), Missing("b")), {"a": 1, "b": 1}, False),
    (AnyOf(Equals("a", 1), Missing("b")), {"a": 1, "b": 1}, True),
    (AnyOf(Equals("a", 1), Missing("b")), {"b": 1}, False),
]


@pytest.mark.parametrize(("condition", "item", "holds"), BOUNDARIES)
def test_a_condition_holds_for_an_item_or_not(condition: Condition, item: Item, holds: bool) -> None:
    assert condition.holds(item) is holds


async def test_dynamodb_draws_the_same_boundaries(table: Table, fresh_key: Callable[[], str]) -> None:
    for condition, item, holds in BOUNDARIES:
        key = fresh_key()
        await table.put({KEY: key, **item})
        if holds:
            await table.put({KEY: key}, condition)
        else:
            with pytest.raises(ConditionFailed):
                await table.put({KEY: key}, condition)


def test_a_change_of_an_item_it_does_not_fit_is_none() -> None:
    assert Change(condition=Missing("a"), assign={"b": 1}).applied_to({"a": 1}) is None


def test_a_change_leaves_the_item_it_was_applied_to_alone() -> None:
    item = {"a": 1, "b": 2}
    changed = Change(condition=Equals("a", 1), assign={"b": None, "c": 3}, add={"a": 4, "d": 5}).applied_to(item)
    assert changed == {"a": 5, "c": 3, "d": 5}
    assert item == {"a": 1, "b": 2}


def test_an_expression_aliases_every_name_since_many_are_reserved_words() -> None:
    into = Placeholders()
    change = Change(condition=Missing("key"), assign={"status": "x", "worker": None}, add={"attempt": 1})
    assert change.render(into) == "SET #status = :v0 REMOVE #worker ADD #attempt :v1"
    assert change.condition is not None
    assert change.condition.render(into) == "attribute_not_exists(#key)"
    assert into.names == {"#status": "status", "#worker": "worker", "#attempt": "attempt", "#key": "key"}
    assert into.values == {":v0": "x", ":v1": 1}


def test_nested_conditions_keep_their_grouping() -> None:
    into = Placeholders()
    condition = AllOf(AnyOf(Equals("a", 1), AtMost("a", 2)), LessThan("b", 3))
    assert condition.render(into) == "((#a = :v0) OR (#a <= :v1)) AND (#b < :v2)"
