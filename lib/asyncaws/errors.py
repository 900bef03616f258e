"""What went wrong at AWS, as the decision the caller has to take."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    HTTPClientError,
    IncompleteReadError,
    MetadataRetrievalError,
    NoCredentialsError,
    PartialCredentialsError,
)
from botocore.exceptions import ConnectionError as AwsConnectionError

# https://docs.aws.amazon.com/general/latest/gr/api-retries.html and the throttling codes in botocore.retries.standard.
_TRANSIENT_CODES = frozenset(
    {
        "InsufficientInstanceCapacity",
        "IncorrectInstanceState",
        "InternalError",
        "InternalFailure",
        "InternalServerError",
        "ItemCollectionSizeLimitExceededException",
        "LimitExceededException",
        "PriorRequestNotComplete",
        "ProvisionedThroughputExceededException",
        "RequestLimitExceeded",
        "RequestThrottled",
        "RequestThrottledException",
        "RequestTimeout",
        "RequestTimeoutException",
        "ServiceUnavailable",
        "SlowDown",
        "Throttling",
        "ThrottlingException",
        "ThrottledException",
        "TooManyRequestsException",
        "TransactionInProgressException",
        "Unavailable",
    }
)

# Refused over who asks or when: a session token that is just being renewed, a clock that is just being set.
# https://docs.aws.amazon.com/IAM/latest/APIReference/CommonErrors.html
_AUTHENTICATION_CODES = frozenset(
    {
        "AuthFailure",
        "ExpiredToken",
        "ExpiredTokenException",
        "IncompleteSignature",
        "IncompleteSignatureException",
        "InvalidAccessKeyId",
        "InvalidClientTokenId",
        "InvalidSignatureException",
        "MissingAuthenticationToken",
        "MissingAuthenticationTokenException",
        "RequestExpired",
        "RequestTimeTooSkewed",
        "SignatureDoesNotMatch",
        "UnrecognizedClientException",
    }
)

# The message is no longer ours: its visibility ran out, it was deleted, or its 12 hours are over.
# https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_ChangeMessageVisibility.html
_RECEIPT_CODES = frozenset({"MessageNotInflight", "ReceiptHandleIsInvalid", "InvalidReceiptHandle"})
# Where the code is only InvalidParameterValue, these words of its message say so.
_RECEIPT_PHRASES = ("not available for visibility timeout change", "VisibilityTimeout for the message is beyond")

# Besides what the network does: credentials come over HTTP, too, from a metadata service that may have a bad moment.
_TRANSIENT_CAUSES = (
    TimeoutError,
    OSError,
    AwsConnectionError,
    HTTPClientError,
    IncompleteReadError,
    CredentialRetrievalError,
    MetadataRetrievalError,
    NoCredentialsError,
    PartialCredentialsError,
)


GARBLED = "Garbled"
"""The code of an answer that makes no sense, so that it is none."""


class AwsError(Exception):
    """A call to AWS that had no success.

    Attributes:
        operation: what was called, e.g. ``PutItem``.
        code: AWS's own error code, or the class of the local error.
    """

    def __init__(self, operation: str, code: str, message: str) -> None:
        super().__init__(f"{operation}: {code}: {message}" if message else f"{operation}: {code}")
        self.operation = operation
        self.code = code


class TransientAwsError(AwsError):
    """Throttled, timed out, unreachable or short of capacity: the same call may succeed later."""


class PermanentAwsError(AwsError):
    """Denied, malformed or missing: repeating does not help, the operator has to look."""


class AuthenticationAwsError(PermanentAwsError):
    """Refused over credentials or clock. With rotated credentials that may pass within seconds, with static ones it
    does not: whoever has something to lose repeats the call for a while.
    """


class ConditionFailed(AwsError):
    """A conditional write lost: the record is not as the writer assumed.

    Attributes:
        item: the record as it was instead (DynamoDB's ``ALL_OLD``); None if there is none.
    """

    def __init__(self, operation: str, item: Mapping[str, Any] | None) -> None:
        super().__init__(operation, "ConditionalCheckFailedException", "")
        self.item = item


class ReceiptLost(AwsError):
    """The message behind a receipt handle is no longer ours: publish nothing more about it."""


def translate(operation: str, error: BaseException) -> AwsError:
    """The error of this package that stands for a foreign one."""
    if isinstance(error, AwsError):
        return error
    if isinstance(error, ClientError):
        return _translate_answer(operation, error)
    message = str(error)
    if isinstance(error, _TRANSIENT_CAUSES):
        return TransientAwsError(operation, type(error).__name__, message)
    if isinstance(error, BotoCoreError):
        return PermanentAwsError(operation, type(error).__name__, message)
    # An answer nobody can parse (a proxy's HTML, half a body, no object): nothing is known of its effect.
    return TransientAwsError(operation, GARBLED, repr(error))


def _translate_answer(operation: str, error: ClientError) -> AwsError:
    details = error.response.get("Error", {})
    code = details.get("Code", "Unknown").removeprefix("AWS.SimpleQueueService.")
    message = details.get("Message", "")
    if code == "ConditionalCheckFailedException":
        raw: Any = error.response
        return ConditionFailed(operation, raw.get("Item"))
    if code in _RECEIPT_CODES or any(phrase in message for phrase in _RECEIPT_PHRASES):
        return ReceiptLost(operation, code, message)
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    if code in _TRANSIENT_CODES or status >= 500 or status == 429:
        return TransientAwsError(operation, code, message)
    if code in _AUTHENTICATION_CODES:
        return AuthenticationAwsError(operation, code, message)
    return PermanentAwsError(operation, code, message)
