from __future__ import annotations

from typing import Any

import pytest

from bench.endpoint.capacity import item_bytes, read_units, write_units


@pytest.mark.parametrize(
    ("item", "size_bytes"),
    [
        ({}, 0),
        ({"text": {"S": "ä😀"}}, 4 + 2 + 4),
        ({"n": {"N": "0"}}, 1 + 1),
        ({"n": {"N": "1200"}}, 1 + 2),
        ({"n": {"N": "0.0012"}}, 1 + 2),
        ({"n": {"N": "-12"}}, 1 + 3),
        ({"n": {"N": "1767225600.123"}}, 1 + 8),
        ({"n": {"N": "1e+300"}}, 1 + 2),
        ({"yes": {"BOOL": True}}, 3 + 1),
        ({"list": {"L": [{"S": "ab"}, {"BOOL": False}]}}, 4 + 3 + 3 + 2),
        ({"map": {"M": {"k": {"S": "v"}}}}, 3 + 3 + 1 + 2),
    ],
)
def test_an_items_size_is_that_of_its_names_and_values(item: dict[str, Any], size_bytes: int) -> None:
    assert item_bytes(item) == size_bytes


def test_units_are_whole_and_at_least_one() -> None:
    assert [write_units(size) for size in (0, 1024, 1025, 262_144)] == [1, 1, 2, 256]
    assert [read_units(size, is_consistent=True) for size in (0, 4096, 4097)] == [1, 1, 2]
    assert [read_units(size, is_consistent=False) for size in (0, 4096, 4097)] == [0.5, 0.5, 1]
