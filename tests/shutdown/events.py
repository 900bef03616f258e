"""What really invokes the Lambda: one sample of each, cut down to what AWS always sends."""

import json
from typing import Any

ALARM: dict[str, Any] = {
    "source": "aws.cloudwatch",
    "alarmArn": "arn:aws:cloudwatch:us-east-1:123456789012:alarm:QueueEmptyFor30Min",
    "accountId": "123456789012",
    "time": "2026-01-05T10:00:00.000+0000",
    "region": "us-east-1",
    "alarmData": {
        "alarmName": "QueueEmptyFor30Min",
        "state": {"value": "ALARM", "reason": "Threshold Crossed", "timestamp": "2026-01-05T10:00:00.000+0000"},
        "previousState": {"value": "OK"},
        "configuration": {"metrics": []},
    },
}

ALARM_BY_EVENT_BRIDGE: dict[str, Any] = {
    "version": "0",
    "detail-type": "CloudWatch Alarm State Change",
    "source": "aws.cloudwatch",
    "resources": ["arn:aws:cloudwatch:us-east-1:123456789012:alarm:QueueEmptyFor30Min"],
    "detail": {"alarmName": "QueueEmptyFor30Min", "state": {"value": "ALARM"}},
}

SCHEDULE: dict[str, Any] = {
    "version": "0",
    "detail-type": "Scheduled Event",
    "source": "aws.events",
    "time": "2026-01-05T10:00:00Z",
    "resources": ["arn:aws:events:us-east-1:123456789012:rule/shutdown-gpu-every-minute"],
    "detail": {},
}

INSTANCE_STATE: dict[str, Any] = {
    "version": "0",
    "detail-type": "EC2 Instance State-change Notification",
    "source": "aws.ec2",
    "resources": ["arn:aws:ec2:us-east-1:123456789012:instance/i-0fedcba9876543210"],
    "detail": {"instance-id": "i-0fedcba9876543210", "state": "stopped"},
}


def by_sns(message: str) -> dict[str, Any]:
    """The envelope SNS puts round a message."""
    return {
        "Records": [
            {"EventSource": "aws:sns", "EventVersion": "1.0", "Sns": {"Type": "Notification", "Message": message}}
        ]
    }


ALARM_BY_SNS = by_sns(json.dumps({"AlarmName": "QueueEmptyFor30Min", "NewStateValue": "ALARM", "OldStateValue": "OK"}))

ALL: dict[str, object] = {
    "alarm": ALARM,
    "alarm by EventBridge": ALARM_BY_EVENT_BRIDGE,
    "alarm by SNS": ALARM_BY_SNS,
    "schedule": SCHEDULE,
    "instance state": INSTANCE_STATE,
    "empty test": {},
}
