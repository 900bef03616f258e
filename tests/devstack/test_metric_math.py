"""Metric math as AWS documents it, where points are missing above all."""

import pytest

from services.devstack.metric_math import compile_expression


@pytest.mark.parametrize(
    ("expression", "points", "value"),
    [
        ("visible + sent", {"visible": 2.0, "sent": 3.0}, 5.0),
        ("visible + sent", {"visible": None, "sent": 3.0}, 3.0),
        ("visible + sent", {"visible": None, "sent": None}, None),
        ("3 * a - b", {"a": 2.0, "b": 1.0}, 5.0),
        ("IF(cpu >= 0, visible + sent, 1)", {"cpu": 0.0, "visible": 0.0, "sent": 0.0}, 0.0),
        ("IF(cpu >= 0, visible + sent, 1)", {"cpu": -1.0, "visible": 0.0, "sent": 0.0}, 1.0),
        ("IF(cpu >= 0, visible + sent, 1)", {"cpu": None, "visible": 0.0, "sent": 0.0}, None),
        ("a > 1", {"a": 2.0}, 1.0),
        ("a > 1", {"a": None}, None),
    ],
)
def test_value_of_one_period(expression: str, points: dict[str, float | None], value: float | None) -> None:
    assert compile_expression(expression)(points) == value


@pytest.mark.parametrize(
    "expression", ["FILL(a, 0)", "IF(a, 1)", "IF(a > 0, 1, FILL(a, 0))", "a ** 2", "'text'", "SUM(METRICS())"]
)
def test_what_is_not_understood_is_refused_before_anything_is_evaluated(expression: str) -> None:
    with pytest.raises(ValueError, match="not understood"):
        compile_expression(expression)
