"""AWS's way to say no."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class Refusal(Exception):
    """An error answer.

    Attributes:
        members: of its JSON besides type and message.
    """

    def __init__(self, status: int, code: str, message: str, members: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.members = members or {}
