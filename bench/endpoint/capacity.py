"""What reads and writes are billed as: units, by the sizes of the items they touch.

https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/CapacityUnitCalculations.html
https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/read-write-operations.html
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_READ_UNIT_BYTES = 4096
_WRITE_UNIT_BYTES = 1024
_MOST_NUMBER_BYTES = 21
_CONTAINER_BYTES = 3


@dataclass(slots=True)
class Usage:
    """What the calls of one operation have used, those included that were refused by their condition.

    Attributes:
        items: that were read, also those that were not there.
        write_units: of the table and of its index.
    """

    items: int = 0
    read_units: float = 0.0
    write_units: int = 0


def item_bytes(item: Mapping[str, Any]) -> int:
    """The size of an item of typed attributes: of its names and its values."""
    return sum(len(name.encode()) + _value_bytes(attribute) for name, attribute in item.items())


def read_units(size_bytes: int, *, is_consistent: bool) -> float:
    """Of one item, or of all items of a page together; what is not there costs as much as the smallest."""
    units = max(math.ceil(size_bytes / _READ_UNIT_BYTES), 1)
    return units if is_consistent else units / 2


def write_units(size_bytes: int) -> int:
    """Of one item, by its size before or afterwards, whichever is greater."""
    return max(math.ceil(size_bytes / _WRITE_UNIT_BYTES), 1)


def _value_bytes(attribute: Mapping[str, Any]) -> int:
    ((kind, value),) = attribute.items()
    match kind:
        case "S":
            return len(value.encode())
        case "N":
            return _number_bytes(value)
        case "L":
            return _CONTAINER_BYTES + sum(1 + _value_bytes(element) for element in value)
        case "M":
            return _CONTAINER_BYTES + len(value) + item_bytes(value)
        case _:
            return 1


def _number_bytes(text: str) -> int:
    digits = text.lstrip("-").partition("e")[0].replace(".", "").strip("0")
    return min(math.ceil(len(digits) / 2) + 1 + text.startswith("-"), _MOST_NUMBER_BYTES)
