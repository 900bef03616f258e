"""ComfyUI's own queue and history, and its port, which answers whatever the Unified API does."""

import itertools
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit
from uuid import uuid4

_OUTPUT_NODE = "80"


class Prompts:
    """What `/queue` and `/history` say. Written by the thread that runs jobs, read by those that answer.

    Args:
        orphan_runs: whether a prompt of an earlier process still runs.
    """

    def __init__(self, orphan_runs: Callable[[], bool]) -> None:
        self._orphan_runs = orphan_runs
        self._numbers = itertools.count()
        self._lock = threading.Lock()
        self._running: list[Any] | None = None
        self._history: dict[str, Any] = {}

    @contextmanager
    def running(self, file_names: list[str]) -> Iterator[None]:
        """For the time of the block a prompt with these input files runs; then it is in the history, as it ended."""
        prompt = self._queued(file_names)
        with self._lock:
            self._running = prompt
        error: Exception | None = None
        try:
            yield
        except Exception as exc:
            error = exc
            raise
        finally:
            with self._lock:
                # Gone already if ComfyUI died meanwhile.
                if self._running is prompt:
                    self._running = None
                    self._history[prompt[1]] = _entry(prompt, error)

    def forget(self) -> None:
        """ComfyUI has died: its queue and history live in its memory."""
        with self._lock:
            self._running = None
            self._history.clear()

    def queue(self) -> dict[str, Any]:
        """The answer of `/queue`."""
        with self._lock:
            running = [self._running] if self._running else []
        if not running and self._orphan_runs():
            running = [self._queued(["orphan_input.jpg"])]
        return {"queue_running": running, "queue_pending": []}

    def history(self, most: int | None) -> dict[str, Any]:
        """The answer of `/history`: the last `most` entries."""
        with self._lock:
            entries = list(self._history.items())
        return dict(entries if most is None else entries[max(len(entries) - most, 0) :])

    def _queued(self, file_names: list[str]) -> list[Any]:
        loaders = [{"class_type": "LoadImage", "inputs": {"image": name}} for name in file_names]
        graph: dict[str, Any] = {str(node): loader for node, loader in enumerate(loaders, 78)}
        graph["31"] = {"class_type": "KSampler", "inputs": {"steps": 8, "cfg": 1.0}}
        return [next(self._numbers), str(uuid4()), graph, {"client_id": str(uuid4())}, [_OUTPUT_NODE]]


def _entry(prompt: list[Any], error: Exception | None) -> dict[str, Any]:
    prompt_id = prompt[1]
    messages: list[list[Any]] = [["execution_start", {"prompt_id": prompt_id}]]
    outputs: dict[str, Any] = {}
    if error is None:
        image = {"filename": "ComfyUI_00001_.png", "subfolder": "", "type": "output"}
        outputs[_OUTPUT_NODE] = {"images": [image]}
        messages.append(["execution_success", {"prompt_id": prompt_id}])
    else:
        told = {"prompt_id": prompt_id, "node_id": "31", "node_type": "KSampler", "exception_message": str(error)}
        messages.append(["execution_error", told])
    status = {"status_str": "error" if error else "success", "completed": error is None, "messages": messages}
    return {"prompt": prompt, "outputs": outputs, "status": status, "meta": {}}


def serve(port: int, prompts: Prompts, *, is_up: Callable[[], bool]) -> ThreadingHTTPServer:
    """Answer `/queue` and `/history` at 127.0.0.1 on threads of their own. While ComfyUI is down connections break."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if not is_up():
                return
            address = urlsplit(self.path)
            most = parse_qs(address.query).get("max_items")
            match address.path:
                case "/queue":
                    self._answer(200, prompts.queue())
                case "/history":
                    self._answer(200, prompts.history(int(most[0]) if most else None))
                case _:
                    self._answer(404, {})

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
            """The log is the jobs'."""

        def _answer(self, status: int, content: dict[str, Any]) -> None:
            body = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    threading.Thread(target=server.serve_forever, name="comfyui-port", daemon=True).start()
    return server
