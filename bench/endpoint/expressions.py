"""DynamoDB's condition and update expressions, as far as the services write them, compiled to functions.

https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Expressions.OperatorsAndFunctions.html
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

Item = dict[str, Any]  # of typed attributes, as they come over the wire
Names = Mapping[str, str]
Values = Mapping[str, Any]
Condition = Callable[[Item, Names, Values], bool]
Update = Callable[[Item, Names, Values], Item]

_TOKEN = re.compile(r"attribute_not_exists|attribute_exists|attribute_type|AND|OR|NOT|<>|<=|>=|[=<>(),]|[#:]\w+")
_CLAUSE = re.compile(r"\b(SET|REMOVE|ADD)\b")
_COMPARISONS: Mapping[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq,
    "<>": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


@lru_cache(maxsize=256)
def compile_condition(text: str) -> Condition:
    """The condition as a function of item, names and values."""
    return _Parser(_TOKEN.findall(text)).disjunction()


@lru_cache(maxsize=256)
def compile_update(text: str) -> Update:
    """`SET #a = :v, ... REMOVE #b, ... ADD #c :v, ...` as a function that returns the changed item."""
    _, *parts = _CLAUSE.split(text)
    steps = [
        (verb, re.findall(r"[#:]\w+", entry))
        for verb, clause in zip(parts[::2], parts[1::2], strict=True)
        for entry in clause.split(",")
    ]

    def update(item: Item, names: Names, values: Values) -> Item:
        changed = dict(item)
        for verb, (name, *value) in steps:
            attribute = names[name]
            if verb == "SET":
                changed[attribute] = values[value[0]]
            elif verb == "REMOVE":
                changed.pop(attribute, None)
            else:
                total = plain(item.get(attribute, {"N": "0"})) + plain(values[value[0]])
                changed[attribute] = {"N": f"{total:g}"}
        return changed

    return update


def plain(attribute: Mapping[str, Any]) -> Any:
    """A typed attribute's value, numbers as floats."""
    ((kind, value),) = attribute.items()
    return float(value) if kind == "N" else value


class _Parser:
    """Recursive descent; OR binds loosest, then AND, then NOT."""

    def __init__(self, tokens: list[str]) -> None:
        self._tokens = tokens[::-1]

    def disjunction(self) -> Condition:
        parts = [self._conjunction()]
        while self._is_next("OR"):
            parts.append(self._conjunction())
        return parts[0] if len(parts) == 1 else lambda *facts: any(part(*facts) for part in parts)

    def _conjunction(self) -> Condition:
        parts = [self._term()]
        while self._is_next("AND"):
            parts.append(self._term())
        return parts[0] if len(parts) == 1 else lambda *facts: all(part(*facts) for part in parts)

    def _term(self) -> Condition:
        token = self._tokens.pop()
        if token == "NOT":
            inner = self._term()
            return lambda *facts: not inner(*facts)
        if token == "(":
            inner = self.disjunction()
            self._tokens.pop()
            return inner
        if token == "attribute_type":
            _, name, _, kind, _ = (self._tokens.pop() for _ in range(5))
            return lambda item, names, values: plain(values[kind]) in item.get(names[name], {})
        if token.startswith("attribute_"):
            _, name, _ = self._tokens.pop(), self._tokens.pop(), self._tokens.pop()
            wanted = token == "attribute_exists"
            return lambda item, names, _values: (names[name] in item) is wanted
        return self._comparison(token)

    def _comparison(self, name: str) -> Condition:
        compare, value = _COMPARISONS[self._tokens.pop()], self._tokens.pop()

        def holds(item: Item, names: Names, values: Values) -> bool:
            attribute = item.get(names[name])
            # DynamoDB compares types first.
            return (
                attribute is not None
                and [*attribute] == [*values[value]]
                and compare(plain(attribute), plain(values[value]))
            )

        return holds

    def _is_next(self, token: str) -> bool:
        if not self._tokens or self._tokens[-1] != token:
            return False
        self._tokens.pop()
        return True
