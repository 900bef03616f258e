"""What ComfyUI's own answers say of a Unified API that does not tell how a job ended. Pure.

The Unified API queues a prompt before it listens for the end, so it never hears of one that ends first. ComfyUI then
has nothing to do and knows the end: its input's file name starts with the Unified API's id of the job.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Ended:
    """How a prompt ended; without an error it made its pictures."""

    error: str | None = None


@dataclass(frozen=True, slots=True)
class Sight:
    """ComfyUI at one moment. `ended`: how the job in question did, None if it is not known to have ended."""

    is_idle: bool
    ended: Ended | None


def is_idle(queue: Any) -> bool:
    """Whether `/queue` says that nothing runs and nothing waits; nonsense says neither."""
    return isinstance(queue, dict) and queue.get("queue_running") == queue.get("queue_pending") == []


def end_of(history: Any, job_id: str) -> Ended | None:
    """How the prompt of this job ended, by `/history`: the last one, should it have been queued again."""
    if not isinstance(history, dict):
        return None
    ends = [_end(entry) for entry in history.values() if any(_is_of(name, job_id) for name in _texts(entry))]
    return ends[-1] if ends else None


def wedged_since(before: float | None, sight: Sight | None, *, now: float) -> float | None:
    """Since when each look has found ComfyUI idle and the job ended there; a look that failed changes nothing."""
    if sight is None:
        return before
    if not sight.is_idle or sight.ended is None:
        return None
    return now if before is None else before


def verdict(sight: Sight | None, since: float | None, *, now: float, after_s: float) -> Ended | None:
    """The job's true end, once the Unified API has had `after_s` to tell it: uploading takes a while. None: wait on."""
    if sight is None or since is None or now - since < after_s:
        return None
    return sight.ended


def _is_of(file_name: str, job_id: str) -> bool:
    return file_name.startswith(f"{job_id}_")


def _texts(entry: Any) -> Iterator[str]:
    """Every text among the inputs of the entry's graph: `[number, id, graph, ...]`."""
    prompt = entry.get("prompt") if isinstance(entry, dict) else None
    graph = prompt[2] if isinstance(prompt, list) and len(prompt) > 2 else None
    for node in graph.values() if isinstance(graph, dict) else ():
        inputs = node.get("inputs") if isinstance(node, dict) else None
        yield from (value for value in (inputs.values() if isinstance(inputs, dict) else ()) if isinstance(value, str))


def _end(entry: Mapping[str, Any]) -> Ended:
    status = entry.get("status")
    known = status if isinstance(status, dict) else {}
    if known.get("status_str") == "success":
        return Ended()
    messages = known.get("messages")
    told = [_told(message) for message in (messages if isinstance(messages, list) else ())]
    return Ended(next((text for text in told if text), "ComfyUI gave no reason"))


def _told(message: Any) -> str | None:
    if not isinstance(message, list) or len(message) != 2:
        return None
    name, facts = message
    if name == "execution_interrupted":
        return "interrupted in ComfyUI"
    if name != "execution_error" or not isinstance(facts, dict):
        return None
    return f"{facts.get('node_type', 'a node')}: {facts.get('exception_message', 'no reason given')}".strip()
