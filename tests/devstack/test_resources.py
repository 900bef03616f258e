import json

import pytest

from services.devstack.resources import Resources, create_resources
from tests.devstack.emulated import Emulated


@pytest.fixture(scope="session")
def created(shared_emulator: Emulated) -> tuple[Emulated, Resources]:
    """Once for each emulator: the names are fixed."""
    return shared_emulator, create_resources(shared_emulator.endpoint_url, visibility_s=7, max_receive_count=3)


def test_the_queue_has_its_visibility_and_its_dead_letter_queue(created: tuple[Emulated, Resources]) -> None:
    emulated, resources = created
    answer = emulated.sqs.get_queue_attributes(QueueUrl=resources.queue_url, AttributeNames=["All"])
    attributes = answer["Attributes"]
    assert resources.queue_name == "gpu_tasks_queue"
    assert attributes["VisibilityTimeout"] == "7"
    redrive = json.loads(attributes["RedrivePolicy"])
    assert redrive["maxReceiveCount"] == 3
    assert redrive["deadLetterTargetArn"].endswith(f":{resources.dead_letter_queue_name}")


def test_the_table_has_its_index_without_the_body_and_its_ttl(created: tuple[Emulated, Resources]) -> None:
    emulated, resources = created
    table = emulated.dynamodb.describe_table(TableName=resources.table)["Table"]
    assert table["KeySchema"] == [{"AttributeName": "task_id", "KeyType": "HASH"}]
    (index,) = table["GlobalSecondaryIndexes"]
    assert index["IndexName"] == "status-created_at-index"
    assert [(key["AttributeName"], key["KeyType"]) for key in index["KeySchema"]] == [
        ("status", "HASH"),
        ("created_at", "RANGE"),
    ]
    assert index["Projection"]["ProjectionType"] == "INCLUDE"
    assert {"lease_until", "attempt", "queued_at", "sends"} <= set(index["Projection"]["NonKeyAttributes"])
    assert "request_body" not in index["Projection"]["NonKeyAttributes"]
    ttl = emulated.dynamodb.describe_time_to_live(TableName=resources.table)["TimeToLiveDescription"]
    assert ttl == {"TimeToLiveStatus": "ENABLED", "AttributeName": "expires_at"}


def test_the_instance_is_tagged_and_has_been_stopped_for_ever(created: tuple[Emulated, Resources]) -> None:
    emulated, resources = created
    described = emulated.ec2.describe_instances(InstanceIds=[resources.instance_id])
    instance = described["Reservations"][0]["Instances"][0]
    assert instance["InstanceType"] == "g6e.2xlarge"
    assert instance["State"]["Name"] == "stopped"
    assert {"Key": "Purpose", "Value": "GPU-ComfyUI"} in instance["Tags"]
    view = emulated.ask("GET", f"/devstack/instances/{resources.instance_id}")
    assert [interval["state"] for interval in view["intervals"]] == ["stopped"]


def test_the_bucket_takes_objects(created: tuple[Emulated, Resources]) -> None:
    emulated, resources = created
    emulated.s3.put_object(Bucket=resources.bucket, Key="a", Body=b"a")
