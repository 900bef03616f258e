"""Loopback ports that stay ours while their server is being started, or started again."""

import socket
import sys
from types import TracebackType
from typing import Self


class ReservedPort:
    """A port nobody else is given, though a server of ours may listen on it.

    A socket that is bound, but does not listen, keeps the kernel from handing the port to anybody who asks for a free
    one; a server that names the port and sets SO_REUSEADDR (uvicorn, werkzeug and asyncio do) gets it all the same.
    Other systems than Linux do not allow the second half, so there the port is given back at once.
    """

    def __init__(self, port: int = 0) -> None:
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.bind(("127.0.0.1", port))
        self.number: int = self._socket.getsockname()[1]
        if sys.platform != "linux":
            self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()
