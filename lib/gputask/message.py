"""A task as the queue carries it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

REQUEST_ID_ATTRIBUTE = "request_id"
MAX_MESSAGE_BYTES = 262_144
"""Attributes included, as the queue is made. SQS takes up to 1 MiB since 2025, Terraform's provider 5 does not."""
MAX_BODY_BYTES = MAX_MESSAGE_BYTES - 1024
"""Of a request body in ASCII: the rest is for the task's id, its path, and the attributes."""

_NON_ASCII = re.compile(r"[^\x00-\x7f]+")
_WHITE_SPACE = re.compile(r"[ \t\n\r]*")


class PoisonMessage(ValueError):
    """No task can be read from a message; delivering it again does not help."""


@dataclass(frozen=True, slots=True)
class TaskMessage:
    """`{"task_id", "api_path", "request_body"}`.

    Attributes:
        request_body: the JSON text of an object.
    """

    task_id: str
    api_path: str
    request_body: str

    def to_json(self) -> str:
        """ASCII JSON: SQS refuses some characters that JSON allows, and the escapes of it never.

        The body goes in as text, not through a parser: `1.0` stays `1.0` and the order of members stays.
        """
        head = json.dumps({"task_id": self.task_id, "api_path": self.api_path})
        return f'{head[:-1]}, "request_body": {escaped(self.request_body)}}}'

    @classmethod
    def from_json(cls, text: str) -> TaskMessage:
        """Parse a message body. The text of `request_body` stays as it is, too: no parser's floats go upstream.

        Raises:
            PoisonMessage: it is not JSON, or a member is missing or of the wrong type.
        """
        members = _object(text, parse_constant=_refuse)
        task_id, api_path = members.get("task_id"), members.get("api_path")
        if not isinstance(task_id, str) or not task_id:
            raise PoisonMessage("task_id is not a non-empty string")
        if not isinstance(api_path, str) or not api_path.startswith("/"):
            raise PoisonMessage("api_path is not a path")
        if not isinstance(members.get("request_body"), dict):
            raise PoisonMessage("request_body is not an object")
        return cls(task_id, api_path, _text_of_member(text, "request_body"))


def task_id_in(text: str) -> str | None:
    """The task a broken message speaks of, if that much can be read."""
    try:
        task_id = _object(text).get("task_id")
    except PoisonMessage:
        return None
    return task_id if isinstance(task_id, str) and task_id else None


def _object(text: str, *, parse_constant: Callable[[str], Any] | None = None) -> dict[str, Any]:
    try:
        members = json.loads(text, parse_constant=parse_constant)
    except (ValueError, RecursionError) as error:
        raise PoisonMessage(f"not JSON: {error}") from error
    if not isinstance(members, dict):
        raise PoisonMessage("not a JSON object")
    return members


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is Python's, not JSON's")


def _text_of_member(text: str, name: str) -> str:
    """How a member's value is written in the text of a JSON object that has it; the last one counts, as for parsers."""
    decoder = json.JSONDecoder()
    found = ""
    at = text.index("{")
    while text[at] != "}":
        key, at = decoder.raw_decode(text, _skip_white_space(text, at + 1))
        start = _skip_white_space(text, _skip_white_space(text, at) + len(":"))
        _, at = decoder.raw_decode(text, start)
        if key == name:
            found = text[start:at]
        at = _skip_white_space(text, at)
    return found


def _skip_white_space(text: str, at: int) -> int:
    match = _WHITE_SPACE.match(text, at)
    return match.end() if match else at


def escaped(text: str) -> str:
    """The same JSON in ASCII. Outside its strings JSON is ASCII, so every other character may become its escape."""
    return _NON_ASCII.sub(lambda match: json.dumps(match.group())[1:-1], text)
