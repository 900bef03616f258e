"""How many submissions may be under way at once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from services.orchestrator.errors import Unavailable

_RETRY_AFTER_S = 1


class Admission:
    """Turns away at once what would only queue for longer than the promised second.

    A submission costs over a millisecond of processor; on the quarter of one that AWS gives by default, 128 take 0.7 s.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._taken = 0

    @contextmanager
    def slot(self) -> Iterator[None]:
        """Hold one of the places.

        Raises:
            Unavailable: all are taken.
        """
        if self._taken >= self._limit:
            raise Unavailable(_RETRY_AFTER_S, "Too many submissions at once")
        self._taken += 1
        try:
            yield
        finally:
            self._taken -= 1
