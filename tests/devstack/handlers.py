"""Lambda handlers that a pretend runtime loads by name."""

import os
import time
from pathlib import Path
from typing import Any


def echo(event: Any, _context: Any) -> Any:
    return event


def describe_context(_event: Any, context: Any) -> dict[str, Any]:
    return {
        "request_id": context.aws_request_id,
        "function_name": context.function_name,
        "remaining_ms": context.get_remaining_time_in_millis(),
    }


def print_much(event: Any, _context: Any) -> Any:
    print("not an answer")
    return event


def refuse(event: Any, _context: Any) -> None:
    _count(event)
    raise PermissionError("not today")


def recover(event: Any, _context: Any) -> str:
    """Raises at its first two attempts."""
    attempts = _count(event)
    if attempts < 3:
        raise ConnectionError(f"attempt {attempts}")
    return "recovered"


def remember_process(_event: Any, _context: Any) -> int:
    return os.getpid()


def return_a_set(_event: Any, _context: Any) -> Any:
    return {1}


def die(_event: Any, _context: Any) -> None:
    os._exit(3)


def sleep(event: dict[str, float], _context: Any) -> str:
    time.sleep(event["seconds"])
    return "slept"


def _count(event: dict[str, str]) -> int:
    attempts = Path(event["attempts"])
    with attempts.open("a") as file:
        file.write("x")
    return len(attempts.read_text())
