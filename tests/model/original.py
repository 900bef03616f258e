"""The original rule, which this system replaces.

The waker looks once, as part of the POST, and takes anything but `stopped` for a GPU that is up. The GPU is stopped by
an alarm on visible messages, whose action is called when the alarm's state changes and never else. Nothing is sent
again.
"""

from __future__ import annotations

from lib.asyncaws.instance import InstanceState
from services.orchestrator.waking import Action, WakeDecision, WakeFacts
from tests.model.rules import Rules


def wake(facts: WakeFacts) -> WakeDecision:
    """`stopped`: start; `running` or `pending`: nothing; `stopping` was not thought of."""
    if facts.state is InstanceState.STOPPED:
        return WakeDecision(Action.START, "the GPU is stopped")
    return WakeDecision(Action.REST, "the GPU is up")


ORIGINAL = Rules(wake=wake, wakes_on_nudge_only=True, stops_on_alarm_only=True, has_janitor=False)
