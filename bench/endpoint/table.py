"""DynamoDB with one table: key `task_id`, and an index by `status`. One thread, so every write is atomic."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

from bench.endpoint.capacity import Usage, item_bytes, read_units, write_units
from bench.endpoint.expressions import Item, compile_condition, compile_update
from bench.endpoint.index import StatusIndex, has_moved, keys_of, projected
from bench.endpoint.refusal import Refusal
from lib.gputask.schema import TABLE_KEY

# https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Query.Pagination.html
_PAGE_BYTES = 1_048_576


@dataclass(frozen=True, slots=True)
class _Stored:
    """An item with its sizes in the table and in the index (0: it is not there)."""

    item: Item
    size_bytes: int
    index_bytes: int


class Table:
    """The operations, by DynamoDB's names.

    Attributes:
        completed_at: task id to the moment (monotonic seconds) when its status became `completed`.
        usage: by operation, in units as they are billed.
    """

    def __init__(self) -> None:
        self._items: dict[str, _Stored] = {}
        self._index = StatusIndex()
        self.completed_at: dict[str, float] = {}
        self.usage: defaultdict[str, Usage] = defaultdict(Usage)
        self.operations: Mapping[str, Callable[[Any], Mapping[str, Any]]] = {
            "PutItem": self._put,
            "GetItem": self._get,
            "BatchGetItem": self._get_batch,
            "UpdateItem": self._update,
            "DeleteItem": self._delete,
            "Query": self._query,
        }

    def fill(self, item: Item) -> None:
        """Put an item that nobody pays for."""
        self._replace(item[TABLE_KEY]["S"], _stored(item))

    def _put(self, call: Any) -> Mapping[str, Any]:
        after = _stored(call["Item"])
        self._write("PutItem", call["Item"][TABLE_KEY]["S"], call, lambda _: after)
        return {}

    def _get(self, call: Any) -> Mapping[str, Any]:
        item = self._read("GetItem", call["Key"], is_consistent=call.get("ConsistentRead", False))
        return {} if item is None else {"Item": item}

    def _get_batch(self, call: Any) -> Mapping[str, Any]:
        found = {
            name: [
                item
                for key in request["Keys"]
                if (item := self._read("BatchGetItem", key, is_consistent=request.get("ConsistentRead", False)))
            ]
            for name, request in call["RequestItems"].items()
        }
        return {"Responses": found, "UnprocessedKeys": {}}

    def _update(self, call: Any) -> Mapping[str, Any]:
        update = compile_update(call["UpdateExpression"])

        def change(before: _Stored | None) -> _Stored:
            item = dict(call["Key"]) if before is None else before.item
            names, values = call.get("ExpressionAttributeNames", {}), call.get("ExpressionAttributeValues", {})
            return _stored(update(item, names, values))

        changed = self._write("UpdateItem", call["Key"][TABLE_KEY]["S"], call, change)
        return {"Attributes": changed.item} if changed and call.get("ReturnValues") == "ALL_NEW" else {}

    def _delete(self, call: Any) -> Mapping[str, Any]:
        self._write("DeleteItem", call["Key"][TABLE_KEY]["S"], call, lambda _: None)
        return {}

    def _query(self, call: Any) -> Mapping[str, Any]:
        """A page ends at its limit, or at 1 MB, whether more follows or not; then it says where to go on."""
        page, size_bytes, is_cut = [], 0, False
        for key in islice(self._index.ids(call), call.get("Limit")):
            stored = self._items[key]
            page.append(stored.item)
            size_bytes += stored.index_bytes
            if is_cut := len(page) == call.get("Limit") or size_bytes >= _PAGE_BYTES:
                break
        usage = self.usage["Query"]
        usage.items += len(page)
        usage.read_units += read_units(size_bytes, is_consistent=False)
        items = [_shown(item, call) for item in page]
        rest = {"LastEvaluatedKey": keys_of(page[-1])} if is_cut else {}
        return {"Items": items, "Count": len(items), "ScannedCount": len(items), **rest}

    def _read(self, operation: str, key: Any, *, is_consistent: bool) -> Item | None:
        stored = self._items.get(key[TABLE_KEY]["S"])
        usage = self.usage[operation]
        usage.items += 1
        usage.read_units += read_units(stored.size_bytes if stored else 0, is_consistent=is_consistent)
        return stored.item if stored else None

    def _write(
        self, operation: str, key: str, call: Any, change: Callable[[_Stored | None], _Stored | None]
    ) -> _Stored | None:
        before = self._items.get(key)
        usage = self.usage[operation]
        if not _holds(call, before):
            usage.write_units += write_units(before.size_bytes if before else 0)
            raise _refused(call, before)
        after = change(before)
        usage.write_units += _units_of_write(before, after)
        self._replace(key, after)
        if _is_completed(after) and not _is_completed(before):
            self.completed_at[key] = time.monotonic()
        return after

    def _replace(self, key: str, after: _Stored | None) -> None:
        before = self._items.get(key)
        if after is None:
            self._items.pop(key, None)
        else:
            self._items[key] = after
        self._index.move(before.item if before else None, after.item if after else None)


def _stored(item: Item) -> _Stored:
    return _Stored(item, item_bytes(item), item_bytes(projected(item) or {}))


def _is_completed(stored: _Stored | None) -> bool:
    return stored is not None and stored.item.get("status") == {"S": "completed"}


def _shown(item: Item, call: Any) -> Item:
    """What a Query answers of an item."""
    shown = projected(item) or {}
    if "ProjectionExpression" not in call:
        return shown
    names = call.get("ExpressionAttributeNames", {})
    wanted = (name.strip() for name in call["ProjectionExpression"].split(","))
    return {name: shown[name] for alias in wanted if (name := names.get(alias, alias)) in shown}


def _holds(call: Any, before: _Stored | None) -> bool:
    text = call.get("ConditionExpression")
    if text is None:
        return True
    names, values = call.get("ExpressionAttributeNames", {}), call.get("ExpressionAttributeValues", {})
    return compile_condition(text)(before.item if before else {}, names, values)


def _refused(call: Any, before: _Stored | None) -> Refusal:
    shows_item = before is not None and call.get("ReturnValuesOnConditionCheckFailure") == "ALL_OLD"
    members = {"Item": before.item} if before and shows_item else {}
    return Refusal(400, "ConditionalCheckFailedException", "The conditional request failed", members)


def _units_of_write(before: _Stored | None, after: _Stored | None) -> int:
    of_table = write_units(max(stored.size_bytes if stored else 0 for stored in (before, after)))
    return of_table + _units_of_index(before, after)


def _units_of_index(before: _Stored | None, after: _Stored | None) -> int:
    """https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/GSI.html, "Write capacity units"."""
    entries = [stored for stored in (before, after) if stored and stored.index_bytes]
    if before and after and len(entries) == 2 and not has_moved(before.item, after.item):
        if projected(before.item) == projected(after.item):
            return 0
        return write_units(max(before.index_bytes, after.index_bytes))
    return sum(write_units(entry.index_bytes) for entry in entries)
