"""One request's way: named, counted, failed if that was ordered, then answered by moto or by our own EC2 and SQS."""

import socket
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from werkzeug.wrappers import Request, Response

from services.devstack.emulator.aws_call import AwsCall, identify
from services.devstack.emulator.calls import CallLog
from services.devstack.emulator.control import Control
from services.devstack.emulator.ec2 import Ec2
from services.devstack.emulator.errors import named, outage, respond, throttling
from services.devstack.emulator.faults import Fault, FaultPlan, Mode
from services.devstack.emulator.sqs import Sqs

# Longer than any client of ours waits for an answer.
_LONGEST_HANG_S = 300.0


class EmulatedAws:
    """The WSGI application in front of `moto`."""

    def __init__(self, *, moto: WSGIApplication, region: str, pending_s: float, power_cut_s: float) -> None:
        self._moto = moto
        self._calls = CallLog()
        self._faults = FaultPlan()
        self._ec2 = Ec2(pending_s=pending_s, power_cut_s=power_cut_s)
        self._sqs = Sqs()
        self._control = Control(region=region, calls=self._calls, faults=self._faults, ec2=self._ec2, sqs=self._sqs)
        # moto checks a condition and writes in two steps, so two threads may both win one conditional update.
        # https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/WorkingWithItems.html#WorkingWithItems.ConditionalUpdate
        self._dynamodb_lock = threading.Lock()

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if environ["PATH_INFO"].startswith("/devstack/"):
            return _send(self._control.answer(Request(environ)), environ, start_response)
        call = identify(environ)
        self._calls.note_attempt(call)
        fault = self._faults.take(call)
        response = self._answer(call, environ) if fault is None else self._fail(call, environ, fault)
        if response.status_code >= 400 or (fault and fault.mode in (Mode.DROP, Mode.GARBAGE)):
            self._calls.note_failure(call)
        return _send(response, environ, start_response)

    def _answer(self, call: AwsCall, environ: WSGIEnvironment) -> Response:
        match call.service:
            case "dynamodb":
                with self._dynamodb_lock:
                    return self._forward(environ)
            case "ec2":
                return self._ec2.answer(call, environ, self._forward)
            case "sqs":
                return self._sqs.answer(call, environ, self._forward)
            case _:
                return self._forward(environ)

    def _fail(self, call: AwsCall, environ: WSGIEnvironment, fault: Fault) -> Response:
        match fault.mode:
            case Mode.ERROR if fault.code:
                return respond(call, named(call.service, fault.code, fault.message))
            case Mode.ERROR:
                return respond(call, outage(call.service))
            case Mode.THROTTLE:
                return respond(call, throttling(call.service))
            case Mode.HANG:
                self._faults.wait_until_over(fault, limit_s=_LONGEST_HANG_S)
                return respond(call, outage(call.service))
            case Mode.SLOW:
                time.sleep(fault.delay_s)
                return self._answer(call, environ)
            case Mode.GARBAGE | Mode.DROP:
                return self._lose_answer(call, environ, fault.mode)

    def _lose_answer(self, call: AwsCall, environ: WSGIEnvironment, mode: Mode) -> Response:
        response = self._answer(call, environ)
        if mode is Mode.GARBAGE:
            return Response("<html>It works!</html>", content_type="text/html")
        _hang_up(environ)
        return response

    def _forward(self, environ: WSGIEnvironment) -> Response:
        return Response.from_app(self._moto, environ, buffered=True)


def _send(response: Response, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    chunks: Iterable[bytes] = response(environ, start_response)
    return chunks


def _hang_up(environ: WSGIEnvironment) -> None:
    connection: socket.socket = environ["werkzeug.socket"]
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
