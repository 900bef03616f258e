"""EC2 with the states moto leaves out: `pending`, `stopping`, and the refusals that go with them."""

import threading
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any
from wsgiref.types import WSGIEnvironment

from moto.backends import get_backend
from moto.core import DEFAULT_ACCOUNT_ID
from moto.ec2.exceptions import InvalidInstanceIdError
from werkzeug.wrappers import Response

from services.devstack.emulator.aws_call import AwsCall, Forward
from services.devstack.emulator.errors import ErrorAnswer, respond
from services.devstack.power import IncorrectInstanceStateError, Power, State, Transition

_NAMESPACE = "http://ec2.amazonaws.com/doc/2016-11-15/"


class Ec2:
    """Answers Start and Stop itself and keeps moto's instances in the state they would show.

    States follow from the time that has passed (`Power.settle`), looked at before each call, so nothing runs in
    between. One lock round every EC2 call: no caller sees an instance half-way between moto's state and ours.
    """

    def __init__(self, *, pending_s: float, power_cut_s: float, clock: Callable[[], float] = time.time) -> None:
        self._pending_s = pending_s
        self._power_cut_s = power_cut_s
        self._clock = clock
        self._changed = threading.Condition()
        self._powers: dict[str, Power] = {}

    def answer(self, call: AwsCall, environ: WSGIEnvironment, forward: Forward) -> Response:
        """Answer one EC2 call."""
        with self._changed:
            self._settle(call.region)
            if call.action in ("StartInstances", "StopInstances") and not _is_dry_run(call):
                response = self._switch(call, environ, forward)
            else:
                response = forward(environ)
            self._settle(call.region)
            self._changed.notify_all()
            return response

    def change(self, instance_id: str, region: str, verb: Callable[[Power, float], None]) -> Power:
        """Let the machine itself act on its power: `Power.halt` or `Power.lay_to_rest`.

        Raises:
            KeyError: no such instance.
        """
        with self._changed:
            self._settle(region)
            verb(self._powers[instance_id], self._clock())
            self._settle(region)
            self._changed.notify_all()
            return self._powers[instance_id]

    def wait_for_change(self, instance_id: str, region: str, *, after: int, limit_s: float) -> Power:
        """Block until the instance has made a transition later than version `after`, or `limit_s` has passed.

        Raises:
            KeyError: no such instance.
        """
        give_up_at_s = self._clock() + limit_s
        with self._changed:
            while True:
                self._settle(region)
                power = self._powers[instance_id]
                now_s = self._clock()
                if power.version > after or now_s >= give_up_at_s:
                    return power
                due_s = give_up_at_s if power.changes_at_s is None else min(power.changes_at_s, give_up_at_s)
                self._changed.wait(max(due_s - now_s, 0.001))

    def _settle(self, region: str) -> None:
        """Bring moto's instances and our states together, adopting instances that are new."""
        now_s = self._clock()
        for instance in get_backend("ec2")[DEFAULT_ACCOUNT_ID][region].all_instances():
            power = self._powers.get(instance.id) or self._adopt(instance)
            if instance.state == State.TERMINATED:
                power.terminate(now_s)
            power.settle(now_s)
            _show(instance, power)

    def _adopt(self, instance: Any) -> Power:
        launched_at_s = instance.launch_time.replace(tzinfo=UTC).timestamp()
        power = Power(
            pending_s=self._pending_s, power_cut_s=self._power_cut_s, state=State.PENDING, since_s=launched_at_s
        )
        self._powers[instance.id] = power
        return power

    def _switch(self, call: AwsCall, environ: WSGIEnvironment, forward: Forward) -> Response:
        instance_ids = [ids[0] for name, ids in sorted(call.form().items()) if name.startswith("InstanceId.")]
        if not instance_ids or any(instance_id not in self._powers for instance_id in instance_ids):
            return forward(environ)  # moto words the error
        now_s = self._clock()
        transitions: dict[str, Transition] = {}
        for instance_id in instance_ids:
            power = self._powers[instance_id]
            try:
                transitions[instance_id] = _switched_power(power, call, now_s)
            except IncorrectInstanceStateError:
                return respond(call, _incorrect_state(call, instance_id, power.state))
        for instance_id, transition in transitions.items():
            if transition == Transition(State.STOPPED, State.PENDING):
                self._launch(instance_id, call.region, now_s)
        return _switched(call.action, transitions)

    def _launch(self, instance_id: str, region: str, now_s: float) -> None:
        with suppress(InvalidInstanceIdError):
            instance = get_backend("ec2")[DEFAULT_ACCOUNT_ID][region].get_instance(instance_id)
            instance.start()  # a new public address, as after a real stop
            # "LaunchTime: the time the instance was launched", renewed by each start; moto keeps the first:
            # https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_Instance.html
            instance.launch_time = datetime.fromtimestamp(now_s, UTC).replace(tzinfo=None)


def _is_dry_run(call: AwsCall) -> bool:
    return call.form().get("DryRun") == ["true"]  # moto answers DryRunOperation


def _switched_power(power: Power, call: AwsCall, now_s: float) -> Transition:
    if call.action == "StartInstances":
        return power.start(now_s)
    return power.stop(now_s, force=call.form().get("Force") == ["true"])


def _show(instance: Any, power: Power) -> None:
    state = power.state
    if instance.state == state:
        return
    if state is State.STOPPED:
        instance.stop()  # gives up the public address
    if power.stopped_at_s is not None:
        # https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_Instance.html: "reason"
        stopped_at = datetime.fromtimestamp(power.stopped_at_s, UTC)
        instance._reason = f"User initiated ({stopped_at:%Y-%m-%d %H:%M:%S} GMT)"  # noqa: SLF001  moto writes UTC there
    instance.instance_state.name = state.value
    instance.instance_state.code = state.code


def _incorrect_state(call: AwsCall, instance_id: str, state: State) -> ErrorAnswer:
    # https://docs.aws.amazon.com/AWSEC2/latest/APIReference/errors-overview.html
    verb = "started" if call.action == "StartInstances" else "stopped"
    message = f"The instance '{instance_id}' is not in a state from which it can be {verb} ({state})."
    return ErrorAnswer(400, "IncorrectInstanceState", message)


def _switched(action: str, transitions: dict[str, Transition]) -> Response:
    # https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_StartInstances.html, and API_StopInstances.html
    items = "".join(
        f"<item><instanceId>{instance_id}</instanceId>{_state('currentState', transition.current)}"
        f"{_state('previousState', transition.previous)}</item>"
        for instance_id, transition in transitions.items()
    )
    body = (
        f'<?xml version="1.0" encoding="UTF-8"?><{action}Response xmlns="{_NAMESPACE}">'
        f"<requestId>{uuid.uuid4()}</requestId><instancesSet>{items}</instancesSet></{action}Response>"
    )
    return Response(body, content_type="text/xml;charset=UTF-8")


def _state(element: str, state: State) -> str:
    return f"<{element}><code>{state.code}</code><name>{state}</name></{element}>"
