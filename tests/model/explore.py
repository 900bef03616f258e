"""Visits every state that a small world can reach, breadth first: the first way to a state is a shortest one."""

from __future__ import annotations

import gc
import itertools
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

from tests.model.adapter import AdapterProgram
from tests.model.orchestrator import Janitor, Waker
from tests.model.rules import Rules, Scope
from tests.model.shutdown import Shutdown
from tests.model.step import FAULT, PROMPT, Step, fault
from tests.model.submission import Submission
from tests.model.surroundings import Clock, Surroundings
from tests.model.table import Table
from tests.model.world import Post, Task, World

Check = Callable[[World, Step], Iterator[str]]


class Program(Protocol):
    """Somebody who acts: what they may do next in a world, and what may go wrong with them."""

    def __init__(self, rules: Rules, scope: Scope, table: Table) -> None: ...

    def steps(self, world: World) -> Iterator[Step]: ...

    def faults(self, world: World) -> Iterator[Step]: ...


class Model:
    """All that may happen in one world under one set of rules."""

    def __init__(self, rules: Rules, scope: Scope) -> None:
        table = Table(rules, scope)
        adapter = AdapterProgram(rules, scope, table)
        programs: tuple[type[Program], ...] = (Submission, Waker, Janitor, Shutdown, Surroundings)
        self._programs: tuple[Program, ...] = (adapter, *(program(rules, scope, table) for program in programs))
        self._clock = Clock(rules, scope, adapter)
        self._counts = re.compile(scope.only)
        self.scope = scope

    def start(self) -> World:
        """Nothing has been asked for yet, the instance is stopped."""
        return World(
            faults=self.scope.faults,
            posts=tuple(Post(task) for task in self.scope.posts),
            tasks=(Task(),) * self.scope.tasks,
            alarm=self._clock.alarm_of_an_empty_queue(),
        )

    def steps(self, world: World) -> list[Step]:
        """All that may happen next.

        Whatever can be done promptly is done before a tick is over; that it takes longer is a fault. So time may pass
        at any moment, and still it is defined what in-time behaviour promises.
        """
        steps = [step for program in self._programs for step in program.steps(world)]
        late = any(step.kind is PROMPT for step in steps)
        if world.faults:
            faults = [step for program in self._programs for step in program.faults(world)]
            if late:
                faults.append(fault("time", "passes before anything else happens", self._clock.tick(world)))
            steps += [step for step in faults if self._counts.search(f"{step.actor}: {step.text}")]
        if not late:
            steps.append(Step("time", "passes", PROMPT, self._clock.tick(world)))
        return steps


@dataclass(slots=True)
class Graph:
    """Every reachable state, how it was first reached, and every way on that is no fault.

    Attributes:
        edges: per state: (state, actor) of each step; a fault cannot be part of a cycle, since it uses itself up.
        prompt: per state: actors that have something to do, in time and without being lucky.
        violations: of each broken promise the state and the step that broke it first.
    """

    states: list[World] = field(default_factory=list)
    parents: list[tuple[int, str] | None] = field(default_factory=list)
    edges: list[tuple[tuple[int, str], ...]] = field(default_factory=list)
    prompt: list[frozenset[str]] = field(default_factory=list)
    violations: dict[str, tuple[int, str]] = field(default_factory=dict)
    steps: int = 0
    took_s: float = 0.0

    def story(self, number: int) -> tuple[str, ...]:
        """The shortest way to a state."""
        lines: list[str] = []
        parent = self.parents[number]
        while parent is not None:
            number, text = parent
            lines.append(text)
            parent = self.parents[number]
        return tuple(reversed(lines))


def explore(model: Model, check: Check, *, most_states: int, stops_at: str | None = None) -> Graph:
    """Breadth-first search from the start, to its end or until the promise `stops_at` is broken.

    Raises:
        TooLarge: there are more than `most_states`.
    """
    gc.disable()  # nothing here is ever garbage, and looking for it would take most of the time
    try:
        return _Search(model, check, most_states).run(stops_at)
    finally:
        gc.enable()


class TooLarge(Exception):
    """The world has more states than asked for."""


class _Search:
    def __init__(self, model: Model, check: Check, most_states: int) -> None:
        self._model = model
        self._check = check
        self._most_states = most_states
        self._graph = Graph()
        self._numbers: dict[World, int] = {}
        # Few different texts and sets of actors, each kept once.
        self._texts: dict[tuple[str, str], str] = {}
        self._actors: dict[frozenset[str], frozenset[str]] = {}

    def run(self, stops_at: str | None) -> Graph:
        began = time.perf_counter()
        graph = self._graph
        self._number_of(self._model.start(), None)
        for at in itertools.count():
            if at == len(graph.states) or (stops_at is not None and stops_at in graph.violations):
                break
            self._visit(at)
        graph.took_s = time.perf_counter() - began
        return graph

    def _visit(self, at: int) -> None:
        graph = self._graph
        world = graph.states[at]
        edges: set[tuple[int, str]] = set()
        prompt: set[str] = set()
        for step in self._model.steps(world):
            graph.steps += 1
            for promise in self._check(world, step):
                graph.violations.setdefault(promise, (at, self._text(step)))
            after = self._number_of(step.world, (at, step))
            if step.kind is not FAULT:
                edges.add((after, step.actor))
            if step.kind is PROMPT:
                prompt.add(step.actor)
        actors = frozenset(prompt)
        graph.edges.append(tuple(edges))
        graph.prompt.append(self._actors.setdefault(actors, actors))

    def _number_of(self, world: World, way: tuple[int, Step] | None) -> int:
        known = self._numbers.get(world)
        if known is not None:
            return known
        graph = self._graph
        number = self._numbers[world] = len(graph.states)
        if number >= self._most_states:
            raise TooLarge(f"more than {self._most_states:,} states")
        graph.states.append(world)
        graph.parents.append(None if way is None else (way[0], self._text(way[1])))
        return number

    def _text(self, step: Step) -> str:
        key = (step.actor, step.text)
        return self._texts.setdefault(key, f"{step.actor}: {step.text}")
