"""Types are compared before values, as DynamoDB does it. moto raises over a text and a number, and true equals 1 there.

https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Expressions.OperatorsAndFunctions.html
"""

from typing import Any

from moto.dynamodb import comparisons

_COMPARISONS = (
    comparisons.OpEqual,
    comparisons.OpLessThan,
    comparisons.OpLessThanOrEqual,
    comparisons.OpGreaterThan,
    comparisons.OpGreaterThanOrEqual,
)


def compare_types_first() -> None:
    """Make moto in this process say "no" where the types differ. Calling it twice changes nothing more."""
    for kind in _COMPARISONS:
        if not hasattr(kind.expr, "compares_values"):
            _guard(kind)


def _guard(kind: Any) -> None:
    compares_values = kind.expr

    def expr(self: Any, item: Any) -> bool:
        types = {side.get_type(item) for side in (self.lhs, self.rhs) if hasattr(side, "get_type")}
        return len(types) == 1 and compares_values(self, item)

    expr.compares_values = compares_values  # type: ignore[attr-defined]
    kind.expr = expr
