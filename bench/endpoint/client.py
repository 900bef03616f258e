"""What the bench itself says to the endpoint."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from bench.endpoint.conduct import Conduct
from bench.http_client import Client, request


class EndpointControl:
    """Sets the endpoint's conduct and reads its books."""

    def __init__(self, port: int) -> None:
        self._port = port

    async def conduct(self, conduct: Conduct) -> None:
        """From now on calls are treated like that."""
        await self._ask("POST", "/bench/conduct", asdict(conduct))

    async def reset(self) -> None:
        """Forget all items and messages. The conduct stays."""
        await self._ask("POST", "/bench/reset")

    async def fill(self, item: Mapping[str, Any], count: int, *, queue_url: str | None = None, body: str = "") -> None:
        """Put `count` copies of a task's item of typed attributes into the table, and their messages into a queue."""
        members = {"item": item, "count": count, "queue_url": queue_url, "body": body}
        await self._ask("POST", "/bench/fill", members)

    async def books(self) -> dict[str, Any]:
        """`calls` and `usage` by operation, `completed_at` by task (monotonic seconds), `depths` by queue URL."""
        answer: dict[str, Any] = await self._ask("GET", "/bench/books")
        return answer

    async def _ask(self, method: str, path: str, members: Any = None) -> Any:
        async with Client(self._port) as client:
            answer = await client.ask(request(method, path, json.dumps(members).encode()))
        return json.loads(answer.body)
