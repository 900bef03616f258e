"""An SQS standard queue: visible messages, messages in flight, receivers that wait."""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from bench.endpoint.refusal import Refusal

Answer = Mapping[str, Any]

_numbers = itertools.count(1)


@dataclass(slots=True)
class _Message:
    id: str
    body: str
    attributes: Mapping[str, Any]
    receives: int = 0


class Queue:
    """The operations, by SQS's names. Visibility by timers; nothing is ever dead-lettered."""

    def __init__(self, visibility_s: float) -> None:
        self._default_visibility_s = visibility_s
        self._visible: deque[_Message] = deque()
        self._in_flight: dict[str, tuple[_Message, asyncio.TimerHandle]] = {}
        self._waiting: deque[asyncio.Future[None]] = deque()
        self.operations: Mapping[str, Callable[[Any], Answer | Awaitable[Answer]]] = {
            "SendMessage": self._send,
            "SendMessageBatch": self._send_batch,
            "ReceiveMessage": self._receive,
            "DeleteMessage": self._delete,
            "DeleteMessageBatch": self._delete_batch,
            "ChangeMessageVisibility": self._set_visibility,
            "GetQueueAttributes": lambda _: {"Attributes": self._attributes()},
        }

    @property
    def depth(self) -> int:
        """Messages visible and in flight."""
        return len(self._visible) + len(self._in_flight)

    def fill(self, body: str) -> None:
        """A message that is there already."""
        self._show(_Message(f"m-{next(_numbers)}", body, {}))

    def _attributes(self) -> Mapping[str, str]:
        return {
            "QueueArn": "arn:aws:sqs:us-east-1:000000000000:tasks",
            "ApproximateNumberOfMessages": str(len(self._visible)),
            "ApproximateNumberOfMessagesNotVisible": str(len(self._in_flight)),
            "ApproximateNumberOfMessagesDelayed": "0",
        }

    def _send(self, call: Any) -> Answer:
        message = _Message(f"m-{next(_numbers)}", call["MessageBody"], call.get("MessageAttributes", {}))
        self._show(message)
        return {"MessageId": message.id}

    def _send_batch(self, call: Any) -> Answer:
        return {"Successful": [{"Id": entry["Id"], **self._send(entry)} for entry in call["Entries"]], "Failed": []}

    async def _receive(self, call: Any) -> Answer:
        """Waits up to `WaitTimeSeconds` for the first message."""
        loop = asyncio.get_running_loop()
        give_up_at = loop.time() + call.get("WaitTimeSeconds", 0)
        while not self._visible and (left_s := give_up_at - loop.time()) > 0:
            shown = loop.create_future()
            self._waiting.append(shown)
            await asyncio.wait([shown], timeout=left_s)
            shown.cancel()
        visibility_s = call.get("VisibilityTimeout", self._default_visibility_s)
        messages = [self._take(visibility_s) for _ in range(min(call["MaxNumberOfMessages"], len(self._visible)))]
        return {"Messages": messages} if messages else {}

    def _delete(self, call: Any) -> Answer:
        held = self._in_flight.pop(call["ReceiptHandle"], None)
        if held is not None:
            held[1].cancel()
        return {}

    def _delete_batch(self, call: Any) -> Answer:
        for entry in call["Entries"]:
            self._delete(entry)
        return {"Successful": [{"Id": entry["Id"]} for entry in call["Entries"]], "Failed": []}

    def _set_visibility(self, call: Any) -> Answer:
        receipt = call["ReceiptHandle"]
        if receipt not in self._in_flight:
            raise Refusal(400, "com.amazonaws.sqs#MessageNotInflight", "not in flight")
        message, timer = self._in_flight.pop(receipt)
        timer.cancel()
        if call["VisibilityTimeout"] == 0:
            self._show(message)
        else:
            self._hide(message, receipt, call["VisibilityTimeout"])
        return {}

    def _show(self, message: _Message) -> None:
        self._visible.append(message)
        while self._waiting:
            receiver = self._waiting.popleft()
            if not receiver.done():
                receiver.set_result(None)
                return

    def _take(self, visibility_s: float) -> Answer:
        message = self._visible.popleft()
        message.receives += 1
        receipt = f"r-{next(_numbers)}"
        self._hide(message, receipt, visibility_s)
        return {
            "MessageId": message.id,
            "ReceiptHandle": receipt,
            "Body": message.body,
            "Attributes": {"ApproximateReceiveCount": str(message.receives)},
            "MessageAttributes": message.attributes,
        }

    def _hide(self, message: _Message, receipt: str, seconds: float) -> None:
        timer = asyncio.get_running_loop().call_later(seconds, self._reappear, receipt)
        self._in_flight[receipt] = (message, timer)

    def _reappear(self, receipt: str) -> None:
        message, _ = self._in_flight.pop(receipt)
        self._show(message)
