"""The part of CloudWatch's metric math that alarms here use: names, numbers, + - *, comparisons, IF(condition, a, b).

https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/using-metric-math.html
"""

import ast
import operator
from collections.abc import Callable, Mapping
from typing import Final, TypeAlias

Points: TypeAlias = Mapping[str, float | None]
"""One period's data points by the ids of their queries; None where none was published."""

_ARITHMETIC: Final[Mapping[type[ast.operator], Callable[[float, float], float]]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
}
_COMPARISONS: Final[Mapping[type[ast.cmpop], Callable[[float, float], bool]]] = {
    ast.Eq: operator.eq,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.NotEq: operator.ne,
}


def compile_expression(text: str) -> Callable[[Points], float | None]:
    """The expression as a function of one period's points; what it has no value for is missing (None).

    Raises:
        ValueError: it is not of this part of metric math; at the call, a query it names is not there.
    """
    # What is supported of its grammar is Python's, too.
    tree = ast.parse(text, mode="eval").body
    _check(tree)
    return lambda points: _value(tree, points)


def _check(tree: ast.expr) -> None:
    """Every branch is looked at now, not when it is first taken."""
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    for node in ast.walk(tree):
        if isinstance(node, ast.expr) and not (isinstance(node, ast.Name) and node.id == "IF"):
            _value(node, dict.fromkeys(names, 0.0))


def _value(node: ast.expr, points: Points) -> float | None:
    match node:
        case ast.Constant(value=int() | float() as number):
            return float(number)
        case ast.Name(id=name) if name in points:
            return points[name]
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _ARITHMETIC:
            return _combine(_ARITHMETIC[type(op)], _value(left, points), _value(right, points))
        case ast.Compare(left=left, ops=[op], comparators=[right]) if type(op) in _COMPARISONS:
            one, other = _value(left, points), _value(right, points)
            return None if one is None or other is None else float(_COMPARISONS[type(op)](one, other))
        case ast.Call(func=ast.Name(id="IF"), args=[condition, then, otherwise]):
            holds = _value(condition, points)
            return None if holds is None else _value(then if holds else otherwise, points)
        case _:
            raise ValueError(f"not understood in metric math: {ast.unparse(node)}")


def _combine(operation: Callable[[float, float], float], one: float | None, other: float | None) -> float | None:
    """Arithmetic takes what is missing for 0, unless everything is missing."""
    return None if one is None and other is None else operation(one or 0.0, other or 0.0)
