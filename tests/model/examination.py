"""The whole judgement on one set of rules in one world, and how to read it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from tests.model.explore import Graph, Model, explore
from tests.model.fairness import bad_ends, dead_ends
from tests.model.promises import CAN_END, ENDS, is_good, promises
from tests.model.rules import Rules, Scope
from tests.model.world import World

MOST_STATES = 4_000_000


@dataclass(frozen=True, slots=True)
class Finding:
    """A broken promise and a shortest way to break it."""

    promise: str
    steps: tuple[str, ...]

    def __str__(self) -> str:
        return "\n".join((f"BROKEN: {self.promise}", *(f"  {n:3}. {step}" for n, step in enumerate(self.steps, 1))))


@dataclass(frozen=True, slots=True)
class Examination:
    """What was found.

    Attributes:
        sealed: states from which nothing good can be reached but by luck.
        endings: states in which a run may stay for ever though not all is well.
    """

    graph: Graph
    findings: tuple[Finding, ...]
    sealed: tuple[int, ...] = ()
    endings: tuple[int, ...] = ()

    def __str__(self) -> str:
        graph = self.graph
        size = f"{len(graph.states):,} states, {graph.steps:,} steps, {graph.took_s:.1f} s"
        return "\n".join((size, *map(str, self.findings))) if self.findings else f"{size}: every promise holds"

    @property
    def broken(self) -> set[str]:
        return {finding.promise for finding in self.findings}

    def stories(self, numbers: Iterable[int], where: Callable[[World], bool]) -> Iterator[tuple[str, ...]]:
        """Shortest ways to those of these states for which `where` holds, shortest first."""
        return (self.graph.story(number) for number in numbers if where(self.graph.states[number]))


def examine(rules: Rules, scope: Scope, *, stops_at: str | None = None) -> Examination:
    """Explore everything, and judge where it leads; or only until the promise `stops_at` is broken."""
    graph = explore(Model(rules, scope), promises(scope), most_states=MOST_STATES, stops_at=stops_at)
    findings = [Finding(promise, (*graph.story(at), text)) for promise, (at, text) in graph.violations.items()]
    if len(graph.edges) < len(graph.states):
        return Examination(graph, tuple(findings))
    sealed, endings = tuple(dead_ends(graph, is_good)), tuple(bad_ends(graph, is_good))
    for promise, numbers in ((CAN_END, sealed), (ENDS, endings)):
        findings += [Finding(promise, graph.story(number)) for number in numbers[:1]]
    return Examination(graph, tuple(findings), sealed, endings)
