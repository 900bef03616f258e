"""Python values to DynamoDB's typed attributes and back.

botocore leaves this to boto3, and boto3's way goes through Decimal. Our numbers are epoch seconds and counters: the
shortest decimal text that round-trips keeps them exact.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def serialize(value: Any) -> dict[str, Any]:
    """One value as a typed attribute.

    Raises:
        TypeError: the type has no place in our records.
    """
    match value:
        case str():
            return {"S": str(value)}
        case bool():
            return {"BOOL": value}
        case int() | float():
            return {"N": repr(value)}
        case list() | tuple():
            return {"L": [serialize(element) for element in value]}
        case Mapping():
            return {"M": serialize_item(value)}
        case _:
            raise TypeError(f"cannot store a {type(value).__name__} in DynamoDB")


def deserialize(attribute: Mapping[str, Any]) -> Any:
    """The value of a typed attribute; a number becomes int where its text is one, else float."""
    ((kind, value),) = attribute.items()
    match kind:
        case "N":
            return float(value) if any(mark in value for mark in ".eE") else int(value)
        case "L":
            return [deserialize(element) for element in value]
        case "M":
            return deserialize_item(value)
        case "NULL":
            return None
        case _:
            return value


def serialize_item(item: Mapping[str, Any]) -> dict[str, Any]:
    return {name: serialize(value) for name, value in item.items()}


def deserialize_item(item: Mapping[str, Any]) -> dict[str, Any]:
    return {name: deserialize(attribute) for name, attribute in item.items()}
