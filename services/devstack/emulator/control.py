"""`/devstack/`: what a test, the demo and the pretend box may ask of the emulator beside the AWS APIs.

GET    /devstack/health                    answers once everything is served
GET    /devstack/calls                     {"attempted": {service: {action: n}}, "failed": {...}}
GET    /devstack/queues                    {queue: {"visible", "in_flight", "delayed", "sent"}}
GET    /devstack/faults                    the faults in force
POST   /devstack/faults                    order one (fields of `faults.Fault`)
DELETE /devstack/faults[?service=]         end them
GET    /devstack/instances/<id>            {"state", "version", "intervals"}; ?after=V&wait_s=S waits for one after V
POST   /devstack/instances/<id>/halt       the machine reports that it has shut down
POST   /devstack/instances/<id>/rest       the instance has been stopped for ever: its history is forgotten
"""

import json
from collections.abc import Callable
from dataclasses import asdict
from typing import Any, TypeAlias

from pydantic import TypeAdapter, ValidationError
from werkzeug.exceptions import HTTPException
from werkzeug.routing import Map, Rule
from werkzeug.wrappers import Request, Response

from services.devstack.emulator.calls import CallLog
from services.devstack.emulator.ec2 import Ec2
from services.devstack.emulator.faults import Fault, FaultPlan
from services.devstack.emulator.sqs import Sqs
from services.devstack.power import Power

_LONGEST_WAIT_S = 30.0
_FAULT: TypeAdapter[Fault] = TypeAdapter(Fault)
_Endpoint: TypeAlias = Callable[..., object]


class Control:
    """Routes and answers. Bad orders get 400 with the reason, unknown instances 404."""

    def __init__(self, *, region: str, calls: CallLog, faults: FaultPlan, ec2: Ec2, sqs: Sqs) -> None:
        self._region = region
        self._calls = calls
        self._faults = faults
        self._ec2 = ec2
        self._sqs = sqs
        self._routes = Map(
            [
                _rule("GET", "/devstack/health", self._health),
                _rule("GET", "/devstack/calls", self._show_calls),
                _rule("GET", "/devstack/queues", self._show_queues),
                _rule("GET", "/devstack/faults", self._show_faults),
                _rule("POST", "/devstack/faults", self._order_fault),
                _rule("DELETE", "/devstack/faults", self._clear_faults),
                _rule("GET", "/devstack/instances/<instance_id>", self._show_instance),
                _rule("POST", "/devstack/instances/<instance_id>/halt", self._halt),
                _rule("POST", "/devstack/instances/<instance_id>/rest", self._lay_to_rest),
            ]
        )

    def answer(self, request: Request) -> Response:
        """Answer one control request with JSON."""
        try:
            endpoint, arguments = self._routes.bind_to_environ(request.environ).match()
            return _json(200, endpoint(request, **arguments))
        except HTTPException as error:
            return _json(error.code or 500, {"error": error.description})
        except (ValidationError, ValueError) as error:
            return _json(400, {"error": str(error)})
        except KeyError as error:
            return _json(404, {"error": f"no instance {error}"})

    def _health(self, _request: Request) -> object:
        return {"status": "healthy"}

    def _show_calls(self, _request: Request) -> object:
        return {"attempted": self._calls.attempted(), "failed": self._calls.failed()}

    def _show_queues(self, _request: Request) -> object:
        return {name: asdict(depth) for name, depth in self._sqs.depths(self._region).items()}

    def _show_faults(self, _request: Request) -> object:
        return [asdict(fault) for fault in self._faults.in_force()]

    def _order_fault(self, request: Request) -> object:
        self._faults.order(_FAULT.validate_json(request.get_data()))
        return self._show_faults(request)

    def _clear_faults(self, request: Request) -> object:
        self._faults.clear(request.args.get("service"))
        return self._show_faults(request)

    def _show_instance(self, request: Request, instance_id: str) -> object:
        after = request.args.get("after", -1, type=int)
        wait_s = min(request.args.get("wait_s", 0.0, type=float), _LONGEST_WAIT_S)
        return _view(self._ec2.wait_for_change(instance_id, self._region, after=after, limit_s=wait_s))

    def _halt(self, _request: Request, instance_id: str) -> object:
        return _view(self._ec2.change(instance_id, self._region, Power.halt))

    def _lay_to_rest(self, _request: Request, instance_id: str) -> object:
        return _view(self._ec2.change(instance_id, self._region, Power.lay_to_rest))


def _rule(method: str, path: str, endpoint: _Endpoint) -> Rule:
    return Rule(path, methods=[method], endpoint=endpoint)


def _view(power: Power) -> dict[str, Any]:
    return {"state": power.state, "version": power.version, "intervals": [asdict(i) for i in power.history]}


def _json(status: int, body: object) -> Response:
    return Response(json.dumps(body), status, content_type="application/json")
