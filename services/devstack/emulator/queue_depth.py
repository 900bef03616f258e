"""What CloudWatch would be told of a queue."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class QueueDepth:
    """AWS/SQS metrics of one queue; `sent` counts since the start (CloudWatch's NumberOfMessagesSent is its growth).

    https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-available-cloudwatch-metrics.html
    """

    visible: int
    in_flight: int
    delayed: int
    sent: int
