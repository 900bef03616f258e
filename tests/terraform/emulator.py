"""Emulated AWS as Terraform needs it: the devstack's emulator with what moto lacks put right.

`python -m tests.terraform.emulator` serves on a loopback port, prints its address, and ends with its process.
"""

from __future__ import annotations

import json
import logging
import os
from collections import defaultdict
from collections.abc import Iterable
from io import BytesIO
from typing import Any
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server
from werkzeug.wrappers import Response

from services.devstack.emulator.__main__ import QuietRequestHandler
from services.devstack.emulator.app import EmulatedAws
from services.devstack.emulator.aws_call import AwsCall, identify

# Calls that moto answers with 500: nothing of ours is tagged there.
# https://docs.aws.amazon.com/autoscaling/application/APIReference/API_ListTagsForResource.html
UNTAGGED: dict[tuple[str, str], dict[str, Any]] = {
    ("application-autoscaling", "ListTagsForResource"): {"Tags": {}},
    ("application-autoscaling", "TagResource"): {},
    ("application-autoscaling", "UntagResource"): {},
}


class Shims:
    """A WSGI application before the emulator."""

    def __init__(self, emulator: WSGIApplication) -> None:
        self._emulator = emulator
        self._kept: dict[str, dict[str, str]] = defaultdict(dict)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        call = identify(environ)
        if (call.service, call.action) in UNTAGGED:
            return _send(_json(UNTAGGED[call.service, call.action]), environ, start_response)
        if call.service == "sqs" and call.speaks_json:
            return _send(self._sqs(call, environ), environ, start_response)
        return self._emulator(environ, start_response)

    def _sqs(self, call: AwsCall, environ: WSGIEnvironment) -> Response:
        request = json.loads(call.body)
        if call.action == "SetQueueAttributes":
            request["Attributes"] = self._keep(request["QueueUrl"], request["Attributes"])
        if call.action != "GetQueueAttributes":
            return self._forward(request, environ)
        known = [name for name in request.get("AttributeNames", []) if name != "RedriveAllowPolicy"]
        response = self._forward({**request, "AttributeNames": known}, environ)
        if response.status_code != 200:
            return response
        # Its headers stay: without AWS's request id our own clients rightly take it for no answer of AWS.
        response.set_data(json.dumps(self._complete(request, json.loads(response.get_data()))))
        return response

    def _keep(self, queue_url: str, attributes: dict[str, str]) -> dict[str, str]:
        """moto knows no RedriveAllowPolicy, and forgets the policy when any other attribute is set.

        https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SetQueueAttributes.html
        """
        kept = self._kept[queue_url]
        kept.update({name: attributes[name] for name in ("RedriveAllowPolicy", "Policy") if name in attributes})
        passed_on = {name: value for name, value in attributes.items() if name != "RedriveAllowPolicy"}
        return {**passed_on, "Policy": kept["Policy"]} if kept.get("Policy") else passed_on

    def _complete(self, request: dict[str, Any], answer: dict[str, Any]) -> dict[str, Any]:
        """Add what was kept; and JSON as it was put, where moto inserts spaces."""
        attributes = answer.get("Attributes", {})
        if "RedrivePolicy" in attributes:
            policy = json.loads(attributes["RedrivePolicy"])
            attributes["RedrivePolicy"] = json.dumps(policy, separators=(",", ":"))
        allowed = self._kept[request["QueueUrl"]].get("RedriveAllowPolicy")
        if allowed and {"All", "RedriveAllowPolicy"} & set(request.get("AttributeNames", [])):
            attributes["RedriveAllowPolicy"] = allowed
        return {**answer, "Attributes": attributes}

    def _forward(self, request: dict[str, Any], environ: WSGIEnvironment) -> Response:
        body = json.dumps(request).encode()
        return Response.from_app(
            self._emulator, {**environ, "wsgi.input": BytesIO(body), "CONTENT_LENGTH": str(len(body))}, buffered=True
        )


def _send(response: Response, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    chunks: Iterable[bytes] = response(environ, start_response)
    return chunks


def _json(answer: dict[str, Any]) -> Response:
    return Response(json.dumps(answer), content_type="application/x-amz-json-1.0")


def main() -> None:
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    # https://docs.getmoto.org/en/latest/docs/configuration/environment_variables.html
    os.environ.update(MOTO_IAM_LOAD_MANAGED_POLICIES="true", MOTO_ACM_VALIDATION_WAIT="1")
    emulator = EmulatedAws(
        moto=DomainDispatcherApplication(create_backend_app), region="us-east-1", pending_s=1.0, power_cut_s=1.0
    )
    server = make_server("127.0.0.1", 0, Shims(emulator), threaded=True, request_handler=QuietRequestHandler)
    os.environ["MOTO_PORT"] = str(server.port)
    print(f"http://127.0.0.1:{server.port}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
