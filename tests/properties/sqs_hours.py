"""The queue's visibility timeouts by the test's clock. Everything else about the queue is the emulator's."""

# The parameters bear the names that the SDK gives them.
# ruff: noqa: N803

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from botocore.exceptions import ClientError

# Hidden until we say otherwise, and within the twelve hours that SQS allows.
_HIDDEN_S = 40_000


@dataclass(frozen=True, slots=True)
class Hidden:
    """A message that was received: from where, and until when it is hidden."""

    queue_url: str
    receipt: str
    until: float


@dataclass(slots=True)
class SqsHours:
    """A client of SQS.

    Stricter than SQS may be: the receipt of an earlier receive deletes nothing, though it says so.

    Attributes:
        deleted: bodies of the messages that were deleted since somebody last looked.
    """

    client: Any
    clock: Callable[[], float]
    deleted: list[str] = field(default_factory=list)
    bodies: dict[str, str] = field(default_factory=dict)
    hidden: dict[str, Hidden] = field(default_factory=dict)
    ids: dict[str, str] = field(default_factory=dict)

    def __getattr__(self, operation: str) -> Any:
        return getattr(self.client, operation)

    async def receive_message(self, *, QueueUrl: str, VisibilityTimeout: int, **arguments: Any) -> Any:
        """As it is now; nobody waits for what is to come."""
        now = self.clock()
        answer = await self.client.receive_message(
            **arguments | {"QueueUrl": QueueUrl, "WaitTimeSeconds": 0, "VisibilityTimeout": _HIDDEN_S}
        )
        for message in answer.get("Messages", []):
            self.ids[message["ReceiptHandle"]] = message["MessageId"]
            self.bodies[message["MessageId"]] = message["Body"]
            self.hidden[message["MessageId"]] = Hidden(QueueUrl, message["ReceiptHandle"], now + VisibilityTimeout)
        return answer

    async def change_message_visibility(
        self,
        *,
        QueueUrl: str,
        ReceiptHandle: str,
        VisibilityTimeout: int,
    ) -> Any:
        """Refused unless the message is hidden by this very receipt."""
        if not self._is_current(ReceiptHandle):
            code = "com.amazonaws.sqs#MessageNotInflight"
            raise ClientError({"Error": {"Code": code, "Message": ""}}, "ChangeMessageVisibility")
        message_id = self.ids[ReceiptHandle]
        self.hidden[message_id] = Hidden(QueueUrl, ReceiptHandle, self.clock() + VisibilityTimeout)
        answer = await self.client.change_message_visibility(
            QueueUrl=QueueUrl, ReceiptHandle=ReceiptHandle, VisibilityTimeout=_HIDDEN_S if VisibilityTimeout else 0
        )
        if VisibilityTimeout == 0:
            self.hidden.pop(message_id, None)
        return answer

    async def delete_message(self, *, QueueUrl: str, ReceiptHandle: str) -> Any:
        if not self._is_current(ReceiptHandle):
            return {"ResponseMetadata": {"RequestId": "none"}}
        self.hidden.pop(self.ids[ReceiptHandle], None)
        self.deleted.append(self.bodies[self.ids[ReceiptHandle]])
        return await self.client.delete_message(QueueUrl=QueueUrl, ReceiptHandle=ReceiptHandle)

    async def show_what_is_due(self) -> None:
        """Make visible what has been hidden for long enough."""
        for message_id, hidden in list(self.hidden.items()):
            if hidden.until <= self.clock():
                del self.hidden[message_id]
                await self.client.change_message_visibility(
                    QueueUrl=hidden.queue_url, ReceiptHandle=hidden.receipt, VisibilityTimeout=0
                )

    def _is_current(self, receipt: str) -> bool:
        hidden = self.hidden.get(self.ids.get(receipt, ""))
        return hidden is not None and hidden.receipt == receipt
