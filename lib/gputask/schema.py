"""The table of tasks as DynamoDB is told of it. `terraform/table.tf` makes the real one; a test compares them."""

from __future__ import annotations

from typing import Any

TABLE_KEY = "task_id"
TTL_ATTRIBUTE = "expires_at"

STATUS_INDEX = "status-created_at-index"
STATUS_INDEX_KEY = ("status", "created_at")
# What waker, janitor and Lambda decide by; never the request body, or every write would be paid for twice.
STATUS_INDEX_ATTRIBUTES = (
    "updated_at",
    "job_type",
    "client_id",
    "queued_at",
    "sends",
    "claimed_at",
    "lease_until",
    "worker",
    "attempt",
    "comfy_job_id",
    "finished_at",
    "error_code",
)


def definition() -> dict[str, Any]:
    """The arguments of CreateTable, but for the table's name. TTL is a call of its own (UpdateTimeToLive)."""
    status, created_at = STATUS_INDEX_KEY
    return {
        "BillingMode": "PAY_PER_REQUEST",
        "AttributeDefinitions": [
            {"AttributeName": TABLE_KEY, "AttributeType": "S"},
            {"AttributeName": status, "AttributeType": "S"},
            {"AttributeName": created_at, "AttributeType": "N"},
        ],
        "KeySchema": [{"AttributeName": TABLE_KEY, "KeyType": "HASH"}],
        "GlobalSecondaryIndexes": [
            {
                "IndexName": STATUS_INDEX,
                "KeySchema": [
                    {"AttributeName": status, "KeyType": "HASH"},
                    {"AttributeName": created_at, "KeyType": "RANGE"},
                ],
                "Projection": {"ProjectionType": "INCLUDE", "NonKeyAttributes": list(STATUS_INDEX_ATTRIBUTES)},
            }
        ],
    }
