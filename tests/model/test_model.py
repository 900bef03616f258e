"""Every interleaving of small worlds under the real rules. The counts are in the captured output (`pytest -rP`)."""

from __future__ import annotations

import os

import pytest

from tests.model.examination import examine
from tests.model.rules import Rules, Scope

WORLDS = {
    "one task, one fault": Scope(posts=(0,), faults=1),
    "one task, two faults": Scope(posts=(0,), faults=2, idle=3, deadline=2),
    "one task, one fault, two Lambdas at once": Scope(posts=(0,), faults=1, looks=2),
    "two tasks, no fault": Scope(posts=(0, 1), faults=0),
    # A freeze doubles that world and is in the others.
    "two tasks, one fault": Scope(posts=(0, 1), faults=1, only="^(?!adapter: freezes)", idle=3, deadline=2),
    "one task asked for twice with one key, one fault": Scope(posts=(0, 0), faults=1),
    "tasks that expire, one fault": Scope(posts=(0,), faults=1, max_age=6),
    "a worker that never starts": Scope(faults=0, works=False, max_age=24, hold_max=16, most_launches=4),
}

# Minutes and gigabytes: MODEL=large.
LARGE_WORLDS = {
    "two tasks, one fault of any kind": Scope(posts=(0, 1), faults=1, idle=3, deadline=2),
    "two tasks, one fault, two Lambdas at once": Scope(posts=(0, 1), faults=1, idle=3, deadline=2, looks=2),
    "one task, two faults, limits as long as the real ones": Scope(posts=(0,), faults=2, grace=3, deadline=5, idle=6),
    "one task, two faults, two Lambdas at once": Scope(posts=(0,), faults=2, idle=3, deadline=2, looks=2),
    "one task asked for twice with one key, two faults": Scope(posts=(0, 0), faults=2, idle=3, deadline=2),
}

if os.environ.get("MODEL") == "large":
    WORLDS |= LARGE_WORLDS


@pytest.mark.long(minutes=1)
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", WORLDS)
def test_every_promise_holds_from_every_state(name: str) -> None:
    examination = examine(Rules(), WORLDS[name])
    print(f"{name}: {examination}")
    assert not examination.findings, str(examination)
