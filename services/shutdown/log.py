"""JSON lines on standard output, which the Lambda runtime hands to CloudWatch Logs as they are.

structlog is not in the runtime; the events look like the other services' all the same: dotted, past tense, one a line.
"""

import json
import logging
import sys
from contextvars import ContextVar
from datetime import UTC, datetime
from types import MappingProxyType

_logger = logging.getLogger("services.shutdown")
_bound: ContextVar[MappingProxyType[str, object]] = ContextVar("bound", default=MappingProxyType({}))


def configure(level: str) -> None:
    """Write to standard output, from ``level`` on, and nowhere else; a second cold start doubles nothing."""
    _logger.setLevel(level)
    _logger.handlers = [logging.StreamHandler(sys.stdout)]
    # The runtime's root handler would write each line again, behind a prefix that is not JSON.
    _logger.propagate = False


def bind(**fields: object) -> None:
    """Put these fields, and only these, on every line from now on."""
    _bound.set(MappingProxyType(fields))


def info(event: str, **fields: object) -> None:
    """Something happened as it should."""
    _write(logging.INFO, event, fields)


def warning(event: str, **fields: object) -> None:
    """Something happened that an operator may want to know."""
    _write(logging.WARNING, event, fields)


def _write(level: int, event: str, fields: dict[str, object]) -> None:
    if not _logger.isEnabledFor(level):
        return
    line = {
        "event": event,
        "level": logging.getLevelName(level).lower(),
        "timestamp": datetime.now(UTC).isoformat(timespec="milliseconds"),
        **_bound.get(),
        **fields,
    }
    _logger.log(level, json.dumps(line, default=str))
