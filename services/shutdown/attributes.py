"""Numbers in DynamoDB's wire format, which the low-level client speaks."""

from collections.abc import Mapping
from typing import Any

Item = Mapping[str, Any]

_LARGEST_COUNT = 1_000_000_000
"""DynamoDB takes 38 digits. Whatever was counted here, more is nonsense, and nonsense must not prevent a write."""


def read_number(item: Item, name: str) -> float | None:
    """A number attribute, or None if it is missing or no number: what others wrote must not stop the stopping."""
    digits = item.get(name, {}).get("N")
    return None if digits is None else float(digits)


def read_count(item: Item, name: str) -> int:
    """A number attribute as a whole number that can be written back; 0 if it is missing or no number."""
    return int(max(min(read_number(item, name) or 0, _LARGEST_COUNT), -_LARGEST_COUNT))


def write_moment(epoch_s: float) -> dict[str, str]:
    """Epoch seconds, to the millisecond as everywhere in the table."""
    return {"N": f"{epoch_s:.3f}"}


def write_count(count: int) -> dict[str, str]:
    """A whole number."""
    return {"N": str(count)}
