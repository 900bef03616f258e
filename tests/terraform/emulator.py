"""Emulated AWS as Terraform needs it: the devstack's emulator with what moto lacks put right.

`python -m tests.terraform.emulator` serves on a loopback port, prints its address, and ends with its process.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server
from werkzeug.wrappers import Response

from services.devstack.emulator.__main__ import QuietRequestHandler
from services.devstack.emulator.app import EmulatedAws
from services.devstack.emulator.aws_call import identify
from tests.terraform.shims import Associations, EcsServices, Queues, ScalableTargets, SecurityGroupRules, Shim


class ShimmedAws:
    """A WSGI application before the emulator: one shim per AWS service that needs one."""

    def __init__(self, emulator: WSGIApplication) -> None:
        self._emulator = emulator
        self._shims: dict[str, Shim] = {
            "application-autoscaling": ScalableTargets().answer,
            "ec2": SecurityGroupRules().answer,
            "ecs": EcsServices().answer,
            "sqs": Queues().answer,
            "ssm": Associations().answer,
        }

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        # The devstack's own paths are no AWS calls; they are unsigned, and so taken for S3's.
        call = identify(environ)
        shim = self._shims.get(call.service)
        if shim is None:
            return self._emulator(environ, start_response)
        chunks: Iterable[bytes] = shim(call, environ, self._forward)(environ, start_response)
        return chunks

    def _forward(self, environ: WSGIEnvironment) -> Response:
        return Response.from_app(self._emulator, environ, buffered=True)


def main() -> None:
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    # https://docs.getmoto.org/en/latest/docs/configuration/environment_variables.html
    os.environ.update(MOTO_IAM_LOAD_MANAGED_POLICIES="true", MOTO_ACM_VALIDATION_WAIT="1")
    emulator = EmulatedAws(
        moto=DomainDispatcherApplication(create_backend_app), region="us-east-1", pending_s=1.0, power_cut_s=1.0
    )
    server = make_server("127.0.0.1", 0, ShimmedAws(emulator), threaded=True, request_handler=QuietRequestHandler)
    os.environ["MOTO_PORT"] = str(server.port)
    print(f"http://127.0.0.1:{server.port}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
