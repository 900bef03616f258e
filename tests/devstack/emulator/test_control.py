import pytest
from botocore.exceptions import ClientError

from tests.devstack.emulated import Emulated


def test_calls_are_counted_by_service_and_action(emulated: Emulated) -> None:
    table = emulated.new_table()
    before = emulated.ask("GET", "/devstack/calls")["attempted"]
    emulated.dynamodb.put_item(TableName=table, Item={"task_id": {"S": "a"}})
    emulated.dynamodb.put_item(TableName=table, Item={"task_id": {"S": "b"}})
    after = emulated.ask("GET", "/devstack/calls")["attempted"]
    assert after["dynamodb"]["PutItem"] - before["dynamodb"].get("PutItem", 0) == 2
    after["dynamodb"].pop("PutItem")
    before["dynamodb"].pop("PutItem", None)
    assert after == before


def test_failed_calls_are_counted_as_such(emulated: Emulated) -> None:
    def failed() -> int:
        count: int = emulated.ask("GET", "/devstack/calls")["failed"].get("dynamodb", {}).get("GetItem", 0)
        return count

    before = failed()
    with pytest.raises(ClientError):
        emulated.dynamodb.get_item(TableName="nowhere", Key={"task_id": {"S": "a"}})
    assert failed() == before + 1


def test_objects_are_stored_and_read_byte_by_byte(emulated: Emulated) -> None:
    body = bytes(range(256)) * 1000
    emulated.s3.create_bucket(Bucket="pictures")
    emulated.s3.put_object(Bucket="pictures", Key="a/b.png", Body=body, ContentType="image/png")
    assert emulated.s3.head_object(Bucket="pictures", Key="a/b.png")["ContentLength"] == len(body)
    assert emulated.s3.get_object(Bucket="pictures", Key="a/b.png")["Body"].read() == body


def test_a_control_path_that_does_not_exist_is_refused(emulated: Emulated) -> None:
    assert emulated.ask("GET", "/devstack/nothing")["status"] == 404
    assert emulated.ask("POST", "/devstack/calls")["status"] == 405
    assert emulated.ask("GET", "/devstack/instances/i-1?wait_s=soon")["status"] == 404
