"""Logs that tell a story: structured events to a terminal, to JSON lines, or to the journal."""

from __future__ import annotations

import logging
import sys
from abc import ABC, abstractmethod
from collections.abc import MutableMapping
from enum import StrEnum
from typing import Any

import structlog
from structlog.types import Processor

from lib.daemon.journal import SOCKET_PATH, JournalSender, encode_entry
from lib.daemon.log_quota import LogQuota
from lib.daemon.outlet import Outlet, Write, to_descriptor

Event = MutableMapping[str, Any]

_STANDARD_ERROR = 2


class LogLevel(StrEnum):
    DEBUG = "DEBUG"
    INFO = "INFO"
    WARNING = "WARNING"
    ERROR = "ERROR"


class LogFormat(StrEnum):
    CONSOLE = "console"
    JSON = "json"
    JOURNAL = "journal"


def configure_logging(service: str, *, form: LogFormat, level: str, journal_path: str = SOCKET_PATH) -> None:
    """Send this process's events, and those of its libraries, one way. Call once, from `__main__`.

    Args:
        level: name of the lowest level that is shown, e.g. ``INFO``. Libraries are shown from ``WARNING`` on.
    """
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="at"),
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler, form = _handler(form, journal_path)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=_renderers(service, form),
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.WARNING)
    for ours in ("lib", "services", "__main__"):
        logging.getLogger(ours).setLevel(level)


def _renderers(service: str, form: LogFormat) -> list[Processor]:
    without_meta = structlog.stdlib.ProcessorFormatter.remove_processors_meta
    match form:
        case LogFormat.CONSOLE:
            plain = structlog.dev.plain_traceback
            return [without_meta, structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=plain)]
        case LogFormat.JSON:
            # Frame locals could carry a client's prompt or a key into the log.
            transformer = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
            return [
                without_meta,
                _naming(service),
                structlog.processors.ExceptionRenderer(transformer),
                structlog.processors.JSONRenderer(),
            ]
        case LogFormat.JOURNAL:
            return [_naming(service), structlog.processors.format_exc_info, _journal_line]


def _naming(service: str) -> Processor:
    def name(_logger: Any, _method: str, event: Event) -> Event:
        event["service"] = service
        return event

    return name


def _handler(form: LogFormat, journal_path: str) -> tuple[_Handler, LogFormat]:
    """Where the lines go, and the form they have there: without a journal that of the console."""
    if form is not LogFormat.JOURNAL:
        return _LineHandler(), form
    try:
        return _JournalHandler(journal_path), form
    except OSError as error:
        sys.stderr.write(f"no journal at {journal_path} ({error.strerror}): logging to the console instead\n")
        return _LineHandler(), LogFormat.CONSOLE


class _Handler(logging.Handler, ABC):
    """Formats in its caller, where the context is, and writes elsewhere: logging never waits for its reader."""

    def __init__(self, write: Write) -> None:
        super().__init__()
        self._outlet = Outlet(write, notice=self._notice)
        # Of warnings and errors: a fault that repeats by the thousand, or that clients cause, is told by its number.
        self._quota = LogQuota[str]()

    def emit(self, record: logging.LogRecord) -> None:
        self._tell_left_out()
        if record.levelno >= logging.WARNING and not self._quota.admit(f"{record.name}:{record.lineno}"):
            return
        try:
            self._outlet.put(self._encode(record))
        except Exception:  # the logging module's own rule: a handler never breaks its caller
            self._outlet.drop()

    def close(self) -> None:
        self._tell_left_out(is_last=True)
        self._outlet.close()
        super().close()

    def _tell_left_out(self, *, is_last: bool = False) -> None:
        for place, number in self._quota.left_out(is_last=is_last).items():
            self._outlet.put(self._own_line(f"{number} more lines of {place} were left out"))

    def _notice(self, dropped: int) -> bytes:
        return self._own_line(f"{dropped} lines were dropped, because nobody read them or they could not be written")

    def _own_line(self, text: str) -> bytes:
        return self._encode(logging.LogRecord(__name__, logging.WARNING, __file__, 0, text, (), None))

    @abstractmethod
    def _encode(self, record: logging.LogRecord) -> bytes: ...


class _LineHandler(_Handler):
    """Lines to standard error."""

    def __init__(self) -> None:
        super().__init__(to_descriptor(_STANDARD_ERROR))

    def _encode(self, record: logging.LogRecord) -> bytes:
        return f"{self.format(record)}\n".encode(errors="replace")


class _JournalHandler(_Handler):
    """Hands the fields of an event to the journal as fields. Raises OSError: there is no journal."""

    def __init__(self, path: str) -> None:
        super().__init__(JournalSender(path).send)

    def _encode(self, record: logging.LogRecord) -> bytes:
        # Formatting works on a copy of the record, which shares this dict.
        fields: dict[str, Any] = {}
        record.__dict__["journal_fields"] = fields
        line = self.format(record)
        return encode_entry(record.levelname.lower(), line, fields)


def _journal_line(_logger: Any, _method: str, event: Event) -> str:
    """A line for people; the fields go along beside it, see `_JournalHandler`."""
    fields = dict(event)
    title = str(fields.pop("event", ""))
    exception = fields.pop("exception", None)
    record: logging.LogRecord = fields.pop("_record")
    for known_to_the_journal in ("_from_structlog", "at", "level"):
        fields.pop(known_to_the_journal, None)
    record.__dict__["journal_fields"] |= {"event": title, **fields}
    line = " ".join([title, *(f"{key}={value}" for key, value in fields.items() if value is not None)])
    return f"{line}\n{exception}" if exception else line
