"""A DynamoDB table of items with one string key."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from typing import TYPE_CHECKING, Any

from lib.asyncaws.attributes import deserialize_item, serialize, serialize_item
from lib.asyncaws.conditions import Change, Condition, Item, Placeholders
from lib.asyncaws.errors import ConditionFailed, TransientAwsError, translate
from lib.asyncaws.gathering import Gatherer
from lib.asyncaws.session import CallPolicy, call

if TYPE_CHECKING:
    from types_aiobotocore_dynamodb import DynamoDBClient

# https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_BatchGetItem.html
_MOST_KEYS = 100
# A page of 1 MB is parsed in one go, which takes a quarter of a vCPU over a second: nothing is answered meanwhile.
_PAGE_ITEMS = 200


class Table:
    """Reads are consistent, writes may be conditional. All methods raise the errors of `lib.asyncaws.errors`."""

    def __init__(self, client: DynamoDBClient, *, name: str, key: str, policy: CallPolicy) -> None:
        self._client = client
        self._name = name
        self._key = key
        self._policy = policy
        self._reads: Gatherer[str, dict[str, Any] | None] = Gatherer(self._read_all, most=_MOST_KEYS)

    async def check(self) -> None:
        """Prove that the table exists and may be read, at the price of reading one absent item."""
        await self.get("readiness#probe")

    async def get(self, key: str) -> dict[str, Any] | None:
        """The item as the last write left it. An eventually consistent read would miss what was just created.

        Many at once share calls, and may share the item: do not change it.
        """
        return await self._reads.ask(key)

    async def put(self, item: Item, condition: Condition | None = None) -> None:
        """Write a whole item, if the condition holds for what is there.

        Raises:
            ConditionFailed: it does not; carries the item that is there.
        """
        guard = _guarded(condition, Placeholders())
        await self._call("PutItem", self._client.put_item, Item=serialize_item(item), **guard)

    async def update(self, key: str, change: Change) -> dict[str, Any]:
        """Change an item and return it as it is then.

        Raises:
            ConditionFailed: the change's condition does not hold; carries the item as it is, None if there is none.
        """
        into = Placeholders()
        expression = change.render(into)
        item: dict[str, Any] = await self._call(
            "UpdateItem",
            self._client.update_item,
            read=lambda answer: self._item(answer["Attributes"]),
            Key={self._key: serialize(key)},
            UpdateExpression=expression,
            ReturnValues="ALL_NEW",
            **_guarded(change.condition, into),
        )
        return item

    async def delete(self, key: str, condition: Condition) -> None:
        """Delete an item.

        Raises:
            ConditionFailed: the condition does not hold for it.
        """
        guard = _guarded(condition, Placeholders())
        await self._call("DeleteItem", self._client.delete_item, Key={self._key: serialize(key)}, **guard)

    async def query(
        self,
        index: str,
        *,
        attribute: str,
        value: str,
        limit: int | None = None,
        after: Item | None = None,
    ) -> AsyncIterator[dict[str, Any]]:
        """The items of one partition of an index, oldest first. An index is always eventually consistent.

        Args:
            limit: how many items at the most; all if None.
            after: keys of the index and of the table; begins behind the item that has them, or would have had.
        """
        left = limit
        request: dict[str, Any] = {
            "IndexName": index,
            "KeyConditionExpression": "#p = :p",
            "ExpressionAttributeNames": {"#p": attribute},
            "ExpressionAttributeValues": {":p": serialize(value)},
        }
        if after is not None:
            request["ExclusiveStartKey"] = serialize_item(after)
        while left is None or left > 0:
            request["Limit"] = _PAGE_ITEMS if left is None else min(left, _PAGE_ITEMS)
            items, last = await self._call("Query", self._client.query, read=self._page, **request)
            for item in items:
                yield item
            if last is None:
                return
            request["ExclusiveStartKey"] = last
            left = None if left is None else left - len(items)

    async def _read_all(self, keys: Sequence[str]) -> Sequence[dict[str, Any] | None]:
        if len(keys) == 1:
            key = {self._key: serialize(keys[0])}
            return [await self._call("GetItem", self._client.get_item, read=self._found, Key=key, ConsistentRead=True)]
        found: dict[str, dict[str, Any]] = {}
        missing: Sequence[Any] = [{self._key: serialize(key)} for key in dict.fromkeys(keys)]  # one twice is refused

        async def ask() -> Any:
            request: Any = {self._name: {"Keys": missing, "ConsistentRead": True}}
            return await self._client.batch_get_item(RequestItems=request)

        def read(answer: Any) -> None:
            """What an answer of 16 MB has no room for, or was throttled, stays to be read by the next try."""
            nonlocal missing
            items = [self._item(raw) for raw in answer["Responses"].get(self._name, [])]
            missing = answer.get("UnprocessedKeys", {}).get(self._name, {}).get("Keys", [])
            found.update({item[self._key]: item for item in items})
            if missing:
                raise TransientAwsError("BatchGetItem", "UnprocessedKeys", f"{len(missing)} of {len(keys)}")

        await call("BatchGetItem", ask, self._policy, read=read)
        return [found.get(key) for key in keys]

    async def _call(
        self, operation: str, method: Any, *, read: Callable[[Any], Any] = lambda answer: answer, **arguments: Any
    ) -> Any:
        try:
            return await call(operation, lambda: method(TableName=self._name, **arguments), self._policy, read=read)
        except ConditionFailed as error:
            if error.item is not None:
                error.item = self._item_that_is_there(operation, error.item)
            raise

    def _item(self, raw: Any) -> dict[str, Any]:
        """Every item has the table's key; what has none is no item."""
        item = deserialize_item(raw)
        if not isinstance(item[self._key], str):
            raise TypeError(f"{self._key} is no text")
        return item

    def _found(self, answer: Any) -> dict[str, Any] | None:
        return self._item(answer["Item"]) if "Item" in answer else None

    def _page(self, answer: Any) -> tuple[list[dict[str, Any]], Any]:
        """The items, and the place where the next page begins if there is one."""
        last = answer.get("LastEvaluatedKey")
        return [self._item(raw) for raw in answer["Items"]], None if last is None else dict(last)

    def _item_that_is_there(self, operation: str, raw: Any) -> dict[str, Any]:
        try:
            return self._item(raw)
        except Exception as error:  # the border to the SDK: `translate` has a name for each
            raise translate(operation, error) from error


def _guarded(condition: Condition | None, into: Placeholders) -> dict[str, Any]:
    """The arguments of a write that happens only if the condition holds, and of expressions that share its names."""
    guard: dict[str, Any] = {}
    if condition is not None:
        guard = {"ConditionExpression": condition.render(into), "ReturnValuesOnConditionCheckFailure": "ALL_OLD"}
    if into.names:
        guard["ExpressionAttributeNames"] = into.names
    if into.values:
        guard["ExpressionAttributeValues"] = serialize_item(into.values)
    return guard
