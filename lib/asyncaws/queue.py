"""An SQS standard queue."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from lib.asyncaws.errors import GARBLED, AwsError, PermanentAwsError, TransientAwsError, translate
from lib.asyncaws.gathering import Gatherer
from lib.asyncaws.session import CallPolicy, call

if TYPE_CHECKING:
    from types_aiobotocore_sqs import SQSClient
    from types_aiobotocore_sqs.literals import QueueAttributeNameType

# A message is invisible for at most 12 h counted from its receive; asking for more is an error.
MAX_VISIBILITY_S = 43_200

# https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SendMessageBatch.html
_MOST_MESSAGES = 10
_MOST_BYTES = 1_048_576  # of all messages of a batch together
_ATTRIBUTES_BYTES = 1024  # ours are short: the id of a request

# https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_GetQueueAttributes.html
_COUNTS: Sequence[QueueAttributeNameType] = (
    "ApproximateNumberOfMessages",
    "ApproximateNumberOfMessagesNotVisible",
    "ApproximateNumberOfMessagesDelayed",
)

# Under way before the next ones are gathered. What must go soon waits for two round trips at the most, and those who
# delete ten at once make three calls.
_DELETES = 2

_Entry = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Message:
    """A received message.

    Attributes:
        receipt: the handle of this very receive; a later receive makes it worthless.
        receive_count: how often the message was received, this time included.
        attributes: the string attributes its sender gave it.
    """

    id: str
    receipt: str
    body: str
    receive_count: int
    attributes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Depth:
    """How many messages a queue holds: approximately, and some seconds or a minute ago.

    Attributes:
        visible: may be received now.
        hidden: received, or delayed, and not yet to be seen.
    """

    visible: int
    hidden: int

    @property
    def messages(self) -> int:
        return self.visible + self.hidden


class Queue:
    """All methods raise the errors of `lib.asyncaws.errors`."""

    def __init__(self, client: SQSClient, *, url: str, policy: CallPolicy) -> None:
        self._client = client
        self._url = url
        self._policy = policy
        self._sends: Gatherer[_Entry, None] = Gatherer(
            self._send_all, most=_MOST_MESSAGES, size_bytes=_size_bytes, most_bytes=_MOST_BYTES
        )
        self._deletes: Gatherer[str, None] = Gatherer(self._delete_all, most=_MOST_MESSAGES, calls=_DELETES)

    async def check(self) -> None:
        """Prove that the queue exists and may be asked, and is a standard one: a FIFO queue refuses every send of ours.

        Its name must end in .fifo:
        https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/FIFO-queue-message-identifiers.html
        """
        if self._url.endswith(".fifo"):
            raise PermanentAwsError("GetQueueAttributes", "FifoQueue", "a standard queue is needed, not a FIFO one")
        await self._call("GetQueueAttributes", self._client.get_queue_attributes, AttributeNames=["QueueArn"])

    async def depth(self) -> Depth:
        """The queue's own counts."""
        depth: Depth = await self._call(
            "GetQueueAttributes", self._client.get_queue_attributes, read=_depth, AttributeNames=_COUNTS
        )
        return depth

    async def send(self, body: str, attributes: Mapping[str, str]) -> None:
        """Send one message; many at once share calls. Repeating it after an error may send it twice, as SQS may."""
        typed = {name: {"DataType": "String", "StringValue": value} for name, value in attributes.items()}
        await self._sends.ask({"MessageBody": body, "MessageAttributes": typed})

    async def receive(self, *, limit: int, wait_s: int, visibility_s: int | None = None) -> list[Message]:
        """Long-poll for up to `limit` messages (1-10), waiting up to `wait_s` seconds (0-20) for the first.

        Never cancel this: SQS would go on, and hide what it then finds for a whole visibility timeout.
        """
        options: dict[str, Any] = {} if visibility_s is None else {"VisibilityTimeout": visibility_s}
        # What a garbled answer may have hidden comes again after its visibility timeout.
        messages: list[Message] = await self._call(
            "ReceiveMessage",
            self._client.receive_message,
            read=lambda answer: [_received(raw) for raw in answer.get("Messages", [])],
            MaxNumberOfMessages=limit,
            WaitTimeSeconds=wait_s,
            MessageAttributeNames=["All"],
            MessageSystemAttributeNames=["ApproximateReceiveCount"],
            **options,
        )
        return messages

    async def delete(self, receipt: str) -> None:
        """Acknowledge; many at once share calls.

        Success proves nothing (an old handle succeeds too); the table says what is done.
        """
        await self._deletes.ask(receipt)

    async def set_visibility(self, receipt: str, seconds: int) -> None:
        """Let the message be seen again `seconds` from now; 0 at once.

        Raises:
            ReceiptLost: the message is no longer ours.
        """
        await self._call(
            "ChangeMessageVisibility",
            self._client.change_message_visibility,
            ReceiptHandle=receipt,
            VisibilityTimeout=min(max(seconds, 0), MAX_VISIBILITY_S),
        )

    async def _send_all(self, entries: Sequence[_Entry]) -> Sequence[Exception | None]:
        if len(entries) == 1:
            # A message that has no id was not sent.
            await self._call("SendMessage", self._client.send_message, read=itemgetter("MessageId"), **entries[0])
            return [None]
        return await self._batch("SendMessageBatch", self._client.send_message_batch, entries)

    async def _delete_all(self, receipts: Sequence[str]) -> Sequence[Exception | None]:
        if len(receipts) == 1:
            await self._call("DeleteMessage", self._client.delete_message, ReceiptHandle=receipts[0])
            return [None]
        entries = [{"ReceiptHandle": receipt} for receipt in receipts]
        return await self._batch("DeleteMessageBatch", self._client.delete_message_batch, entries)

    async def _batch(self, operation: str, method: Any, entries: Sequence[_Entry]) -> Sequence[Exception | None]:
        """One call for several messages: for each of them nothing, or what the single call would have raised."""
        undone: Sequence[Any] = [{"Id": str(number), **entry} for number, entry in enumerate(entries)]
        refusals: dict[str, AwsError] = {}

        async def ask() -> Any:
            return await method(QueueUrl=self._url, Entries=undone)

        def read(answer: Any) -> None:
            """A batch that is answered 200 may yet have refused some: what may succeed later stays for the next try."""
            nonlocal undone
            done = {entry["Id"] for entry in answer.get("Successful", [])}
            failed = {entry["Id"]: _refusal(operation, entry) for entry in answer.get("Failed", [])}
            refusals.update({id_: error for id_, error in failed.items() if not isinstance(error, TransientAwsError)})
            undone = [entry for entry in undone if entry["Id"] not in done | refusals.keys()]
            if undone:
                unnamed = TransientAwsError(operation, GARBLED, "an entry is not answered")
                raise failed.get(undone[0]["Id"], unnamed)

        try:
            await call(operation, ask, self._policy, read=read)
        except TransientAwsError as error:
            refusals |= {entry["Id"]: error for entry in undone}
        return [refusals.get(str(number)) for number in range(len(entries))]

    async def _call(
        self, operation: str, method: Any, *, read: Callable[[Any], Any] = lambda answer: answer, **arguments: Any
    ) -> Any:
        return await call(operation, lambda: method(QueueUrl=self._url, **arguments), self._policy, read=read)


def _size_bytes(entry: _Entry) -> int:
    return len(entry["MessageBody"].encode()) + _ATTRIBUTES_BYTES


def _refusal(operation: str, entry: Mapping[str, Any]) -> AwsError:
    """The error of one message of a batch, named as that of a call of its own would be."""
    status = 400 if entry["SenderFault"] else 500
    answer: Any = {
        "Error": {"Code": entry["Code"], "Message": entry.get("Message", "")},
        "ResponseMetadata": {"HTTPStatusCode": status},
    }
    return translate(operation, ClientError(answer, operation))


def _depth(answer: Mapping[str, Any]) -> Depth:
    visible, *hidden = (int(answer["Attributes"][name]) for name in _COUNTS)
    return Depth(visible, sum(hidden))


def _received(raw: Mapping[str, Any]) -> Message:
    return Message(
        id=raw["MessageId"],
        receipt=raw["ReceiptHandle"],
        body=raw["Body"],
        receive_count=int(raw.get("Attributes", {}).get("ApproximateReceiveCount", 1)),
        attributes={
            name: attribute["StringValue"]
            for name, attribute in raw.get("MessageAttributes", {}).items()
            if "StringValue" in attribute
        },
    )
