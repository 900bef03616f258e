"""`python -m bench.endpoint PORT`."""

from __future__ import annotations

import asyncio
import sys

from bench.endpoint.aws import Aws
from bench.http_server import serve

if __name__ == "__main__":
    asyncio.run(serve(Aws().handle, int(sys.argv[1])))
