"""The SQS metrics an alarm needs, which moto does not keep.

Receiving is left to moto. Under load two receivers may get the same message at the same moment, about once in a
thousand: that is what a standard queue is allowed to do, so nothing is put in front of it.
https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/standard-queues-at-least-once-delivery.html
"""

import json
import threading
from collections import Counter
from typing import Any
from wsgiref.types import WSGIEnvironment

from moto.backends import get_backend
from moto.core import DEFAULT_ACCOUNT_ID
from werkzeug.wrappers import Response

from services.devstack.emulator.aws_call import AwsCall, Forward
from services.devstack.emulator.queue_depth import QueueDepth


class Sqs:
    """Counts what was sent, and tells how deep the queues are. Reads the JSON protocol only: SDKs speak no other."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sent: Counter[tuple[str, str]] = Counter()

    def answer(self, call: AwsCall, environ: WSGIEnvironment, forward: Forward) -> Response:
        """Answer one SQS call."""
        response = forward(environ)
        if call.action in ("SendMessage", "SendMessageBatch") and call.speaks_json and response.status_code == 200:
            self._count_sent(call, response)
        return response

    def depths(self, region: str) -> dict[str, QueueDepth]:
        """Every queue of `region` by name."""
        queues = get_backend("sqs")[DEFAULT_ACCOUNT_ID][region].queues
        return {queue.name: self._depth(region, queue) for queue in list(queues.values())}

    def _depth(self, region: str, queue: Any) -> QueueDepth:
        with self._lock:
            sent = self._sent[region, queue.name]
        return QueueDepth(
            visible=queue.approximate_number_of_messages,
            in_flight=queue.approximate_number_of_messages_not_visible,
            delayed=queue.approximate_number_of_messages_delayed,
            sent=sent,
        )

    def _count_sent(self, call: AwsCall, response: Response) -> None:
        queue_name = str(json.loads(call.body)["QueueUrl"]).rpartition("/")[2]
        # A batch is answered 200 even if entries of it failed.
        sent = len(json.loads(response.get_data())["Successful"]) if call.action == "SendMessageBatch" else 1
        with self._lock:
            self._sent[call.region, queue_name] += sent
