"""Every event somebody may send; shapes as AWS documents them."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.shutdown.trigger import Trigger, name_trigger
from tests.shutdown.events import ALARM, ALARM_BY_EVENT_BRIDGE, ALARM_BY_SNS, INSTANCE_STATE, SCHEDULE, by_sns

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)
KEYS = st.sampled_from(
    ["alarmData", "state", "value", "Records", "Sns", "Message", "detail", "detail-type", "resources", "instance-id"]
)
look_alikes = st.recursive(
    json_values, lambda inner: st.dictionaries(KEYS, inner, max_size=4) | st.lists(inner, max_size=2)
)


@pytest.mark.parametrize(
    ("event", "trigger"),
    [
        (ALARM, Trigger("alarm", "QueueEmptyFor30Min", "ALARM")),
        (ALARM_BY_EVENT_BRIDGE, Trigger("alarm", "QueueEmptyFor30Min", "ALARM")),
        (ALARM_BY_SNS, Trigger("alarm", "QueueEmptyFor30Min", "ALARM")),
        (SCHEDULE, Trigger("schedule", "arn:aws:events:us-east-1:123456789012:rule/shutdown-gpu-every-minute")),
        (INSTANCE_STATE, Trigger("instance_state", "i-0fedcba9876543210", "stopped")),
        ({}, Trigger("test")),
        (None, Trigger("test")),
        ({"key1": "value1"}, Trigger("unknown")),
        ("text", Trigger("unknown")),
        (by_sns("not JSON"), Trigger("unknown", "sns")),
        (by_sns("[" * 100_000), Trigger("unknown", "sns")),
        (by_sns(json.dumps({"AlarmName": 7})), Trigger("unknown", "sns")),
        ({"alarmData": 1}, Trigger("alarm")),
        ({"Records": []}, Trigger("unknown")),
        ({"detail-type": ["x"], "detail": []}, Trigger("unknown")),
        ({"alarmData": {"alarmName": "x" * 5000}}, Trigger("alarm", "x" * 120)),
    ],
)
def test_it_is_named(event: object, trigger: Trigger) -> None:
    assert name_trigger(event) == trigger


@settings(deadline=None)
@given(json_values | look_alikes)
def test_nothing_makes_it_raise(event: object) -> None:
    assert name_trigger(event).kind


@settings(deadline=None)
@given(json_values)
def test_nothing_inside_a_notification_makes_it_raise(message: object) -> None:
    assert name_trigger(by_sns(json.dumps(message))).kind
