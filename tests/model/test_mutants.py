"""The exploration notices each single thing that is wrong with our rules."""

from __future__ import annotations

import pytest

from tests.model import mutants, promises
from tests.model.examination import examine
from tests.model.rules import Rules, Scope

ONE_FAULT = Scope(posts=(0,), faults=1, idle=3, deadline=2)
TWO_FAULTS = Scope(posts=(0,), faults=2, idle=3, deadline=2)
TWO_TASKS = Scope(posts=(0, 1), faults=0, idle=3, deadline=2)
BROKEN_WORKER = Scope(faults=0, works=False, max_age=24, hold_max=16, most_launches=4)


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("rules", "scope", "promise"),
    [
        pytest.param(mutants.CLAIMS_DESPITE_LEASE, TWO_FAULTS, promises.ONE_HOLDER, id="claims despite the lease"),
        pytest.param(mutants.PUBLISHES_UNFENCED, ONE_FAULT, promises.FENCED, id="publishes unfenced"),
        pytest.param(mutants.OVERWRITES_THE_END, ONE_FAULT, promises.TERMINAL_FOR_EVER, id="overwrites the end"),
        pytest.param(mutants.IGNORES_CLAIMS, TWO_TASKS, promises.SPARED, id="counts submissions, not claims"),
        pytest.param(mutants.HAS_NO_RULE_A, ONE_FAULT, promises.THRIFTY, id="no rule A, at once"),
        pytest.param(mutants.NOTES_NOTHING, ONE_FAULT, promises.ONE_RUN, id="the run upstream is not noted"),
        pytest.param(mutants.COUNTS_EACH_TRY_TWICE, ONE_FAULT, promises.PATIENT, id="a claim counts twice"),
        pytest.param(mutants.IGNORES_THE_HOLD, BROKEN_WORKER, promises.FEW_LAUNCHES, id="waker ignores the hold"),
        pytest.param(mutants.HOLDS_NO_LONGER_EACH_TIME, BROKEN_WORKER, promises.FEW_LAUNCHES, id="holds do not grow"),
    ],
)
def test_what_breaks_a_promise_at_once(rules: Rules, scope: Scope, promise: str) -> None:
    examination = examine(rules, scope, stops_at=promise)
    print(examination)
    assert promise in examination.broken


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("rules", "scope"),
    [
        pytest.param(mutants.NEVER_RESENDS, ONE_FAULT, id="nothing is sent again"),
        pytest.param(mutants.WAITS_FOR_EVERY_LEASE, ONE_FAULT, id="another program's record has no lease that ends"),
        pytest.param(mutants.LOOKS_ONCE_PER_POST, TWO_TASKS, id="waker takes stopping for up, and looks once"),
        pytest.param(mutants.HAS_NO_RULE_A, TWO_TASKS, id="no rule A"),
        pytest.param(mutants.HAS_NO_RULE_B, ONE_FAULT, id="no rule B"),
        pytest.param(mutants.HAS_NO_RULE_C, ONE_FAULT, id="no rule C"),
        pytest.param(mutants.USES_NO_FORCE, ONE_FAULT, id="a stop that hangs is not forced"),
        pytest.param(
            mutants.ACKNOWLEDGES_FIRST_AND_NEVER_RESENDS, ONE_FAULT, id="message deleted first, nothing sent again"
        ),
    ],
)
def test_what_never_comes_to_a_good_end(rules: Rules, scope: Scope) -> None:
    examination = examine(rules, scope)
    print(examination)
    assert promises.ENDS in examination.broken


def test_a_message_deleted_too_early_costs_attempts_and_yet_no_task_its_end() -> None:
    """The janitor stands behind the message; the mutant above takes both away."""
    broken = examine(mutants.ACKNOWLEDGES_FIRST, ONE_FAULT).broken
    assert broken == {promises.PATIENT}
