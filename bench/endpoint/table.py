"""DynamoDB with one table: key `task_id`, and an index by `status`. One thread, so every write is atomic."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from bench.endpoint.expressions import Item, compile_condition, compile_update
from bench.endpoint.refusal import Refusal

_KEY = "task_id"
_NOT_PROJECTED = frozenset({"request_body", "request_sha256", "result_s3_uri", "error_message", "expires_at"})


class Table:
    """The operations, by DynamoDB's names.

    Attributes:
        completed_at: task id to the moment (monotonic seconds) when its status became `completed`.
    """

    def __init__(self) -> None:
        self._items: dict[str, Item] = {}
        # Ids in the order of their writes, which for tasks is that of `created_at`.
        self._by_status: dict[str, dict[str, None]] = {}
        self.completed_at: dict[str, float] = {}
        self.operations: Mapping[str, Callable[[Any], Mapping[str, Any]]] = {
            "PutItem": self._put,
            "GetItem": self._get,
            "BatchGetItem": self._get_batch,
            "UpdateItem": self._update,
            "DeleteItem": self._delete,
            "Query": self._query,
        }

    def _put(self, call: Any) -> Mapping[str, Any]:
        key = call["Item"][_KEY]["S"]
        self._check(call, self._items.get(key))
        self._replace(key, call["Item"])
        return {}

    def _get(self, call: Any) -> Mapping[str, Any]:
        item = self._items.get(call["Key"][_KEY]["S"])
        return {} if item is None else {"Item": item}

    def _get_batch(self, call: Any) -> Mapping[str, Any]:
        found = {
            name: [self._items[key[_KEY]["S"]] for key in request["Keys"] if key[_KEY]["S"] in self._items]
            for name, request in call["RequestItems"].items()
        }
        return {"Responses": found, "UnprocessedKeys": {}}

    def _update(self, call: Any) -> Mapping[str, Any]:
        key = call["Key"][_KEY]["S"]
        item = self._items.get(key)
        self._check(call, item)
        update = compile_update(call["UpdateExpression"])
        changed = update(
            item or dict(call["Key"]),
            call.get("ExpressionAttributeNames", {}),
            call.get("ExpressionAttributeValues", {}),
        )
        self._replace(key, changed)
        return {"Attributes": changed} if call.get("ReturnValues") == "ALL_NEW" else {}

    def _delete(self, call: Any) -> Mapping[str, Any]:
        key = call["Key"][_KEY]["S"]
        self._check(call, self._items.get(key))
        self._replace(key, None)
        return {}

    def _query(self, call: Any) -> Mapping[str, Any]:
        (status,) = (value["S"] for value in call["ExpressionAttributeValues"].values())
        keys = list(self._by_status.get(status, ()))[: call.get("Limit")]
        items = [{k: v for k, v in self._items[key].items() if k not in _NOT_PROJECTED} for key in keys]
        return {"Items": items, "Count": len(items), "ScannedCount": len(items)}

    def _check(self, call: Any, item: Item | None) -> None:
        text = call.get("ConditionExpression")
        if text is None:
            return
        names, values = call.get("ExpressionAttributeNames", {}), call.get("ExpressionAttributeValues", {})
        if compile_condition(text)(item or {}, names, values):
            return
        shows_item = item is not None and call.get("ReturnValuesOnConditionCheckFailure") == "ALL_OLD"
        members = {"Item": item} if shows_item else {}
        raise Refusal(400, "ConditionalCheckFailedException", "The conditional request failed", members)

    def _replace(self, key: str, item: Item | None) -> None:
        before, after = _status(self._items.get(key)), _status(item)
        if item is None:
            self._items.pop(key, None)
        else:
            self._items[key] = item
        if before == after:
            return
        if before is not None:
            self._by_status[before].pop(key)
        if after is not None:
            self._by_status.setdefault(after, {})[key] = None
        if after == "completed":
            self.completed_at[key] = time.monotonic()


def _status(item: Item | None) -> str | None:
    return item["status"]["S"] if item is not None and "status" in item else None
