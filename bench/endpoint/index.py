"""The index by `status`, sorted by `created_at`, and read in pages as the real one is."""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import Any

from bench.endpoint.expressions import Item, plain
from bench.endpoint.refusal import Refusal
from lib.gputask.schema import STATUS_INDEX_ATTRIBUTES, STATUS_INDEX_KEY, TABLE_KEY

Place = tuple[float, str]  # created_at and task id

_PARTITION, _SORT = STATUS_INDEX_KEY
_KEYS = (TABLE_KEY, *STATUS_INDEX_KEY)
_PROJECTED = (*_KEYS, *STATUS_INDEX_ATTRIBUTES)
_KEY_CONDITION = re.compile(r"([#\w]+)\s*(<=|>=|=|<|>)\s*(:\w+)")
_LAST_ID = "\U0010ffff"


class StatusIndex:
    """Which items have which status, in order. An item without one of the two keys is not in it."""

    def __init__(self) -> None:
        self._partitions: dict[str, list[Place]] = {}

    def move(self, before: Item | None, after: Item | None) -> None:
        """An item was written."""
        old, new = _position(before), _position(after)
        if old == new:
            return
        if old is not None:
            places = self._partitions[old[0]]
            del places[bisect_left(places, old[1])]
        if new is not None:
            insort(self._partitions.setdefault(new[0], []), new[1])

    def ids(self, call: Mapping[str, Any]) -> Iterator[str]:
        """The tasks that a Query asks for, in its order, from where it begins."""
        status, low, high = _range(call)
        places = self._partitions.get(status, [])
        first, end = bisect_left(places, low), bisect_right(places, high)
        start = call.get("ExclusiveStartKey")
        if call.get("ScanIndexForward", True):
            if start is not None:
                first = max(first, bisect_right(places, _place(start)))
            return (task_id for _, task_id in islice(places, first, max(first, end)))
        if start is not None:
            end = min(end, bisect_left(places, _place(start)))
        return (places[at][1] for at in range(end - 1, first - 1, -1))


def projected(item: Item | None) -> Item | None:
    """What the index holds of an item; None if it holds nothing."""
    if item is None or _position(item) is None:
        return None
    return {name: item[name] for name in _PROJECTED if name in item}


def keys_of(item: Item) -> Item:
    """By which a Query goes on behind an item."""
    return {name: item[name] for name in _KEYS}


def has_moved(before: Item, after: Item) -> bool:
    """Whether two states of an item have different keys in the index: it is deleted there, and put anew."""
    return _position(before) != _position(after)


def _position(item: Item | None) -> tuple[str, Place] | None:
    if item is None or "S" not in item.get(_PARTITION, {}) or "N" not in item.get(_SORT, {}):
        return None
    return item[_PARTITION]["S"], _place(item)


def _place(item: Mapping[str, Any]) -> Place:
    return plain(item[_SORT]), item[TABLE_KEY]["S"]


def _range(call: Mapping[str, Any]) -> tuple[str, Place, Place]:
    """The partition, and its first and last place that the key condition allows."""
    names, values = call.get("ExpressionAttributeNames", {}), call["ExpressionAttributeValues"]
    wanted = {
        (names.get(name, name), relation): plain(values[value])
        for name, relation, value in _KEY_CONDITION.findall(call["KeyConditionExpression"])
    }
    status = wanted.pop((_PARTITION, "="), None)
    if not isinstance(status, str) or not wanted.keys() <= {(_SORT, relation) for relation in _BOUNDS}:
        raise Refusal(400, "ValidationException", f"not imitated here: {call['KeyConditionExpression']}")
    low, high = (float("-inf"), ""), (float("inf"), _LAST_ID)
    for (_, relation), moment in wanted.items():
        low, high = _BOUNDS[relation](low, high, moment)
    return status, low, high


_BOUNDS: Mapping[str, Callable[[Place, Place, float], tuple[Place, Place]]] = {
    "<=": lambda low, _high, moment: (low, (moment, _LAST_ID)),
    "<": lambda low, _high, moment: (low, (moment, "")),
    ">=": lambda _low, high, moment: ((moment, ""), high),
    ">": lambda _low, high, moment: ((moment, _LAST_ID), high),
    "=": lambda _low, _high, moment: ((moment, ""), (moment, _LAST_ID)),
}
