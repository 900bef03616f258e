"""`python -m services.devstack.emulator`: emulated AWS on a loopback port until SIGTERM."""

import argparse
import logging
import os
import signal
import sys
from types import FrameType

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import make_server

from services.devstack.emulator.app import EmulatedAws
from services.devstack.emulator.comparisons import compare_types_first


class QuietRequestHandler(MotoRequestHandler):  # type: ignore[misc] # moto has no types
    """Says nothing about requests; errors still go to stderr."""

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Drop the access log: the call counters say more."""


def main() -> None:
    """Serve until SIGTERM or SIGINT, then exit 0."""
    options = _parse(sys.argv[1:])
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    compare_types_first()
    os.environ.setdefault("MOTO_PORT", str(options.port))
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _exit)
    app = EmulatedAws(
        moto=DomainDispatcherApplication(create_backend_app),
        region=options.region,
        pending_s=options.pending_s,
        power_cut_s=options.power_cut_s,
    )
    server = make_server("127.0.0.1", options.port, app, threaded=True, request_handler=QuietRequestHandler)
    print(f"http://127.0.0.1:{server.port}", flush=True)
    server.serve_forever()


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m services.devstack.emulator", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="loopback port; 0 takes a free one and prints it")
    parser.add_argument("--region", default="us-east-1", help="the region whose queues and instances /devstack/ shows")
    parser.add_argument("--pending-s", type=float, default=2.0, help="seconds an instance stays `pending`")
    parser.add_argument("--power-cut-s", type=float, default=120.0, help="seconds a stop may last before power is cut")
    return parser.parse_args(arguments)


def _exit(_number: int, _frame: FrameType | None) -> None:
    sys.exit(0)


if __name__ == "__main__":
    main()
