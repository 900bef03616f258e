"""The shapes AWS documents, and that the real handler knows each of them."""

import json
from datetime import UTC, datetime

from services.devstack.alarm import AlarmDefinition, AlarmState, Transition
from services.devstack.events import alarm_event, instance_state_event, schedule_event
from services.devstack.power import State
from services.shutdown.trigger import name_trigger

AT = datetime(2026, 3, 4, 5, 6, 7, 890_000, tzinfo=UTC)
INSTANCE = "i-0fedcba9876543210"


def test_an_alarm_event_tells_its_state_where_aws_does() -> None:
    transition = Transition(AlarmState.OK, AlarmState.ALARM, (0.0,) * 6)
    event = alarm_event(
        AlarmDefinition(), transition, queue_name="gpu_tasks_queue", instance_id=INSTANCE, region="us-east-1", at=AT
    )
    assert event["source"] == "aws.cloudwatch"
    assert event["time"] == "2026-03-04T05:06:07.890+0000"
    data = event["alarmData"]
    assert data["alarmName"] == "QueueEmptyFor30Min"
    assert data["state"]["value"] == "ALARM"
    assert data["previousState"]["value"] == "OK"
    assert json.loads(data["state"]["reasonData"])["recentDatapoints"] == [0.0] * 6
    returned = [metric for metric in data["configuration"]["metrics"] if metric["returnData"]]
    assert [metric["id"] for metric in returned] == ["work"]


def test_a_schedule_event_is_eventbridges() -> None:
    event = schedule_event(rule_name="shutdown-gpu", region="us-east-1", at=AT)
    assert (event["detail-type"], event["source"], event["detail"]) == ("Scheduled Event", "aws.events", {})
    assert event["time"] == "2026-03-04T05:06:07Z"
    assert event["resources"] == ["arn:aws:events:us-east-1:123456789012:rule/shutdown-gpu"]


def test_an_instance_event_names_the_instance_and_its_state() -> None:
    event = instance_state_event(INSTANCE, State.STOPPED, region="us-east-1", at=AT)
    assert event["detail-type"] == "EC2 Instance State-change Notification"
    assert event["detail"] == {"instance-id": INSTANCE, "state": "stopped"}


def test_the_shutdown_lambda_knows_each_of_them() -> None:
    transition = Transition(AlarmState.OK, AlarmState.ALARM, (0.0,) * 6)
    events = [
        alarm_event(AlarmDefinition(), transition, queue_name="queue", instance_id=INSTANCE, region="us-east-1", at=AT),
        schedule_event(rule_name="shutdown-gpu", region="us-east-1", at=AT),
        instance_state_event(INSTANCE, State.STOPPED, region="us-east-1", at=AT),
    ]
    assert [(trigger.kind, trigger.state) for trigger in map(name_trigger, events)] == [
        ("alarm", "ALARM"),
        ("schedule", None),
        ("instance_state", "stopped"),
    ]
