"""Whether every fair run comes to a good end, and whether it still can from everywhere.

A run is fair if nobody who could act for ever after is kept from it for ever. Since the faults of a run are numbered,
its end lies in one strongly connected component of the graph without faults; a component in which somebody has
something to do in every state, and never does it, is not where a fair run ends.
"""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Callable, Iterator

from tests.model.explore import Graph
from tests.model.world import World


def dead_ends(graph: Graph, is_good: Callable[[World], bool]) -> list[int]:
    """States from which no good one can be reached without a fault, nearest to the start first."""
    backward: list[list[int]] = [[] for _ in graph.states]
    for source, edges in enumerate(graph.edges):
        for target, _ in edges:
            backward[target].append(source)
    hopeful = bytearray(len(graph.states))
    todo = deque(number for number, world in enumerate(graph.states) if is_good(world))
    for number in todo:
        hopeful[number] = 1
    while todo:
        for source in backward[todo.popleft()]:
            if not hopeful[source]:
                hopeful[source] = 1
                todo.append(source)
    return [number for number, hope in enumerate(hopeful) if not hope]


def bad_ends(graph: Graph, is_good: Callable[[World], bool]) -> list[int]:
    """First states of components in which a fair run may stay for ever though not all of it is good."""
    states = graph.states
    return sorted(
        min(part)
        for part in components(graph)
        if _is_fair(graph, part) and not all(is_good(states[number]) for number in part)
    )


def _is_fair(graph: Graph, part: list[int]) -> bool:
    inside = set(part)
    taken = {actor for number in part for target, actor in graph.edges[number] if target in inside}
    if not taken:
        return False  # no way to stay
    starved = frozenset.intersection(*(graph.prompt[number] for number in part)) - taken
    return not starved


def components(graph: Graph) -> Iterator[list[int]]:
    """Strongly connected components (Tarjan, without recursion)."""
    size = len(graph.states)
    order, low = array("l", [-1]) * size, array("l", [0]) * size
    on_stack = bytearray(size)
    stack: list[int] = []
    counter = 0
    for root in range(size):
        if order[root] >= 0:
            continue
        order[root] = low[root] = counter
        counter += 1
        stack.append(root)
        on_stack[root] = 1
        path = [(root, iter(graph.edges[root]))]
        while path:
            number, edges = path[-1]
            for target, _ in edges:
                if order[target] < 0:
                    order[target] = low[target] = counter
                    counter += 1
                    stack.append(target)
                    on_stack[target] = 1
                    path.append((target, iter(graph.edges[target])))
                    break
                if on_stack[target]:
                    low[number] = min(low[number], order[target])
            else:
                path.pop()
                if path:
                    above = path[-1][0]
                    low[above] = min(low[above], low[number])
                if low[number] == order[number]:
                    yield _popped(stack, on_stack, number)


def _popped(stack: list[int], on_stack: bytearray, number: int) -> list[int]:
    part: list[int] = []
    while not part or part[-1] != number:
        part.append(stack.pop())
        on_stack[part[-1]] = 0
    return part
