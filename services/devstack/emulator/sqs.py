"""SQS whose receives do not race each other, and the two metrics an alarm needs from it."""

import json
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any
from wsgiref.types import WSGIEnvironment

from moto.backends import get_backend
from moto.core import DEFAULT_ACCOUNT_ID
from werkzeug.wrappers import Response

from services.devstack.emulator.aws_call import AwsCall, Forward, put_body
from services.devstack.emulator.queue_depth import QueueDepth

# A message whose visibility timeout runs out announces itself to nobody: an open long poll looks this often.
_LOOK_EVERY_S = 0.2


class Sqs:
    """One lock round every SQS call, with the waiting of a long poll outside it.

    moto's receive looks at a message and marks it in two steps, and moves messages to the dead letter queue while
    another thread iterates over them. So each look is made under the lock and does not wait (`WaitTimeSeconds` 0);
    between looks the poll sleeps without it. As at AWS, a message that a poll finds after its client has gone is out of
    sight for a whole visibility timeout:
    https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_ReceiveMessage.html
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._changed = threading.Condition()
        self._sent: Counter[tuple[str, str]] = Counter()

    def answer(self, call: AwsCall, environ: WSGIEnvironment, forward: Forward) -> Response:
        """Answer one SQS call."""
        if call.action == "ReceiveMessage" and call.speaks_json:
            return self._receive(call, environ, forward)
        with self._changed:
            response = forward(environ)
            self._count_sent(call, response)
            self._changed.notify_all()
            return response

    def depths(self, region: str) -> dict[str, QueueDepth]:
        """Every queue of `region` by name."""
        with self._changed:
            return {queue.name: self._depth(region, queue) for queue in _queues(region).values()}

    def _depth(self, region: str, queue: Any) -> QueueDepth:
        return QueueDepth(
            visible=queue.approximate_number_of_messages,
            in_flight=queue.approximate_number_of_messages_not_visible,
            delayed=queue.approximate_number_of_messages_delayed,
            sent=self._sent[region, queue.name],
        )

    def _receive(self, call: AwsCall, environ: WSGIEnvironment, forward: Forward) -> Response:
        request = json.loads(call.body)
        queue = _queues(call.region).get(str(request.get("QueueUrl", "")).rpartition("/")[2])
        default_wait_s = 0 if queue is None else queue.receive_message_wait_time_seconds
        give_up_at_s = self._clock() + float(request.get("WaitTimeSeconds", default_wait_s) or 0)
        look = json.dumps({**request, "WaitTimeSeconds": 0}).encode()
        with self._changed:
            while True:
                put_body(environ, look)
                response = forward(environ)
                left_s = give_up_at_s - self._clock()
                if response.status_code != 200 or left_s <= 0 or json.loads(response.get_data()).get("Messages"):
                    return response
                self._wait_for_a_message(queue, give_up_at_s)

    def _wait_for_a_message(self, queue: Any, give_up_at_s: float) -> None:
        while (left_s := give_up_at_s - self._clock()) > 0:
            self._changed.wait(min(left_s, _LOOK_EVERY_S))
            if queue.approximate_number_of_messages:
                return

    def _count_sent(self, call: AwsCall, response: Response) -> None:
        if not call.action.startswith("SendMessage") or response.status_code != 200 or not call.speaks_json:
            return
        queue_name = str(json.loads(call.body)["QueueUrl"]).rpartition("/")[2]
        # A batch is answered 200 even if entries of it failed.
        sent = len(json.loads(response.get_data())["Successful"]) if call.action == "SendMessageBatch" else 1
        self._sent[call.region, queue_name] += sent


def _queues(region: str) -> dict[str, Any]:
    queues: dict[str, Any] = get_backend("sqs")[DEFAULT_ACCOUNT_ID][region].queues
    return queues
