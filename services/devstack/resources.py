"""Everything the services expect to find in AWS, created in the emulator."""

import json
import urllib.request
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import boto3
from botocore.config import Config

from lib.gputask.schema import TTL_ATTRIBUTE, definition
from services.devstack.surroundings import ACCESS_KEY, REGION

if TYPE_CHECKING:
    from types_boto3_dynamodb import DynamoDBClient
    from types_boto3_ec2 import EC2Client
    from types_boto3_sqs import SQSClient

QUEUE_NAME = "gpu_tasks_queue"
DEAD_LETTER_QUEUE_NAME = "gpu_tasks_dlq"
TABLE_NAME = "task_store"
BUCKET_NAME = "gpu-results"
INSTANCE_TYPE: Final = "g6e.2xlarge"
INSTANCE_TAGS = {"Purpose": "GPU-ComfyUI", "Name": "gpu"}

_FOURTEEN_DAYS_S = 14 * 86400


@dataclass(frozen=True, slots=True)
class Resources:
    """Names, addresses and ids of what was created."""

    region: str
    bucket: str
    queue_name: str
    queue_url: str
    dead_letter_queue_name: str
    dead_letter_queue_url: str
    table: str
    instance_id: str


def aws_session() -> boto3.Session:
    """A boto3 session with the emulator's credentials, blind to this machine's own."""
    return boto3.Session(aws_access_key_id=ACCESS_KEY, aws_secret_access_key=ACCESS_KEY, region_name=REGION)


def client_config() -> Config:
    """Straight to loopback, whatever proxy the environment names; one attempt, so that ordered failures are seen."""
    return Config(proxies={}, retries={"total_max_attempts": 1}, s3={"addressing_style": "path"})


def create_resources(endpoint_url: str, *, visibility_s: int = 300, max_receive_count: int = 10) -> Resources:
    """Create bucket, queues, table and a stopped GPU instance. Blocks for about two seconds.

    Args:
        endpoint_url: of the emulator.
        visibility_s: the queue's visibility timeout in seconds.
        max_receive_count: receives after which a message moves to the dead letter queue.
    """
    session, config = aws_session(), client_config()
    sqs = session.client("sqs", endpoint_url=endpoint_url, config=config)
    session.client("s3", endpoint_url=endpoint_url, config=config).create_bucket(Bucket=BUCKET_NAME)
    queue_url, dead_letter_queue_url = _create_queues(sqs, visibility_s, max_receive_count)
    _create_table(session.client("dynamodb", endpoint_url=endpoint_url, config=config))
    instance_id = _launch_instance(session.client("ec2", endpoint_url=endpoint_url, config=config))
    _lay_to_rest(endpoint_url, instance_id)
    return Resources(
        region=REGION,
        bucket=BUCKET_NAME,
        queue_name=QUEUE_NAME,
        queue_url=queue_url,
        dead_letter_queue_name=DEAD_LETTER_QUEUE_NAME,
        dead_letter_queue_url=dead_letter_queue_url,
        table=TABLE_NAME,
        instance_id=instance_id,
    )


def _create_queues(sqs: "SQSClient", visibility_s: int, max_receive_count: int) -> tuple[str, str]:
    dead_letter_queue_url = sqs.create_queue(
        QueueName=DEAD_LETTER_QUEUE_NAME, Attributes={"MessageRetentionPeriod": str(_FOURTEEN_DAYS_S)}
    )["QueueUrl"]
    attributes = sqs.get_queue_attributes(QueueUrl=dead_letter_queue_url, AttributeNames=["QueueArn"])["Attributes"]
    redrive = {"deadLetterTargetArn": attributes["QueueArn"], "maxReceiveCount": max_receive_count}
    queue_url = sqs.create_queue(
        QueueName=QUEUE_NAME,
        Attributes={"VisibilityTimeout": str(visibility_s), "RedrivePolicy": json.dumps(redrive)},
    )["QueueUrl"]
    return queue_url, dead_letter_queue_url


def _create_table(dynamodb: "DynamoDBClient") -> None:
    dynamodb.create_table(TableName=TABLE_NAME, **definition())
    dynamodb.update_time_to_live(
        TableName=TABLE_NAME, TimeToLiveSpecification={"Enabled": True, "AttributeName": TTL_ATTRIBUTE}
    )


def _launch_instance(ec2: "EC2Client") -> str:
    reservation = ec2.run_instances(
        ImageId=ec2.describe_images(Owners=["amazon"])["Images"][0]["ImageId"],
        InstanceType=INSTANCE_TYPE,
        MinCount=1,
        MaxCount=1,
        TagSpecifications=[
            {
                "ResourceType": "instance",
                "Tags": [{"Key": key, "Value": value} for key, value in INSTANCE_TAGS.items()],
            }
        ],
    )
    return reservation["Instances"][0]["InstanceId"]


def _lay_to_rest(endpoint_url: str, instance_id: str) -> None:
    # The user's instance exists long before this system does; its launch here is no part of the story, or of the bill.
    request = urllib.request.Request(f"{endpoint_url}/devstack/instances/{instance_id}/rest", method="POST")
    straight = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with straight.open(request, timeout=10):
        pass
