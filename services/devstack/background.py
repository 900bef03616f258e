"""Tasks that run beside the body of an `async with` block."""

import asyncio
from collections.abc import Coroutine
from types import TracebackType
from typing import Any, Self


class Background:
    """Owns tasks for the length of the block. One that ends early interrupts the body, and its error is raised.

    Not a TaskGroup, because that wraps whatever the body raises (a failed assertion, say) in an ExceptionGroup.
    """

    def __init__(self) -> None:
        self._tasks: list[asyncio.Task[None]] = []
        self._owner: asyncio.Task[Any] | None = None
        self._interrupted = False
        self._closing = False

    async def __aenter__(self) -> Self:
        self._owner = asyncio.current_task()
        return self

    def start(self, work: Coroutine[Any, Any, None], *, name: str) -> None:
        """Run `work` until the block is left."""
        task = asyncio.create_task(work, name=name)
        task.add_done_callback(self._ended)
        self._tasks.append(task)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing = True
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        if self._interrupted and self._owner is not None:
            self._owner.uncancel()
        for task in self._tasks:
            if not task.cancelled():
                task.result()

    def _ended(self, task: asyncio.Task[None]) -> None:
        # In a pytest fixture the owner has ended by now; then the error is raised when the block is left.
        if self._closing or self._owner is None or self._owner.done():
            return
        self._interrupted = True
        self._owner.cancel(f"{task.get_name()} ended")
