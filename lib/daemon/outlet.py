"""Where lines leave a process without holding it up, whoever reads them."""

from __future__ import annotations

import os
import select
import threading
from collections import deque
from collections.abc import Callable

Write = Callable[[bytes], None]

# A minute of the busiest service; beyond it the reader is not late but gone.
_MOST_ENTRIES = 10_000
_MOST_BYTES = 16 * 1024 * 1024
# What a process that ends gives its reader to take the last lines.
_PATIENCE_S = 2.0


class Outlet:
    """Takes an entry at once, and writes it from a thread of its own.

    A pipe or a socket that nobody reads blocks its writer; on the event loop that would be every request, every
    heartbeat and the answer to SIGTERM. Here it costs entries instead: beyond a bound they are dropped and counted, and
    the next entry that can be written is preceded by how many.

    Attributes:
        write: writes one entry and may block; an `OSError` of it counts as a dropped entry.
        notice: the entry that says how many were dropped.
    """

    def __init__(
        self,
        write: Write,
        *,
        notice: Callable[[int], bytes],
        most_entries: int = _MOST_ENTRIES,
        most_bytes: int = _MOST_BYTES,
    ) -> None:
        self._write = write
        self._notice = notice
        self._most_entries = most_entries
        self._most_bytes = most_bytes
        self._changed = threading.Condition()
        self._waiting: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._dropped = 0
        self._is_closing = False
        # A daemon, so that a reader that never reads does not keep an ended process alive either.
        self._writer = threading.Thread(target=self._run, name="outlet", daemon=True)
        self._writer.start()

    def put(self, entry: bytes) -> None:
        """Write it soon, or drop it. Never waits."""
        with self._changed:
            is_full = len(self._waiting) >= self._most_entries or self._waiting_bytes + len(entry) > self._most_bytes
            if is_full or self._is_closing:
                self._dropped += 1
                return
            self._waiting.append(entry)
            self._waiting_bytes += len(entry)
            self._changed.notify()

    def drop(self) -> None:
        """Count an entry that could not even be made."""
        with self._changed:
            self._dropped += 1

    def close(self, *, patience_s: float = _PATIENCE_S) -> None:
        """Take no more, and give what waits a moment to be written."""
        with self._changed:
            self._is_closing = True
            self._changed.notify()
        self._writer.join(patience_s)

    def _run(self) -> None:
        while (entry := self._next()) is not None:
            try:
                self._write(entry)
            except OSError:
                self.drop()

    def _next(self) -> bytes | None:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._is_closing)
            if not self._waiting and not self._dropped:
                return None
            if self._dropped and (self._waiting or self._is_closing):
                dropped, self._dropped = self._dropped, 0
                return self._notice(dropped)
            entry = self._waiting.popleft()
            self._waiting_bytes -= len(entry)
            return entry


def to_descriptor(number: int) -> Write:
    """Writes to an open file, without Python's own buffer: a blocked thread would keep its lock until the very end."""

    def write(entry: bytes) -> None:
        left = memoryview(entry)
        while left:
            try:
                left = left[os.write(number, left) :]
            except BlockingIOError:
                select.select((), (number,), ())

    return write
