from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

from botocore.exceptions import ClientError

from tests.devstack.emulated import Emulated

RACERS = 12
ROUNDS = 50


def test_of_twelve_racing_conditional_updates_exactly_one_wins(emulated: Emulated) -> None:
    table, dynamodb = emulated.new_table(), emulated.dynamodb
    line = Barrier(RACERS)

    def claim(task_id: str, racer: int) -> bool:
        line.wait(30)
        try:
            dynamodb.update_item(
                TableName=table,
                Key={"task_id": {"S": task_id}},
                UpdateExpression="SET #owner = :racer",
                ConditionExpression="attribute_not_exists(#owner)",
                ExpressionAttributeNames={"#owner": "owner"},
                ExpressionAttributeValues={":racer": {"N": str(racer)}},
            )
        except ClientError as error:
            assert error.response["Error"]["Code"] == "ConditionalCheckFailedException"  # noqa: PT017
            return False
        return True

    with ThreadPoolExecutor(RACERS) as racers:
        for number in range(ROUNDS):
            won = racers.map(claim, [f"task-{number}"] * RACERS, range(RACERS))
            assert sum(won) == 1, f"round {number}"
