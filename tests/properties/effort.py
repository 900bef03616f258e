"""How hard the machines try.

By default the same few examples each time, so that a red build is red for a reason in the change. With
PROPERTY_EXAMPLES=N each machine plays N random ones; hypothesis prints the steps of a failure and how to repeat it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test

_EXAMPLES = "PROPERTY_EXAMPLES"


def play(machine: Callable[[], RuleBasedStateMachine], *, examples: int, steps: int) -> None:
    """Play `examples` of up to `steps` rules, unless more is asked for, each with a machine of its own."""
    factory: Any = machine  # hypothesis calls it, though it says that it wants a class
    run_state_machine_as_test(factory, settings=_settings(examples, steps))


def _settings(examples: int, steps: int) -> settings:
    asked = os.environ.get(_EXAMPLES)
    return settings(
        max_examples=int(asked) if asked else examples,
        stateful_step_count=steps,
        derandomize=not asked,
        database=None,
        deadline=None,
        print_blob=bool(asked),
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
    )
