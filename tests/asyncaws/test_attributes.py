from __future__ import annotations

from decimal import Decimal
from enum import StrEnum
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib.asyncaws.attributes import deserialize, deserialize_item, serialize, serialize_item

VALUES = st.recursive(
    st.text() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)


class Colour(StrEnum):
    RED = "red"


@given(VALUES)
def test_every_value_comes_back_as_it_went(value: Any) -> None:
    assert deserialize(serialize(value)) == value


@given(st.dictionaries(st.text(), VALUES, max_size=4))
def test_every_item_comes_back_as_it_went(item: dict[str, Any]) -> None:
    assert deserialize_item(serialize_item(item)) == item


@pytest.mark.parametrize(
    ("value", "attribute"),
    [
        ("", {"S": ""}),
        (Colour.RED, {"S": "red"}),
        (True, {"BOOL": True}),
        (1, {"N": "1"}),
        (1_700_000_000.125, {"N": "1700000000.125"}),
        ((1, "a"), {"L": [{"N": "1"}, {"S": "a"}]}),
        ({"a": {"b": False}}, {"M": {"a": {"M": {"b": {"BOOL": False}}}}}),
    ],
)
def test_a_value_becomes_the_attribute_of_its_type(value: Any, attribute: dict[str, Any]) -> None:
    assert serialize(value) == attribute


def test_an_enum_member_is_written_as_plain_text() -> None:
    assert type(serialize(Colour.RED)["S"]) is str


@pytest.mark.parametrize("value", [None, b"bytes", {1, 2}, Decimal(1), object()])
def test_a_type_without_a_place_in_our_records_is_refused(value: object) -> None:
    with pytest.raises(TypeError, match=type(value).__name__):
        serialize(value)


@pytest.mark.parametrize(
    ("attribute", "value", "kind"),
    [
        ({"N": "12"}, 12, int),
        ({"N": "12.5"}, 12.5, float),
        ({"N": "1E+2"}, 100.0, float),
        ({"N": "1e2"}, 100.0, float),
        ({"NULL": True}, None, type(None)),
        ({"SS": ["a", "b"]}, ["a", "b"], list),
    ],
)
def test_an_attribute_others_wrote_is_read(attribute: dict[str, Any], value: Any, kind: type) -> None:
    assert deserialize(attribute) == value
    assert type(deserialize(attribute)) is kind
