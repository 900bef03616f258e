"""`python -m services.devstack.lambda_runtime HANDLER TIMEOUT_S`: a warm pretend Lambda environment.

Loads the handler by its string (`package.module.function`), as AWS does, and says `{"ready": true}`. Then one JSON
event per line on stdin gives one JSON line on stdout: `{"ok": result}` or `{"error": {"type", "message"}}`. Whatever
the handler prints or logs goes to stderr. Ends at the end of stdin.

https://docs.aws.amazon.com/lambda/latest/dg/python-handler.html, https://docs.aws.amazon.com/lambda/latest/dg/python-context.html
"""

import contextlib
import importlib
import json
import sys
import time
import traceback
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TextIO, TypeAlias

Handler: TypeAlias = Callable[[Any, "Context"], Any]


@dataclass(frozen=True, slots=True)
class Context:
    """The part of AWS's context object that handlers use."""

    function_name: str
    aws_request_id: str
    ends_at_s: float
    function_version: str = "$LATEST"
    memory_limit_in_mb: str = "128"

    def get_remaining_time_in_millis(self) -> int:
        """Milliseconds until the invocation is cut off."""
        return max(0, int((self.ends_at_s - time.monotonic()) * 1000))


def main() -> None:
    """Serve events until stdin ends; exit 1 if the handler cannot be loaded."""
    handler_name, timeout_s = sys.argv[1], float(sys.argv[2])
    answers = sys.stdout
    with contextlib.redirect_stdout(sys.stderr):
        try:
            handler = load_handler(handler_name)
        except Exception as error:  # as Lambda does, whatever importing the handler raises
            traceback.print_exc()
            _write(answers, {"error": describe(error)})
            sys.exit(1)
        _write(answers, {"ready": True})
        for line in sys.stdin:
            _write(answers, invoke(handler, json.loads(line), handler_name, timeout_s))


def load_handler(name: str) -> Handler:
    """The function `name` stands for.

    Raises:
        ImportError, AttributeError: as AWS reports them (`Runtime.ImportModuleError`, `Runtime.HandlerNotFound`).
    """
    module, _, function = name.rpartition(".")
    handler: Handler = getattr(importlib.import_module(module), function)
    return handler


def invoke(handler: Handler, event: Any, name: str, timeout_s: float) -> dict[str, Any]:
    """One invocation; what the handler raises becomes an answer, and so does a result that is not JSON."""
    context = Context(name.rpartition(".")[2], str(uuid.uuid4()), time.monotonic() + timeout_s)
    try:
        result = handler(event, context)
        json.dumps(result)
    except Exception as error:  # as Lambda does, whatever the handler raises
        traceback.print_exc()
        return {"error": describe(error)}
    return {"ok": result}


def describe(error: Exception) -> dict[str, str]:
    """Type and message, as in an invocation's error payload."""
    return {"type": type(error).__name__, "message": str(error)}


def _write(answers: TextIO, answer: dict[str, Any]) -> None:
    answers.write(json.dumps(answer) + "\n")
    answers.flush()


if __name__ == "__main__":
    main()
