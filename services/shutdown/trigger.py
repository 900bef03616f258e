"""What invoked the Lambda, named for the log. The decision ignores it.

Anybody may invoke the function with anything, so nothing here raises and nothing long or unprintable is passed on.
Shapes: alarm action, EventBridge and SNS as in AWS's "Invoke a Lambda function from an alarm", "EventBridge events from
EC2" and "Lambda with SNS".
"""

import json
from dataclasses import dataclass

_MOST_CHARS = 120

_KINDS = {
    "CloudWatch Alarm State Change": "alarm",
    "Scheduled Event": "schedule",
    "EC2 Instance State-change Notification": "instance_state",
}


@dataclass(frozen=True, slots=True)
class Trigger:
    """``kind``: alarm, schedule, instance_state, test (empty event) or unknown; ``name``: alarm, rule or instance."""

    kind: str
    name: str | None = None
    state: str | None = None


def name_trigger(event: object) -> Trigger:
    """Tell the invoker by the shape of its event."""
    if not event:
        return Trigger("test")
    message = _dig(event, "Records", 0, "Sns", "Message")
    if isinstance(message, str):
        return _from_sns(message)
    if _dig(event, "alarmData") is not None:
        name, state = _text(event, "alarmData", "alarmName"), _text(event, "alarmData", "state", "value")
        return Trigger("alarm", name, state)
    return _from_event_bridge(event)


def _from_sns(message: str) -> Trigger:
    try:
        alarm = json.loads(message)
    except (ValueError, RecursionError):
        return Trigger("unknown", "sns")
    name = _text(alarm, "AlarmName")
    return Trigger("alarm", name, _text(alarm, "NewStateValue")) if name else Trigger("unknown", "sns")


def _from_event_bridge(event: object) -> Trigger:
    kind = _KINDS.get(_text(event, "detail-type") or "", "unknown")
    name = _text(event, "detail", "alarmName") or _text(event, "detail", "instance-id") or _text(event, "resources", 0)
    return Trigger(kind, name, _text(event, "detail", "state", "value") or _text(event, "detail", "state"))


def _text(event: object, *path: str | int) -> str | None:
    found = _dig(event, *path)
    return found[:_MOST_CHARS] if isinstance(found, str) else None


def _dig(value: object, *path: str | int) -> object:
    for step in path:
        if isinstance(value, dict):
            value = value.get(step)
        elif isinstance(value, list) and isinstance(step, int) and step < len(value):
            value = value[step]
        else:
            return None
    return value
