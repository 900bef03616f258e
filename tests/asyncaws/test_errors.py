from __future__ import annotations

from typing import Any, cast

import pytest
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionClosedError,
    CredentialRetrievalError,
    EndpointConnectionError,
    IncompleteReadError,
    MetadataRetrievalError,
    NoCredentialsError,
    ParamValidationError,
    PartialCredentialsError,
    ReadTimeoutError,
    SSLError,
)
from botocore.parsers import ResponseParserError

from lib.asyncaws.errors import (
    AuthenticationAwsError,
    AwsError,
    ConditionFailed,
    PermanentAwsError,
    ReceiptLost,
    TransientAwsError,
    translate,
)

URL = "http://127.0.0.1"


def refusal(code: str, *, status: int = 400, message: str = "", **members: Any) -> ClientError:
    answer = {
        "Error": {"Code": code, "Message": message},
        "ResponseMetadata": {"HTTPStatusCode": status},
        **members,
    }
    return ClientError(cast("Any", answer), "PutItem")


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("ThrottlingException", 400),
        ("ProvisionedThroughputExceededException", 400),
        ("RequestLimitExceeded", 503),
        ("RequestThrottled", 403),
        ("InsufficientInstanceCapacity", 500),
        ("IncorrectInstanceState", 400),
        ("SomethingNew", 500),
        ("SomethingNew", 503),
        ("SomethingNew", 429),
    ],
)
def test_what_may_succeed_later_is_transient(code: str, status: int) -> None:
    assert type(translate("PutItem", refusal(code, status=status))) is TransientAwsError


@pytest.mark.parametrize(
    "code",
    [
        "AccessDeniedException",
        "UnauthorizedOperation",
        "ValidationException",
        "ResourceNotFoundException",
        "AWS.SimpleQueueService.NonExistentQueue",
        "InvalidInstanceID.NotFound",
        "SomethingNew",
    ],
)
def test_what_the_operator_must_mend_is_permanent(code: str) -> None:
    assert type(translate("PutItem", refusal(code))) is PermanentAwsError


@pytest.mark.parametrize(
    "code",
    ["ExpiredTokenException", "UnrecognizedClientException", "InvalidSignatureException", "RequestExpired"],
)
def test_what_may_be_refused_while_credentials_change_is_told_apart(code: str) -> None:
    assert type(translate("PutItem", refusal(code))) is AuthenticationAwsError


@pytest.mark.parametrize(
    "error",
    [
        TimeoutError(),
        ConnectionResetError(),
        ConnectionClosedError(endpoint_url=URL),
        EndpointConnectionError(endpoint_url=URL, error="refused"),
        ReadTimeoutError(endpoint_url=URL),
        SSLError(endpoint_url=URL, error=OSError("expired")),
        IncompleteReadError(actual_bytes=1, expected_bytes=2),
        CredentialRetrievalError(provider="container-role", error_msg="timed out"),
        MetadataRetrievalError(error_msg="timed out"),
        NoCredentialsError(),
        PartialCredentialsError(provider="env", cred_var="AWS_SECRET_ACCESS_KEY"),
    ],
)
def test_an_error_on_the_way_is_transient(error: Exception) -> None:
    translated = translate("PutItem", error)
    assert type(translated) is TransientAwsError
    assert translated.code == type(error).__name__


@pytest.mark.parametrize("error", [ResponseParserError("not XML"), KeyError("Items"), TypeError("no object")])
def test_an_answer_that_makes_no_sense_is_none(error: Exception) -> None:
    translated = translate("PutItem", error)
    assert type(translated) is TransientAwsError
    assert translated.code == "Garbled"


@pytest.mark.parametrize("error", [ParamValidationError(report="no"), BotoCoreError()])
def test_an_error_of_our_own_making_is_permanent(error: Exception) -> None:
    assert type(translate("PutItem", error)) is PermanentAwsError


@pytest.mark.parametrize(
    "error",
    [
        refusal("MessageNotInflight"),
        refusal("AWS.SimpleQueueService.MessageNotInflight"),
        refusal("ReceiptHandleIsInvalid"),
        refusal("InvalidReceiptHandle"),
        refusal(
            "InvalidParameterValue",
            message="Value X for parameter ReceiptHandle is invalid. Reason: Message does not exist or is not "
            "available for visibility timeout change.",
        ),
        refusal(
            "InvalidParameterValue",
            message="Value 300 for parameter VisibilityTimeout is invalid. Reason: Total VisibilityTimeout for the "
            "message is beyond the limit [43200 seconds]",
        ),
    ],
)
def test_a_receipt_that_is_worth_nothing_any_more_is_lost(error: ClientError) -> None:
    assert type(translate("ChangeMessageVisibility", error)) is ReceiptLost


def test_a_lost_condition_carries_the_item_that_is_there() -> None:
    error = translate("PutItem", refusal("ConditionalCheckFailedException", Item={"task_id": {"S": "a"}}))
    assert isinstance(error, ConditionFailed)
    assert error.item == {"task_id": {"S": "a"}}


def test_a_lost_condition_on_nothing_carries_nothing() -> None:
    error = translate("UpdateItem", refusal("ConditionalCheckFailedException"))
    assert isinstance(error, ConditionFailed)
    assert error.item is None


def test_an_error_of_this_package_stays_itself() -> None:
    error = ReceiptLost("DeleteMessage", "MessageNotInflight", "")
    assert translate("Other", error) is error


def test_an_error_says_operation_code_and_message() -> None:
    error = translate("SendMessage", refusal("AWS.SimpleQueueService.NonExistentQueue", message="no such queue"))
    assert str(error) == "SendMessage: NonExistentQueue: no such queue"
    assert (error.operation, error.code) == ("SendMessage", "NonExistentQueue")


def test_an_error_without_a_message_ends_with_its_code() -> None:
    assert str(AwsError("PutItem", "Timeout", "")) == "PutItem: Timeout"


def test_an_answer_that_names_no_error_is_unknown_and_permanent() -> None:
    error = translate("PutItem", ClientError(cast("Any", {}), "PutItem"))
    assert type(error) is PermanentAwsError
    assert error.code == "Unknown"
