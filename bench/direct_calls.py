"""The AWS calls behind a request, without a server: what the server's own time is measured against."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from bench.figures import Sample
from services.devstack.processes import OwnedProcess


async def through_asyncaws(process: OwnedProcess, kind: str, *, clients: int, seconds: float) -> Sample:
    """One window of a running `bench.asyncaws_calls`."""
    answer = await ask(process, {"kind": kind, "clients": clients, "seconds": seconds})
    return Sample(statuses={200: len(answer["latencies_s"])}, **answer)


async def ask(process: OwnedProcess, order: Mapping[str, Any]) -> dict[str, Any]:
    """Give an order to a process of the bench that reads a JSON line and answers with one."""
    process.stdin.write(json.dumps(order).encode() + b"\n")
    chunks = bytearray()
    while not chunks.endswith(b"\n"):
        chunk = await process.stdout.read(1 << 16)
        if not chunk:
            raise RuntimeError(f"{process.name} ended\n{process.log_tail()}")
        chunks += chunk
    answer: dict[str, Any] = json.loads(chunks)
    return answer
