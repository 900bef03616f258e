"""What moto takes and does not give back, kept beside it: without these every second plan would set it again."""

from __future__ import annotations

import json
import re
import uuid
from collections import defaultdict
from collections.abc import Callable
from io import BytesIO
from typing import Any, TypeAlias
from wsgiref.types import WSGIEnvironment
from xml.sax.saxutils import escape

from werkzeug.wrappers import Response

from services.devstack.emulator.aws_call import AwsCall, Forward

Shim: TypeAlias = Callable[[AwsCall, WSGIEnvironment, Forward], Response]


class Queues:
    """SQS: moto knows no RedriveAllowPolicy, and forgets the policy when any other attribute is set.

    https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SetQueueAttributes.html
    """

    def __init__(self) -> None:
        self._kept: dict[str, dict[str, str]] = defaultdict(dict)

    def answer(self, call: AwsCall, environ: WSGIEnvironment, forward: Forward) -> Response:
        request = _request(call)
        match call.action:
            case "SetQueueAttributes":
                attributes = self._keep(request["QueueUrl"], request["Attributes"])
                return forward(_asking({**request, "Attributes": attributes}, environ))
            case "GetQueueAttributes":
                asked = request.get("AttributeNames", [])
                known = [name for name in asked if name != "RedriveAllowPolicy"]
                response = forward(_asking({**request, "AttributeNames": known}, environ))
                return _changed(response, lambda answer: self._complete(request["QueueUrl"], asked, answer))
            case _:
                return forward(environ)

    def _keep(self, queue_url: str, attributes: dict[str, str]) -> dict[str, str]:
        kept = self._kept[queue_url]
        kept.update({name: attributes[name] for name in ("RedriveAllowPolicy", "Policy") if name in attributes})
        passed_on = {name: value for name, value in attributes.items() if name != "RedriveAllowPolicy"}
        return {**passed_on, "Policy": kept["Policy"]} if kept.get("Policy") else passed_on

    def _complete(self, queue_url: str, asked: list[str], answer: dict[str, Any]) -> None:
        """Add what was kept; and JSON as it was put, where moto inserts spaces."""
        attributes = answer.setdefault("Attributes", {})
        if "RedrivePolicy" in attributes:
            policy = json.loads(attributes["RedrivePolicy"])
            attributes["RedrivePolicy"] = json.dumps(policy, separators=(",", ":"))
        allowed = self._kept[queue_url].get("RedriveAllowPolicy")
        if allowed and {"All", "RedriveAllowPolicy"} & set(asked):
            attributes["RedriveAllowPolicy"] = allowed


class ScalableTargets:
    """Application Auto Scaling: moto drops the tags of a target, and answers every question for tags with 500.

    https://docs.aws.amazon.com/autoscaling/application/APIReference/API_RegisterScalableTarget.html
    https://docs.aws.amazon.com/autoscaling/application/APIReference/API_ListTagsForResource.html
    """

    def __init__(self) -> None:
        self._tags: dict[str, dict[str, str]] = defaultdict(dict)

    def answer(self, call: AwsCall, environ: WSGIEnvironment, forward: Forward) -> Response:
        request = _request(call)
        match call.action:
            case "RegisterScalableTarget":
                response = forward(environ)
                if response.status_code == 200:
                    arn = json.loads(response.get_data())["ScalableTargetARN"]
                    self._tags[arn].update(request.get("Tags", {}))
                return response
            case "ListTagsForResource":
                return _json({"Tags": self._tags[request["ResourceARN"]]})
            case "TagResource":
                self._tags[request["ResourceARN"]].update(request["Tags"])
                return _json({})
            case "UntagResource":
                for key in request["TagKeys"]:
                    self._tags[request["ResourceARN"]].pop(key, None)
                return _json({})
            case _:
                return forward(environ)


class EcsServices:
    """ECS: moto drops two settings of a service.

    https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_Service.html
    """

    _DROPPED = ("availabilityZoneRebalancing", "healthCheckGracePeriodSeconds")

    def __init__(self) -> None:
        self._kept: dict[str, dict[str, Any]] = defaultdict(dict)

    def answer(self, call: AwsCall, environ: WSGIEnvironment, forward: Forward) -> Response:
        request = _request(call)
        if call.action in ("CreateService", "UpdateService"):
            name = request.get("serviceName") or request["service"].rpartition("/")[2]
            self._kept[name].update({setting: request[setting] for setting in self._DROPPED if setting in request})
        return _changed(forward(environ), self._complete)

    def _complete(self, answer: dict[str, Any]) -> None:
        shown = answer.get("services", []) + [answer[name] for name in ("service",) if name in answer]
        for service in shown:
            service.update(self._kept[service["serviceName"]])


class Associations:
    """SSM: moto has documents, and no associations that have an instance run them.

    https://docs.aws.amazon.com/systems-manager/latest/APIReference/API_CreateAssociation.html
    """

    def __init__(self) -> None:
        self._kept: dict[str, dict[str, Any]] = {}
        self._tags: dict[str, dict[str, str]] = defaultdict(dict)

    def answer(self, call: AwsCall, environ: WSGIEnvironment, forward: Forward) -> Response:
        request = _request(call)
        if request.get("ResourceType") == "Association":
            return self._tag(call.action, request)
        match call.action:
            case "CreateAssociation":
                association_id = str(uuid.uuid4())
                self._tags[association_id].update({tag["Key"]: tag["Value"] for tag in request.pop("Tags", [])})
                overview = {"Status": "Pending"}
                self._kept[association_id] = {**request, "AssociationId": association_id, "Overview": overview}
            case "UpdateAssociation":
                association_id = request["AssociationId"]
                self._kept[association_id].update(request)
            case "DescribeAssociation":
                association_id = request["AssociationId"]
            case "DeleteAssociation":
                del self._kept[request["AssociationId"]]
                return _json({})
            case "ListAssociations":
                return _json({"Associations": list(self._kept.values())})
            case _:
                return forward(environ)
        if association_id not in self._kept:
            return _json({"__type": "AssociationDoesNotExist"}, status=400)
        return _json({"AssociationDescription": self._kept[association_id]})

    def _tag(self, action: str, request: dict[str, Any]) -> Response:
        tags = self._tags[request["ResourceId"]]
        if action == "ListTagsForResource":
            return _json({"TagList": [{"Key": key, "Value": value} for key, value in tags.items()]})
        tags.update({tag["Key"]: tag["Value"] for tag in request.get("Tags", [])})
        for key in request.get("TagKeys", []):
            tags.pop(key, None)
        return _json({})


class SecurityGroupRules:
    """EC2: moto keeps a rule's description only where its other end is a range of addresses, not a group.

    https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_AuthorizeSecurityGroupIngress.html
    https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_SecurityGroupRule.html
    """

    _ID = re.compile(r"<securityGroupRuleId>(sgr-\w+)</securityGroupRuleId>")

    def __init__(self) -> None:
        self._descriptions: dict[str, str] = {}

    def answer(self, call: AwsCall, environ: WSGIEnvironment, forward: Forward) -> Response:
        response = forward(environ)
        if call.action.startswith("AuthorizeSecurityGroup") and response.status_code == 200:
            # The provider makes one rule per call.
            for description in call.form().get("IpPermissions.1.Groups.1.Description", []):
                self._descriptions.update(dict.fromkeys(self._ID.findall(response.get_data(as_text=True)), description))
        if call.action == "DescribeSecurityGroupRules":
            response.set_data(self._ID.sub(self._describe, response.get_data(as_text=True)))
        return response

    def _describe(self, found: re.Match[str]) -> str:
        description = self._descriptions.get(found[1])
        return found[0] if description is None else f"{found[0]}<description>{escape(description)}</description>"


def _request(call: AwsCall) -> dict[str, Any]:
    request: dict[str, Any] = json.loads(call.body) if call.speaks_json else {}
    return request


def _asking(request: dict[str, Any], environ: WSGIEnvironment) -> WSGIEnvironment:
    """The same call with another body."""
    body = json.dumps(request).encode()
    return {**environ, "wsgi.input": BytesIO(body), "CONTENT_LENGTH": str(len(body))}


def _changed(response: Response, change: Callable[[dict[str, Any]], None]) -> Response:
    """A successful answer with its body changed; its headers stay, above all AWS's request id."""
    if response.status_code == 200:
        answer = json.loads(response.get_data())
        change(answer)
        response.set_data(json.dumps(answer))
    return response


def _json(answer: dict[str, Any], *, status: int = 200) -> Response:
    return Response(json.dumps(answer), status, content_type="application/x-amz-json-1.0")
