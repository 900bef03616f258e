"""Which AWS call a request is: read from its signature, its target header or its form."""

import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias
from urllib.parse import parse_qs
from wsgiref.types import WSGIEnvironment

from werkzeug.wrappers import Response

Forward: TypeAlias = Callable[[WSGIEnvironment], Response]
"""Has moto answer a request."""

_CREDENTIAL_SCOPE = re.compile(r"Credential=[^/]+/\d{8}/(?P<region>[^/]+)/(?P<service>[^/]+)/aws4_request")
_READABLE_TYPES = ("application/x-www-form-urlencoded", "application/x-amz-json-")


@dataclass(frozen=True, slots=True)
class AwsCall:
    """One request to AWS. `body` is empty for S3, whose payloads are streamed and nobody's business here."""

    service: str
    action: str
    region: str
    body: bytes
    speaks_json: bool

    def form(self) -> dict[str, list[str]]:
        """The parameters of a Query API request."""
        return parse_qs(self.body.decode("utf-8", "replace"))


def identify(environ: WSGIEnvironment) -> AwsCall:
    """Name the call and leave `wsgi.input` readable for whoever answers it.

    The credential scope of a Signature Version 4 header names service and region:
    https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-authentication-methods.html
    An unsigned request is taken for S3, the only service here that is read anonymously.
    """
    scope = _CREDENTIAL_SCOPE.search(str(environ.get("HTTP_AUTHORIZATION", "")))
    content_type = str(environ.get("CONTENT_TYPE", ""))
    body = _take_body(environ) if content_type.startswith(_READABLE_TYPES) else b""
    return AwsCall(
        service=scope["service"] if scope else "s3",
        action=_action(environ, body),
        region=scope["region"] if scope else "us-east-1",
        body=body,
        speaks_json="json" in content_type,
    )


def _take_body(environ: WSGIEnvironment) -> bytes:
    body: bytes = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    environ["wsgi.input"] = io.BytesIO(body)
    return body


def _action(environ: WSGIEnvironment, body: bytes) -> str:
    target = str(environ.get("HTTP_X_AMZ_TARGET", ""))
    if target:
        return target.rpartition(".")[2]
    if body:
        return parse_qs(body.decode("utf-8", "replace")).get("Action", ["?"])[0]
    return str(environ["REQUEST_METHOD"])
