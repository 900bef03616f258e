"""AWS's error answers, in the wire format of the service that was asked."""

import json
import uuid
from dataclasses import dataclass
from xml.sax.saxutils import escape

from werkzeug.wrappers import Response

from services.devstack.emulator.aws_call import AwsCall

# https://docs.aws.amazon.com/AWSEC2/latest/APIReference/errors-overview.html lists these as server errors (5xx).
# It matters here: botocore retries a 5xx by itself.
_EC2_SERVER_ERRORS = {
    "InsufficientInstanceCapacity": 500,
    "InsufficientHostCapacity": 500,
    "InternalError": 500,
    "RequestLimitExceeded": 503,
    "ServiceUnavailable": 503,
    "Unavailable": 503,
}


@dataclass(frozen=True, slots=True)
class ErrorAnswer:
    """One AWS error: HTTP status, code and message."""

    status: int
    code: str
    message: str


# https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Programming.Errors.html
# https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/CommonErrors.html
# https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html
OUTAGES = {
    "dynamodb": ErrorAnswer(
        500, "InternalServerError", "The request processing has failed because of an unknown error."
    ),
    "sqs": ErrorAnswer(500, "InternalFailure", "The request processing has failed because of an unknown error."),
    "ec2": ErrorAnswer(503, "Unavailable", "The server is overloaded and can't handle the request."),
    "s3": ErrorAnswer(500, "InternalError", "We encountered an internal error. Please try again."),
}
THROTTLINGS = {
    "dynamodb": ErrorAnswer(400, "ThrottlingException", "Rate of requests exceeds the allowed throughput."),
    "sqs": ErrorAnswer(400, "RequestThrottled", "The request was denied due to request throttling."),
    "ec2": ErrorAnswer(503, "RequestLimitExceeded", "Request limit exceeded."),
    "s3": ErrorAnswer(503, "SlowDown", "Please reduce your request rate."),
}


def outage(service: str) -> ErrorAnswer:
    """What `service` says when it is down."""
    return OUTAGES.get(service, ErrorAnswer(500, "InternalFailure", "The request processing has failed."))


def throttling(service: str) -> ErrorAnswer:
    """What `service` says when it is asked too often."""
    return THROTTLINGS.get(service, ErrorAnswer(400, "ThrottlingException", "Rate exceeded"))


def named(service: str, code: str, message: str) -> ErrorAnswer:
    """An error by its code, with the status that code has."""
    status = _EC2_SERVER_ERRORS.get(code, 400) if service == "ec2" else 400
    return ErrorAnswer(status, code, message)


def respond(call: AwsCall, error: ErrorAnswer) -> Response:
    """`error` as the service of `call` writes it."""
    request_id = str(uuid.uuid4())
    if call.speaks_json:
        return _json_error(call, error, request_id)
    if call.service == "ec2":
        return _ec2_error(error, request_id)
    body = (
        '<?xml version="1.0" encoding="UTF-8"?>'
        f"<Error><Code>{escape(error.code)}</Code><Message>{escape(error.message)}</Message>"
        f"<RequestId>{request_id}</RequestId></Error>"
    )
    return Response(body, error.status, content_type="application/xml")


def _json_error(call: AwsCall, error: ErrorAnswer, request_id: str) -> Response:
    namespace = {"dynamodb": "com.amazonaws.dynamodb.v20120810"}.get(call.service, f"com.amazonaws.{call.service}")
    body = json.dumps({"__type": f"{namespace}#{error.code}", "message": error.message})
    headers = {"x-amzn-RequestId": request_id}
    if call.service == "sqs":
        # Keeps the error codes of the older Query protocol readable:
        # https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-json-faqs.html
        headers["x-amzn-query-error"] = f"{error.code};{'Receiver' if error.status >= 500 else 'Sender'}"
    return Response(body, error.status, headers, content_type="application/x-amz-json-1.0")


def _ec2_error(error: ErrorAnswer, request_id: str) -> Response:
    body = (
        '<?xml version="1.0" encoding="UTF-8"?><Response><Errors><Error>'
        f"<Code>{escape(error.code)}</Code><Message>{escape(error.message)}</Message>"
        f"</Error></Errors><RequestID>{request_id}</RequestID></Response>"
    )
    return Response(body, error.status, content_type="text/xml;charset=UTF-8")
