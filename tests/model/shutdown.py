"""The shutdown Lambda, one step per call: facts, then each write, then the stop; any number of times, at any moment."""

from __future__ import annotations

from collections.abc import Iterator

from tests.model.rules import Rules, Scope
from tests.model.step import PROMPT, Step, fault
from tests.model.table import Table
from tests.model.world import HANGING, RUNNING, STOPPED, STOPPING, Hold, Look, World

_MOST_COUNTED = 3
"""Holds in a row beyond which their length grows no more."""


class Shutdown:
    """Runs whenever there is something for it to do: neither a lost alarm nor an extra one makes a difference to it."""

    def __init__(self, rules: Rules, scope: Scope, table: Table) -> None:
        self._rules = rules
        self._scope = scope
        self._table = table

    def steps(self, world: World) -> Iterator[Step]:
        if self._rules.stops_on_alarm_only:
            if world.alarm.event:
                yield self._answer_alarm(world)
            return
        for look in dict.fromkeys(world.looks):
            text, after, rest = self._go_on(world, look)
            looks = list(after.looks)
            looks.remove(look)
            yield Step("Lambda", text, PROMPT, after._replace(looks=_sorted((*looks, *rest))))
        if len(world.looks) < self._scope.looks:
            new = self._table.look(world)
            if new is not None and new not in world.looks:
                yield Step("Lambda", _said(new), PROMPT, world._replace(looks=_sorted((*world.looks, new))))

    def faults(self, world: World) -> Iterator[Step]:
        for look in dict.fromkeys(world.looks):
            looks = list(world.looks)
            looks.remove(look)
            yield fault("Lambda", "fails", world._replace(looks=tuple(looks)))
        if world.alarm.event:
            yield fault("alarm", "is lost", world._replace(alarm=world.alarm._replace(event=False)))

    def _answer_alarm(self, world: World) -> Step:
        world = world._replace(alarm=world.alarm._replace(event=False))
        if world.power == RUNNING:
            return Step("Lambda", "is called by the alarm and stops the GPU", PROMPT, world._replace(power=STOPPING))
        return Step("Lambda", f"is called by the alarm, finds the GPU {world.power}", PROMPT, world)

    def _go_on(self, world: World, look: Look) -> tuple[str, World, tuple[Look, ...]]:
        if look.clears:
            kept = world.hold if world.hold and world.hold.times != look.clears else None
            return "clears the hold", world._replace(hold=kept), ()
        if look.forces:
            if world.power == HANGING:
                return "forces the stop", world._replace(power=STOPPED, launched=0), ()
            return "finds the stop ended", world, ()
        if look.give_up:
            return self._give_up(world, look)
        if look.hold:
            return "holds the GPU", _held(world, look.hold), (look._replace(hold=None),)
        if world.power == RUNNING:
            return "stops the GPU", world._replace(power=STOPPING), ()
        return "finds the GPU not running", world, ()

    def _give_up(self, world: World, look: Look) -> tuple[str, World, tuple[Look, ...]]:
        number, attempt = look.give_up[0]
        task = world.tasks[number]
        rest = (look._replace(give_up=look.give_up[1:]),)
        if (task.status, task.attempt) == ("processing", attempt):
            return f"fails task {number}: rule_b", world.with_task(number, task._replace(status="failed")), rest
        if task.is_live:
            return f"finds task {number} taken anew, stops nothing", world, ()
        return f"finds task {number} ended", world, rest


def _said(look: Look) -> str:
    if look.forces:
        return "looks and decides to use force"
    return "looks and decides to stop" if look.stops else "looks and finds the worker healthy again"


def _held(world: World, hold: Hold) -> World:
    if world.hold is not None and world.hold.times >= hold.times:
        return world
    return world._replace(hold=hold._replace(times=min(hold.times, _MOST_COUNTED)))


def _sorted(looks: tuple[Look, ...]) -> tuple[Look, ...]:
    return tuple(sorted(looks, key=repr)) if len(looks) > 1 else looks
