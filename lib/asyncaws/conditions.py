"""Conditions and changes of a table item, as data.

One description serves two readers: DynamoDB, which gets it as an expression, and plain Python, which can ask whether a
condition holds and what a change makes of an item. So the rules of a state machine are tested, and explored
exhaustively, as the very objects that guard it in production.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeGuard

Item = Mapping[str, Any]


class Placeholders:
    """Collects the names and values of one expression; every name is aliased, since many are reserved words."""

    def __init__(self) -> None:
        self.names: dict[str, str] = {}
        self.values: dict[str, Any] = {}

    def name(self, attribute: str) -> str:
        alias = f"#{attribute}"
        self.names[alias] = attribute
        return alias

    def value(self, value: Any) -> str:
        alias = f":v{len(self.values)}"
        self.values[alias] = value
        return alias


class Condition(Protocol):
    """Something that holds for an item or does not."""

    def holds(self, item: Item) -> bool: ...

    def render(self, into: Placeholders) -> str: ...


@dataclass(frozen=True, slots=True)
class Missing:
    """The item has no such attribute; on the key: there is no such item."""

    attribute: str

    def holds(self, item: Item) -> bool:
        return self.attribute not in item

    def render(self, into: Placeholders) -> str:
        return f"attribute_not_exists({into.name(self.attribute)})"


@dataclass(frozen=True, slots=True)
class Equals:
    attribute: str
    value: Any

    def holds(self, item: Item) -> bool:
        found = item.get(self.attribute)
        # Python takes True for 1; DynamoDB's types never equal each other.
        return isinstance(found, bool) is isinstance(self.value, bool) and bool(found == self.value)

    def render(self, into: Placeholders) -> str:
        return f"{into.name(self.attribute)} = {into.value(self.value)}"


@dataclass(frozen=True, slots=True)
class NoNumber:
    """The attribute is missing, or of another type."""

    attribute: str

    def holds(self, item: Item) -> bool:
        return not _is_number(item.get(self.attribute))

    def render(self, into: Placeholders) -> str:
        return f"NOT attribute_type({into.name(self.attribute)}, {into.value('N')})"


@dataclass(frozen=True, slots=True)
class AtMost:
    """The attribute is a number and not greater."""

    attribute: str
    value: float

    def holds(self, item: Item) -> bool:
        found = item.get(self.attribute)
        return _is_number(found) and found <= self.value

    def render(self, into: Placeholders) -> str:
        return f"{into.name(self.attribute)} <= {into.value(self.value)}"


@dataclass(frozen=True, slots=True)
class LessThan:
    """The attribute is a number and smaller."""

    attribute: str
    value: float

    def holds(self, item: Item) -> bool:
        found = item.get(self.attribute)
        return _is_number(found) and found < self.value

    def render(self, into: Placeholders) -> str:
        return f"{into.name(self.attribute)} < {into.value(self.value)}"


@dataclass(frozen=True, slots=True)
class MoreThan:
    """The attribute is a number and greater."""

    attribute: str
    value: float

    def holds(self, item: Item) -> bool:
        found = item.get(self.attribute)
        return _is_number(found) and found > self.value

    def render(self, into: Placeholders) -> str:
        return f"{into.name(self.attribute)} > {into.value(self.value)}"


class AllOf:
    def __init__(self, *conditions: Condition) -> None:
        self.conditions = conditions

    def holds(self, item: Item) -> bool:
        return all(condition.holds(item) for condition in self.conditions)

    def render(self, into: Placeholders) -> str:
        return _joined("AND", self.conditions, into)


class AnyOf:
    def __init__(self, *conditions: Condition) -> None:
        self.conditions = conditions

    def holds(self, item: Item) -> bool:
        return any(condition.holds(item) for condition in self.conditions)

    def render(self, into: Placeholders) -> str:
        return _joined("OR", self.conditions, into)


def _is_number(value: Any) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _joined(word: str, conditions: tuple[Condition, ...], into: Placeholders) -> str:
    if len(conditions) == 1:
        return conditions[0].render(into)  # DynamoDB refuses redundant parentheses
    return f" {word} ".join(f"({condition.render(into)})" for condition in conditions)


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What an update does to an item for which `condition` holds.

    Attributes:
        condition: None: whatever is there, or is not. Required, because a forgotten condition would guard nothing.
        assign: attribute to new value; None removes the attribute.
        add: attribute to a number that is added; a missing attribute counts as 0.
    """

    condition: Condition | None
    assign: Mapping[str, Any] = field(default_factory=dict)
    add: Mapping[str, float] = field(default_factory=dict)

    def applied_to(self, item: Item) -> dict[str, Any] | None:
        """The item afterwards; None if the condition does not hold. What DynamoDB does, without DynamoDB."""
        if self.condition is not None and not self.condition.holds(item):
            return None
        changed = {name: value for name, value in {**item, **self.assign}.items() if value is not None}
        for name, amount in self.add.items():
            changed[name] = changed.get(name, 0) + amount
        return changed

    def render(self, into: Placeholders) -> str:
        """The UpdateExpression."""
        sets = [f"{into.name(k)} = {into.value(v)}" for k, v in self.assign.items() if v is not None]
        removes = [into.name(k) for k, v in self.assign.items() if v is None]
        adds = [f"{into.name(k)} {into.value(v)}" for k, v in self.add.items()]
        clauses = (("SET", sets), ("REMOVE", removes), ("ADD", adds))
        return " ".join(f"{verb} {', '.join(parts)}" for verb, parts in clauses if parts)
