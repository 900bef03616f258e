"""What the bench itself says to the endpoint."""

from __future__ import annotations

import json
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

    async def books(self) -> dict[str, Any]:
        """`calls` by operation, `completed_at` by task (monotonic seconds), `depths` by queue URL."""
        answer: dict[str, Any] = await self._ask("GET", "/bench/books")
        return answer

    async def _ask(self, method: str, path: str, members: Any = None) -> Any:
        async with Client(self._port) as client:
            answer = await client.ask(request(method, path, json.dumps(members).encode()))
        return json.loads(answer.body)
