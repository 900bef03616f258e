"""What calls the shutdown Lambda: an alarm and EventBridge rules, as data."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from services.devstack.alarm import AlarmDefinition


@dataclass(frozen=True, slots=True)
class Schedule:
    """A rule with a `rate()` expression."""

    rule_name: str = "shutdown-gpu"
    every_minutes: int = 1


@dataclass(frozen=True, slots=True)
class EventRule:
    """A rule with an event pattern.

    https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-event-patterns.html
    """

    rule_name: str
    pattern: Mapping[str, Any]

    def matches(self, event: Mapping[str, Any]) -> bool:
        """Whether the rule hands this event on."""
        return _matches(self.pattern, event)


_STOPPED = EventRule("shutdown-gpu-stopped", {"source": ["aws.ec2"], "detail": {"state": ["stopped"]}})


@dataclass(frozen=True, slots=True)
class Wiring:
    """The alarm's action and the rules' targets are the function, which they may invoke."""

    alarm: AlarmDefinition = field(default_factory=AlarmDefinition)
    schedules: tuple[Schedule, ...] = (Schedule(),)
    rules: tuple[EventRule, ...] = (_STOPPED,)


def _matches(pattern: Mapping[str, Any], event: Mapping[str, Any]) -> bool:
    """Every field of the pattern is in the event: with one of the listed values, or with such fields of its own."""
    for name, wanted in pattern.items():
        found = event.get(name)
        if isinstance(wanted, Mapping):
            if not (isinstance(found, Mapping) and _matches(wanted, found)):
                return False
        elif found not in wanted:
            return False
    return True
