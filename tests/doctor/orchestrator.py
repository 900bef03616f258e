"""What the doctor sees of an orchestrator: two paths and their statuses."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import cast


class Orchestrator(ThreadingHTTPServer):
    """Answers as told by `statuses`."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.statuses = {"/health": 200, "/ready": 200}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(cast("Orchestrator", self.server).statuses[self.path])
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def orchestrator_on_loopback() -> Iterator[Orchestrator]:
    orchestrator = Orchestrator()
    thread = threading.Thread(target=orchestrator.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield orchestrator
    finally:
        orchestrator.shutdown()
        thread.join()
        orchestrator.server_close()
