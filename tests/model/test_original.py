"""The exploration can fail: under the original rule it finds what is wrong with that."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.model.examination import Examination, Finding, examine
from tests.model.original import ORIGINAL
from tests.model.promises import CAN_END, SEEN, SPARED
from tests.model.rules import Scope
from tests.model.world import RUNNING, STOPPING, World


@pytest.fixture(scope="module")
def nothing_goes_wrong() -> Examination:
    return examine(ORIGINAL, Scope(posts=(0, 1), faults=0))


def is_promised(world: World) -> bool:
    return any(task.promised and task.is_live for task in world.tasks)


def is_on_for_nothing(world: World) -> bool:
    return world.power == RUNNING and not any(task.is_live for task in world.tasks)


def is_asked_for_while_stopping(world: World) -> bool:
    return world.power == STOPPING and world.waker == "nudged" and world.tasks[0].status == "completed"


def counterexample(examination: Examination, where: Callable[[World], bool], text: str = "") -> None:
    """Prints the shortest way to a state of one kind from which there is no good end, by the way of one step."""
    assert examination.endings
    for story in examination.stories(examination.sealed, where):
        if any(text in step for step in story):
            print(Finding(CAN_END, story))
            return
    raise AssertionError(f"no such state\n{examination}")


@pytest.mark.parametrize("promise", [SPARED, SEEN])
def test_the_gpu_is_stopped_in_mid_work_though_nothing_went_wrong(
    nothing_goes_wrong: Examination, promise: str
) -> None:
    """A busy queue looks empty to a gauge of visible messages, and an alarm is not told what it missed."""
    stopped = [finding for finding in nothing_goes_wrong.findings if finding.promise == promise]
    assert stopped
    print(*stopped)


def test_a_task_is_stranded_when_its_post_meets_a_stopping_gpu(nothing_goes_wrong: Examination) -> None:
    counterexample(nothing_goes_wrong, is_asked_for_while_stopping)


@pytest.mark.parametrize("fault", ["operator: starts the GPU by hand", "alarm: is lost"])
def test_the_gpu_stays_on_for_ever_after(fault: str) -> None:
    """An alarm that was declined or lost is not repeated: its next call would need another transition."""
    counterexample(examine(ORIGINAL, Scope(faults=1, only=fault)), is_on_for_nothing, fault)


@pytest.mark.parametrize("fault", ["EC2: refuses the start", "orchestrator: crashes", "queue: loses a message"])
def test_a_task_is_stranded_for_ever_after(fault: str) -> None:
    counterexample(examine(ORIGINAL, Scope(faults=1, only=fault)), is_promised, fault)
