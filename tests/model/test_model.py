"""Every interleaving of small worlds under the real rules."""

from __future__ import annotations

import pytest

from tests.model.examination import examine
from tests.model.rules import Rules, Scope

WORLDS = {
    "one task, two faults": Scope(posts=(0,), faults=2, idle=3, deadline=2),
    "one task, one fault, two Lambdas at once": Scope(posts=(0,), faults=1, looks=2),
    "two tasks, no fault": Scope(posts=(0, 1), faults=0),
    "two tasks, one fault": Scope(posts=(0, 1), faults=1, idle=3, deadline=2),
    "one task asked for twice with one key, one fault": Scope(posts=(0, 0), faults=1),
    "a worker that never starts": Scope(faults=0, works=False, max_age=24, hold_max=16, most_launches=4),
    "tasks expire early, one fault": Scope(posts=(0,), faults=1, max_age=6),
}


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", WORLDS)
def test_every_promise_holds_from_every_state(name: str) -> None:
    scope = WORLDS[name]
    examination = examine(Rules(), scope)
    print(f"{name}: {examination}")
    assert not examination.findings, str(examination)
